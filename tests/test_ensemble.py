"""Ensembles: each member learns as if it were alone, in whatever way they go; their mean answers."""

import copy

import numpy as np
import observed
import pytest
import torch
import torch.nn.functional as F
from made_run import write_checkpoint

from fastresnet import models, optim
from fastresnet.inference import export, gradcam, model_card
from fastresnet.inference import trained as trained_network
from fastresnet.models.flops import flops_per_image, frozen_savings
from fastresnet.models.layers import members, seed_of_member
from fastresnet.optim import blocks, freezing
from fastresnet.settings import config
from fastresnet.training import own, step

NET = {"model.arch": "speednet", "model.stage_widths": [8, 8, 8]}
SMALL = {
    **NET, "train.batch_size": 8, "train.epochs": 1, "train.precision": "fp32", "run.device": "cpu",
    "run.threads": 1, "schedule.name": "constant", "optim.lr": 0.05,
}  # fmt: skip
NINE, TWENTY = {"model.arch": "resnet9", "model.width": 0.125}, {"model.depth": 20, "model.width": 0.5}


def settings(**changes):
    return config.load(None, SMALL | {key.replace("__", "."): value for key, value in changes.items()})


def built(arch, count, seed=7):
    return models.build(config.load(None, {**arch, "model.members": count}).model, 10, 32, seed=seed)


def trained(cfg, seed=None, together=False):
    """Its members' weights after an epoch, and (summed loss, hits, images) of it; `seed`: of the weights."""
    with observed.experiment(cfg) as one:
        if seed is not None:
            one.model.reset_parameters(seed)
        if together:
            one.trainer.update.nets = {"": one.model}
        one.initialise()
        one.fit_epoch(0)
        nets = [copy.deepcopy(net.state_dict()) for net in members(one.model).values()]
        return nets, one.trainer.totals.clone()


