"""The hardest share of a batch: what is picked, that the proxy learns, that a stored one goes on exactly."""

import copy

import pytest
import torch
import torch.nn.functional as F
from model_settings import section

from fastresnet import models, optim
from fastresnet.machine import precision
from fastresnet.training.selection import HardExamples, ProxyNet

CPU = torch.device("cpu")
FP32 = precision.resolve("fp32", CPU)


def batch(seed=0, count=20):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 24, 24, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (count,), generator=generator)


def net():
    torch.manual_seed(0)
    return models.build(section("model", arch="speednet", width=0.125), 10)


def proxy(capturable=False, fraction=0.5, steps=20):
    model = net()
    optimizer = optim.build(model, section("optim", lr=0.02), device=CPU, capturable=capturable)
    factors = [1.0 - step / steps for step in range(steps)]
    return ProxyNet(model, fraction, optimizer, factors, precision=FP32, device=CPU)


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
