"""The hardest share of a batch or an epoch: what is picked, who learns, that a stored run goes on exactly."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from drawn import splits
from model_settings import section

from fastresnet import models, optim
from fastresnet.machine import precision
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.selection import HardExamples, Memory, ProxyNet

CPU = torch.device("cpu")
FP32 = precision.resolve("fp32", CPU)


def batch(seed=0, count=20):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 24, 24, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (count,), generator=generator)


def net():
    torch.manual_seed(0)
    return models.build(section("model", arch="speednet", width=0.125), 10)


def proxy(capturable=False, fraction=0.5, steps=20, every=1):
    model = net()
    optimizer = optim.build(model, section("optim", lr=0.02), device=CPU, capturable=capturable)
    factors = [1.0 - step / steps for step in range(steps)]
    return ProxyNet(model, fraction, optimizer, factors, precision=FP32, device=CPU, every=every)


@pytest.mark.parametrize("fraction, kept", [(0.5, 10), (0.3, 6), (0.01, 1), (1.0, 20)])
def test_the_images_with_the_largest_loss_are_kept(fraction, kept):
    model, (images, labels) = net().eval(), batch()
    hard_images, hard_labels = HardExamples(model, fraction, precision=FP32, device=CPU)(images, labels)
    losses = F.cross_entropy(model(images), labels, reduction="none")
    rows = losses.topk(kept).indices
    assert hard_images.equal(images[rows]) and hard_labels.equal(labels[rows])
    assert hard_images.is_contiguous(memory_format=torch.channels_last)


def test_judging_by_the_model_itself_changes_nothing_in_it():
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    HardExamples(model, 0.5, precision=FP32, device=CPU)(*batch())
    assert model.training and all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_the_proxy_learns_from_what_it_picks_alone():
    chooser, reference = proxy(), net()
    images, labels = batch()
    chooser(images, labels)
    optimizer = optim.build(reference, section("optim", lr=0.02), device=CPU)
    losses = F.cross_entropy(reference(images), labels, reduction="none")
    losses.topk(10).values.mean().backward()
    optimizer.step()
    for ours, theirs in zip(chooser.model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_the_proxy_follows_the_schedule_with_rates_in_tensors_too():
    results = []
    for capturable in (False, True):
        chooser = proxy(capturable)
        picked = [chooser(*batch(seed))[1] for seed in range(4)]
        group = chooser.optimizer.param_groups[0]
        assert float(group["lr"]) == pytest.approx(0.02 * (1 - 3 / 20))
        results.append(torch.cat(picked))
    assert results[0].equal(results[1])


@pytest.mark.parametrize("capturable", [False, True])
def test_between_its_lessons_a_proxy_judges_as_it_is_and_the_schedule_goes_on(capturable):
    chooser = proxy(capturable, every=3)
    for step in range(7):
        images, labels = batch(step)
        before = copy.deepcopy(chooser.model)
        rows = F.cross_entropy(copy.deepcopy(before)(images), labels, reduction="none").topk(10).indices
        picked = chooser(images, labels, chooser.learns(step))[0]
        assert picked.equal(images[rows])
        both = zip(before.parameters(), chooser.model.parameters())
        same = [a.equal(b) for a, b in both if a.requires_grad]
        assert all(same) if step % 3 else not any(same)
        assert all(p.grad is None for p in chooser.model.parameters())
    assert float(chooser.optimizer.param_groups[0]["lr"]) == pytest.approx(0.02 * (1 - 6 / 20))


def test_the_trainer_tells_the_proxy_in_which_steps_to_learn_after_resuming_too():
    changes = {"train.epoch_share": 1.0, "train.hard_fraction": 0.5, "train.proxy_width": 0.5}
    one, other = (remembered(train__epochs=2, **changes, train__proxy_every=3) for _ in range(2))
    lessons = []
    for trainer in (one.trainer, other.trainer):
        if trainer is other.trainer:
            trainer.load_state_dict(copy.deepcopy(one.trainer.state_dict()))
        for _ in range(2):
            for images, labels in itertools.islice(one.batches(0), 2):
                before = next(trainer.select.model.head.parameters()).clone()
                trainer.step(images, labels)
                lessons.append(not before.equal(next(trainer.select.model.head.parameters())))
    assert lessons == [True, False, False, True, False, False, True, False]


def test_a_stored_proxy_goes_on_bit_for_bit():
    whole, first = proxy(), proxy()
    for seed in range(3):
        whole(*batch(seed))
        first(*batch(seed))
    second = proxy()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(3, 6):
        a, b = whole(*batch(seed)), second(*batch(seed))
        assert a[0].equal(b[0]) and a[1].equal(b[1])
    assert all(x.equal(y) for x, y in zip(whole.model.parameters(), second.model.parameters()))


def test_a_snapshot_undoes_warming_up():
    warmed, fresh = proxy(), proxy()
    (snapshot,) = warmed.snapshots()
    warmed(*batch(7))
    snapshot.restore()
    for seed in range(3):
        assert warmed(*batch(seed))[0].equal(fresh(*batch(seed))[0])


def test_reset_begins_again_in_place():
    chooser, fresh = proxy(), proxy()
    weight = next(chooser.model.parameters())
    chooser(*batch(7))
    chooser.model.load_state_dict(net().state_dict())
    chooser.reset()
    assert next(chooser.model.parameters()) is weight
    for seed in range(3):
        assert chooser(*batch(seed))[1].equal(fresh(*batch(seed))[1])


def test_the_proxy_gets_better_at_what_it_sees():
    chooser, (images, labels) = proxy(fraction=1.0), batch()
    before = chooser._losses(images, labels, 0.0).mean().item()
    for _ in range(15):
        chooser(images, labels)
    assert chooser._losses(images, labels, 0.0).mean().item() < before


def test_fp16_and_impossible_fractions_are_refused():
    fp16 = precision.Precision("fp16", torch.float16, scales_loss=True, reason="")
    chooser = proxy()
    with pytest.raises(ValueError, match="fp16 needs"):
        ProxyNet(chooser.model, 0.5, chooser.optimizer, [1.0], precision=fp16, device=CPU)
    with pytest.raises(ValueError, match="train.hard_fraction must be above 0"):
        HardExamples(chooser.model, 0.0, precision=FP32, device=CPU)


# ---- the hardest share of an epoch -------------------------------------------------------------------------

REMEMBERED = {
    "model.arch": "speednet", "model.stage_widths": [8, 8, 8], "train.batch_size": 10, "train.epochs": 4,
    "train.precision": "fp32", "run.device": "cpu", "run.threads": 1, "train.epoch_share": 0.5,
}  # fmt: skip


def remembered(**changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    one = Experiment(config.load(None, REMEMBERED | changes), splits=splits(40, 10, size=16))
    one.initialise()
    return one


def shown(one, epoch):
    return one.train_loader.plan(epoch)[0]


def test_an_epoch_shows_the_images_never_seen_and_then_the_hardest():
    memory = Memory(6, 3, 2, CPU)
    order = torch.tensor([5, 3, 1, 0, 2, 4])

    def chosen(epoch):
        places, times = memory.choose(order, epoch)
        return order[places].tolist(), times.tolist()

    assert chosen(0) == ([5, 3, 1], [0, 0, 0])
    memory.losses[:] = torch.tensor([9.0, 0.1, torch.inf, 0.3, 0.2, 0.4])
    assert chosen(0) == ([5, 3, 1], [0, 0, 0])  # as the epoch began
    assert chosen(1) == chosen(1) == ([5, 0, 2], [1, 0, 0])
    memory.reset()
    assert chosen(2) == ([5, 3, 1], [0, 0, 0])


def test_every_image_is_seen_before_any_is_seen_again():
    one = remembered()
    assert one.steps_per_epoch == 2
    first = shown(one, 0).tolist()
    one.fit_epoch(0)
    second = shown(one, 1).tolist()
    assert sorted(first + second) == list(range(40))
    one.fit_epoch(1)
    memory = one.trainer.select
    third = shown(one, 2)
    left = [row for row in range(40) if row not in third.tolist()]
    assert memory.losses[third].min() >= memory.losses[left].max()


def test_an_image_is_mirrored_the_other_way_each_time_it_is_shown():
    one, last, left_out = remembered(train__flip="alternating", train__epochs=8), {}, 0
    for epoch in range(8):
        rows, choices = one.train_loader.plan(epoch)
        for row, flip in zip(rows.tolist(), choices.flip.tolist()):
            before, way = last.get(row, (epoch - 1, not flip))
            left_out += before < epoch - 1
            assert flip != way
            last[row] = epoch, flip
        one.fit_epoch(epoch)
    assert left_out > 20  # the epoch's number would not have done


@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_remembered_is_each_image_s_loss_before_label_smoothing(parts):
    one = remembered(train__label_smoothing=0.1, train__accumulate=parts)
    images, labels = next(one.batches(0))
    rows, model = one.train_loader.rows, copy.deepcopy(one.model).train()
    pieces = zip(images.tensor_split(parts), labels.tensor_split(parts))
    expected = [F.cross_entropy(model(some), kinds, reduction="none") for some, kinds in pieces]
    one.trainer.step(images, labels)
    assert torch.allclose(one.trainer.select.losses[rows], torch.cat(expected), atol=1e-5)
    assert torch.isinf(one.trainer.select.losses).sum() == 30


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_goes_on_within_an_epoch_with_the_images_it_had_begun_with(steps):
    whole, part, rest = (remembered() for _ in range(3))
    for epoch in range(4):
        whole.fit_epoch(epoch)
    for epoch in range((steps + 1) // 2):
        part.fit_epoch(epoch, limit=steps)
    rest.trainer.load_state_dict(copy.deepcopy(part.trainer.state_dict()))
    rest.model.load_state_dict(part.model.state_dict())
    for epoch in range(steps // 2, 4):
        rest.fit_epoch(epoch)
    assert all(
        a.equal(b) for a, b in zip(whole.model.state_dict().values(), rest.model.state_dict().values())
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"data.loader": "torchvision"}, "data.loader=torchvision can't"),
        ({"train.hard_fraction": 0.5}, "both pick the hardest"),
        ({"train.batch_size": 30}, "larger than the 20 images"),
    ],
)
def test_where_a_memory_cannot_be_one_line_says_so(changes, words):
    with pytest.raises(ValueError, match=words):
        Experiment(config.load(None, REMEMBERED | changes), splits=splits(40, 10, size=16))
