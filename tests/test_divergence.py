"""divergence: what first wasn't finite is named by step and layer, and by what brings it back."""

import math

import observed
import pytest
import torch
import torch.nn.functional as F
from brittle import net
from test_handed import SMALL, pair  # noqa: F401  (a fixture)
from torch import nn

import fastresnet as fr
from fastresnet.runs import checkpoint
from fastresnet.settings import config
from fastresnet.training.trainer import Diverged
from fastresnet.watching import divergence

EACH_STEP = {"train.checkpoint_every": "1 steps"}
NOTHING_KEPT = {"run.save_checkpoints": False}


@pytest.fixture
def train(tmp_path, pair):  # noqa: F811
    """train(changes, ...): three epochs of four steps."""

    def call(changes=None, **handed):
        settings = {**SMALL, "run.dir": str(tmp_path / "run"), **(changes or {})}
        return fr.train("rn18.yaml", settings, data=pair, **handed)

    return call


@pytest.mark.parametrize("keeping", [EACH_STEP, NOTHING_KEPT], ids=["kept", "nothing kept"])
@pytest.mark.parametrize(("way", "what"), [
    ("forward", "the output of 3 (20 of 20 images) is not finite"),
    ("backward", "the gradient at the output of 2 is not finite, though all outputs and the loss"),
])  # fmt: skip
def test_the_step_and_the_layer_are_named(train, keeping, way, what):
    with pytest.raises(Diverged, match=r"in epoch 2 \(step [67]\)") as told:
        train(keeping, model=net(6, way))
    assert "it began in step 6 (batch 2 of epoch 2, seed 0, learning rate 0.0" in str(told.value)
    assert what in str(told.value) and "it comes again with the same call" in str(told.value)


def test_an_update_that_is_not_finite_is_told_from_a_gradient(train):
    changes = {"optim.lr": 1e38, "optim.weight_decay": 0}
    with pytest.raises(Diverged, match="step 1 .*the optimizer's update is not finite, though the loss"):
        train(changes, model=net(0, ""), loss=lambda *given: 1e3 * F.cross_entropy(*given))


def test_a_loss_that_is_not_finite_is_told_from_the_logits(train):
    with pytest.raises(Diverged, match="step 1 .*the loss is nan, of finite logits"):
        train(model=net(0, ""), loss=lambda logits, labels: F.cross_entropy(logits, labels) * math.nan)


@pytest.mark.parametrize("keeping", [EACH_STEP, NOTHING_KEPT], ids=["kept", "nothing kept"])
def test_a_last_step_that_ruins_the_weights_is_no_success(train, tmp_path, keeping):
    with pytest.raises(Diverged, match="the weights stopped being finite in epoch 3 .*began in step 12 "):
        train(keeping, model=net(12, "backward"))
    assert not (tmp_path / "run" / "result.json").exists()
    if keeping is EACH_STEP:
        assert checkpoint.load(tmp_path / "run")["step"] == 11


def test_micro_batches_are_looked_at_one_by_one(train):
    with pytest.raises(Diverged, match="it began in step 3 .*the output of 3 .10 of 10 images"):
        train({"train.accumulate": 2}, model=net(6, "forward"))


def experiment(**changes):
    small = {
        "model.arch": "speednet", "model.stage_widths": [8, 8, 8], "train.batch_size": 8, "train.epochs": 2,
        "train.precision": "fp32", "run.device": "cpu", "run.threads": 1, "schedule.name": "constant",
    }  # fmt: skip
    return observed.experiment(config.load(None, {**small, **changes}))


def overflowing(scale):
    """An epoch of five steps whose gradients overflow in each, at first at this scale of the loss."""
    with experiment() as one:
        one.initialise()
        one.trainer.update.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        first = next(p for p in one.model.parameters() if p.requires_grad)
        first.register_hook(lambda slope: slope * math.inf)
        return one.fit_epoch(0)


def test_steps_that_fp16_leaves_out_are_no_trouble_until_it_leaves_out_all():
    assert math.isfinite(overflowing(2.0**16).loss)
    with pytest.raises(Diverged, match="the gradients overflow at every scale of fp16"):
        overflowing(2.0**-7)


@pytest.mark.parametrize("changes", [{}, {"train.hard_fraction": 0.5}, {"train.epoch_share": 0.6}], ids=str)
def test_the_steps_are_done_again_to_the_same_bits(changes):
    with experiment(**changes) as one:
        one.initialise()
        one.fit_epoch(0)
        once = {name: value.clone() for name, value in one.model.state_dict().items()}
        one.reset(one.seed)
        one.initialise()
        for images, labels in divergence._batches(one, one.steps_per_epoch):
            one.trainer.step(images, labels)
        assert observed.same(once, dict(one.model.state_dict()))


def test_looking_leaves_no_hooks_and_no_gradients():
    with experiment() as one:
        one.initialise()
        images, labels = next(one.batches(0))
        assert "the optimizer's update" in divergence.examined(one, images, labels, (False,)).what
        assert all(parameter.grad is None for parameter in one.model.parameters())
        assert not any(module._forward_hooks for module in one.model.modules())
        told = divergence.examined(one, images * math.nan, labels, (False,))
        assert told == (0, "the images of its batch are not finite")


def test_one_broken_image_is_told_from_a_broken_network():
    images = torch.ones(6, 3)
    images[4, 1] = math.nan
    layer = nn.Linear(3, 2)
    with divergence.looking(layer) as seen:
        layer(images)
    assert seen == [(1, "the output of the model (1 of 6 images)")]


@pytest.mark.parametrize(
    "places, told",
    [((4,), "b"), ((4, 3, 7), "on rank 1 b"), ((3, 9, 3), "on ranks 0, 2 b"), ((3, 3), "on all ranks b")],
)
def test_of_several_ranks_those_are_named_where_it_came_first(places, told):
    assert divergence.earliest([divergence.Found(place, "b") for place in places]) == told
