"""The step with fp16's loss scaling, on a CPU: PyTorch's own scaler stands in for the one of a GPU."""

import copy

import observed
import pytest
import torch

from fastresnet.machine import precision
from fastresnet.settings import config

SMALL = {
    "model.arch": "speednet", "model.stage_widths": [8, 8, 8], "train.batch_size": 8, "train.epochs": 1,
    "train.precision": "fp32", "run.device": "cpu", "run.threads": 1, "schedule.name": "constant",
}  # fmt: skip
SCALE = 2.0**12


def steps(changes, scale=None, spoil=None):
    """Weights after each of four steps and the scaler; gradients of step `spoil` are infinite."""
    with observed.experiment(config.load(None, {**SMALL, **changes})) as one:
        one.initialise()
        if scale:
            one.trainer.update.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        seen = []
        for number, (images, labels) in enumerate(one.train_loader.epoch(0)):
            one.model.train()
            one.trainer.step(images * float("inf") if number == spoil else images, labels)
            seen.append(copy.deepcopy(dict(one.model.named_parameters())))
        return seen, one.trainer.update.scaler


@pytest.mark.parametrize("changes", [{}, {"train.clip_norm": 0.1}, {"train.accumulate": 2}], ids=str)
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_a_scaled_loss_gives_the_weights_of_the_loss_itself(name, changes):
    changes = {**changes, "optim.name": name, "optim.lr": 0.05}
    plain, _ = steps(changes)
    scaled, scaler = steps(changes, SCALE)
    assert scaler.get_scale() == SCALE
    for key, value in plain[-1].items():
        torch.testing.assert_close(scaled[-1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", [
    {}, {"optim.decoupled": True, "optim.weight_decay": 0.1}, {"optim.name": "muon"},
], ids=str)  # fmt: skip
def test_a_step_that_overflows_is_left_out_and_the_scale_falls(changes):
    seen, scaler = steps(changes, SCALE, spoil=1)
    assert observed.same(seen[0], seen[1]) and not observed.same(seen[1], seen[2])
    assert scaler.get_scale() == SCALE / 2
    assert all(value.isfinite().all() for value in seen[-1].values())


def test_a_reset_forgets_the_scale_and_a_step_left_in_the_middle(monkeypatch):
    """As for the next seed of a record: what the last run did to the scale is of no account."""
    scaled = precision.Precision("fp16", torch.float32, True, "as on a GPU")
    monkeypatch.setattr(precision, "resolve", lambda *given: scaled)
    runs = []
    with observed.experiment(config.load(None, {**SMALL, "train.clip_norm": 1.0})) as one:
        step = one.trainer.update
        for spoilt in (False, True, False):
            one.reset(0)
            one.initialise()
            one.model.train()
            for images, labels in one.train_loader.epoch(0):
                one.trainer.step(images * float("inf") if spoilt else images, labels)
            weights = {key: value.clone() for key, value in one.model.state_dict().items()}
            runs.append([step.scaler.state_dict(), weights])
            if spoilt:
                step.scaler.unscale_(step.optimizer.parts[0])
    assert runs[1][0]["scale"] < runs[0][0]["scale"]
    assert runs[0][0]["_growth_tracker"] > 0 and observed.same(runs[0], runs[2])