@pytest.mark.parametrize("changes", [
    {}, {"optim__name": "muon", "optim__renormalize_every": 1}, {"train__accumulate": 2},
    {"train__freeze_late": ["groups.0 0.5"], "train__loss_reduction": "sum", "optim__lr": 0.005},
    {"train__freeze_whiten_after": 0.5}, {"optim__layer_decay": 0.5},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("together", [False, True])
def test_a_member_learns_as_if_it_were_alone(changes, together):
    both, figures = trained(settings(model__members=2, **changes), together=together)
    sums = []
    for number, found in enumerate(both):
        (alone,), told = trained(settings(**changes), seed_of_member(0, number))
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
        sums.append(told)
    torch.testing.assert_close(figures, torch.stack(sums).mean(0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0]["head.weight"], both[1]["head.weight"], atol=1e-2)


@pytest.mark.slow(60)
def test_a_compiled_ensemble_learns_what_an_eager_one_does():
    changes = {"model__members": 2, "train__freeze_late": ["groups.0 0.5"], "train__epoch_share": 0.5}
    (eager, told), (compiled, theirs) = (
        trained(settings(train__compile=how, **changes)) for how in ("off", "default")
    )
    torch.testing.assert_close(theirs, told, rtol=1e-4, atol=1e-4)
    for ours, other in zip(eager, compiled):
        for key, value in ours.items():
            torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4)


def test_an_image_is_as_hard_as_the_members_find_it_on_average():
    def seen(**changes):
        with observed.experiment(settings(train__epoch_share=0.5, **changes)) as one:
            one.initialise()
            one.fit_epoch(0, limit=1)
            return one.trainer.select.losses.clone()

    both, together = seen(model__members=2), seen(model__members=2, train__accumulate=2)
    assert both.isfinite().sum() == 8 and not torch.equal(both, together)  # halves have norms of their own
    with observed.experiment(settings(train__epoch_share=0.5, model__members=2)) as one:
        one.initialise()
        images, labels = next(iter(one.batches(0)))
        one.model.train()
        losses = [F.cross_entropy(logits, labels, reduction="none") for logits in one.model(images)]
        torch.testing.assert_close(both[one.train_loader.rows], torch.stack(losses).mean(0).detach())


@pytest.mark.parametrize("arch", [NET, NINE, TWENTY], ids=str)
def test_the_answer_is_the_mean_of_the_members(arch):
    model = built(arch, 3).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        answers = torch.stack([member(images) for member in model.members])
        torch.testing.assert_close(model(images), answers.mean(0))
        assert model.train()(images).shape == (3, 4, 10)
    assert answers.std(0).min() > 0


@pytest.mark.parametrize("arch", [NET, NINE, TWENTY], ids=str)
def test_members_begin_as_networks_of_seeds_of_their_own(arch):
    model, again = built(arch, 2), built(arch, 2, seed=8)
    for number, member in enumerate(model.members):
        alone = built(arch, 1, seed=seed_of_member(7, number))
        assert observed.same(member.state_dict(), alone.state_dict())
    assert not observed.same(model.state_dict(), again.state_dict())
    again.reset_parameters(7)
    assert observed.same(model.state_dict(), again.state_dict())


def test_no_two_ensembles_share_a_member():
    assert len({seed_of_member(seed, number) for seed in range(50) for number in range(50)}) == 2500


@pytest.mark.parametrize("arch", [NET, NINE, TWENTY], ids=str)
def test_what_goes_by_part_or_kind_goes_through_all_members(arch):
    alone, both = (built(arch, count) for count in (1, 2))
    for name, parameters in optim.grouped(alone).items():
        assert len(optim.grouped(both)[name]) == 2 * len(parameters)
    assert len(blocks.blocks(both)) == len(blocks.blocks(alone))
    assert sorted(blocks.depths(both).values()) == sorted([*blocks.depths(alone).values()] * 2)
    first = blocks.blocks(alone)[1][0]
    for wanted in ([first], ["trunk"]):
        names = freezing.of_parts(alone, wanted, None).names
        assert freezing.of_parts(both, wanted, None).names == tuple(
            f"members.{number}.{name}" for number in range(2) for name in names
        )
    one = blocks.blocks(both)[0][0]  # as `describe model` and errors print it
    assert all(name.startswith("members.0.") for name in freezing.of_parts(both, [one], None).names)
    assert flops_per_image(both) == 2 * flops_per_image(alone)
    frozen = [freezing.of_parts(model, [blocks.blocks(alone)[0][0]], None).names for model in (alone, both)]
    assert frozen_savings(both, frozen[1]) == 2 * frozen_savings(alone, frozen[0]) > 0


def test_one_after_the_other_where_nothing_compiles_and_nobody_waits():
    def nets(**options):
        cfg = settings(model__members=2)
        model = models.build(cfg.model, 10, 32, seed=0)
        with observed.experiment(cfg) as one:
            made = step.Step(
                model, one.optimizer, step.StepOptions(**options), device=one.device, precision=one.precision,
                select=one.trainer.select, freeze=(),
            )  # fmt: skip
        return list(made.nets)

    assert nets() == ["members.0.", "members.1."]
    assert nets(processes=2) == nets(compile="default") == [""]


def test_a_network_that_is_handed_in_is_one():
    own.Own().check(2)
    with pytest.raises(ValueError, match="model.members=2 is for model.arch"):
        own.Own(model=torch.nn.Flatten()).check(2)


def test_heat_of_an_ensemble_is_that_of_its_members():
    images, classes = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    model = built(NET, 2).eval()
    each = [gradcam.heatmaps(member, images, classes) for member in model.members]
    heat, both = gradcam.heatmaps(model, images, classes), sum(each)
    torch.testing.assert_close(heat, both / both.amax(dim=(1, 2), keepdim=True).clamp(min=1e-9))
    assert heat.max() == 1 and not torch.allclose(heat, each[0], atol=0.05)


def test_an_ensemble_leaves_for_other_programs_and_is_none_of_torchvisions(tmp_path):
    network = trained_network.load(write_checkpoint(tmp_path / "m.pt", changes={"model.members": 2}))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    path = export.to_torch_export(network, tmp_path / "m.pt2", "nhwc")
    found = export.largest_difference(network, path, pixels)
    assert found["largest_difference"] < 1e-5 * found["largest_logit"] and found["changed_classes"] == 0
    assert "# small: 2 x resnet-20 on made" in model_card.text(network, None)
    with pytest.raises(ValueError, match="torchvision has no ensembles, and this one has 2 members"):
        export.to_torchvision(network, tmp_path / "tv.pth")
