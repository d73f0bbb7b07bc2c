"""Whole runs beside a second, plain implementation: every optimizer, schedule and average, several steps."""

import copy

import observed
import plain
import pytest
import torch

from fastresnet import models
from fastresnet.settings import config

SMALL = {
    "model.arch": "speednet", "model.stage_widths": [16, 24, 16], "train.batch_size": 8, "train.epochs": 2,
    "train.precision": "fp32", "train.crop_padding_px": 2, "schedule.name": "linear", "run.device": "cpu",
    "train.freeze_whiten_after": 1.2, "optim.weight_decay": 0.02, "schedule.warmup_fraction": 0.3,
}  # fmt: skip
MUON = {
    "optim.name": "muon", "optim.lr": 0.1, "optim.lr_bias": 0.05, "optim.lr_head": 0.2, "optim.momentum": 0.6
}  # fmt: skip
ADAM = {"optim.name": "adam", "optim.lr": 0.01, "optim.eps": 1e-3, "optim.beta1": 0.8, "optim.beta2": 0.95}
CYCLE = {"schedule.momentum_low": 0.7, "schedule.momentum_high": 0.95, "schedule.initial_factor": 0.1,
         "schedule.final_factor": 0.01, "schedule.name": "onecycle"}  # fmt: skip
FROZEN = {"model.freeze": ["whiten", "groups.0"], "train.freeze_epochs": 0.6, "model.pretrained": "WEIGHTS"}
RUNS = {
    "sgd, nesterov": {},
    "sgd without nesterov": {"optim.nesterov": False, "optim.momentum": 0.7},
    "sgd, no momentum": {"optim.nesterov": False, "optim.momentum": 0.0},
    "sgd, decoupled decay of everything": {"optim.decoupled": True, "optim.decay_norms_and_biases": True},
    "sgd, rates of their own": {"optim.lr_bias": 0.3, "optim.lr_head": 0.02},
    "sgd, clipped": {"train.clip_norm": 0.3},
    "sgd, sums and smooth labels": {
        "train.loss_reduction": "sum", "train.label_smoothing": 0.2, "optim.lr": 0.01
    },
    "sgd, one cycle of rate and momentum": CYCLE,
    "sgd, one cycle in straight lines": {**CYCLE, "schedule.anneal": "linear"},
    "sgd, cosine": {"schedule.name": "cosine", "schedule.final_factor": 0.1},
    "sgd, piecewise": {"schedule.name": "piecewise", "schedule.points": [[0.2, 0.5], [1.6, 1.0]]},
    "sgd, the whitening bias frozen at once": {"train.freeze_whiten_after": 0.0},
    "adam": ADAM,
    "adam, one cycle": {**ADAM, **CYCLE, "schedule.momentum_low": None, "schedule.momentum_high": None},
    "adamw": {**ADAM, "optim.name": "adamw", "optim.decay_norms_and_biases": True, "optim.lr_head": 0.03},
    "muon": MUON,
    "muon, no nesterov, five iterations": {**MUON, "optim.nesterov": False, "optim.muon_steps": 5},
    "muon, renormalised every third step": {**MUON, "optim.renormalize_every": 3},
    "muon, decay without renormalising": {**MUON, "optim.renormalize_every": 0},
    "muon, decoupled": {**MUON, "optim.decoupled": True, "optim.bias_momentum": 0.5},
    "sgd, rates that fall by block": {"optim.layer_decay": 0.5, "optim.lr_head": 0.2},
    "adamw, rates that fall by block": {**ADAM, "optim.name": "adamw", "optim.layer_decay": 0.7},
    "muon, rates that fall by block": {**MUON, "optim.layer_decay": 0.6, "optim.renormalize_every": 0},
    "sgd, two blocks frozen at first": FROZEN,
    "adam, two blocks frozen at first": {**ADAM, **FROZEN},
    "muon, two blocks frozen at first": {**MUON, **FROZEN, "optim.layer_decay": 0.6},
    "sgd, a block frozen for good": {**FROZEN, "model.freeze": ["groups.1"], "train.freeze_epochs": None},
    "lookahead": {"optim.lookahead": 3, "optim.lookahead_alpha": 0.3},
    "lookahead with a ramp": {
        "optim.lookahead": 3, "optim.lookahead_alpha": 0.3, "optim.lookahead_ramp": True
    },
    "muon, lookahead": {**MUON, "optim.lookahead": 2, "optim.lookahead_alpha": 0.7},
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder in which weights to start from lie."""
    monkeypatch.chdir(tmp_path)
    torch.save(models.build(config.load(None, SMALL).model, 10).state_dict(), "WEIGHTS")


def both(changes):
    """(weights after our run, its averaged weights, the plain run's weights after each step)."""
    cfg = config.load(None, {**SMALL, **changes})
    with observed.experiment(cfg) as one:
        one.initialise()
        same = copy.deepcopy(one.model)
        batches = [batch for epoch in range(one.num_epochs) for batch in one.train_loader.epoch(epoch)]
        if cfg.train.freeze_whiten_after == 0:
            same.whiten.bias.requires_grad_(False)
        history = plain.train(cfg, same, batches, one.steps_per_epoch)
        for epoch in range(one.num_epochs):
            one.fit_epoch(epoch)
        averaged = one.averaged_model
        return one.model.state_dict(), averaged and averaged.state_dict(), history


def agree(ours, theirs, atol=2e-5):
    for name, value in ours.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                value.double(), theirs[name].double(), rtol=1e-3, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_the_plain_one(name):
    ours, _, history = both(RUNS[name])
    assert not observed.same(history[-1], history[-2]), "the plain run learns to its last step"
    # Orthogonalising blows up the rounding of directions that hardly have a gradient.
    agree(ours, history[-1], atol=2e-4 if "muon" in name else 2e-5)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_exponential_average_of_a_run_is_that_of_its_weights(decay):
    _, averaged, history = both({"train.ema_decay": decay})
    agree(averaged, plain.ema(history, decay))


@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_the_tail_of_a_run_is_the_mean_of_its_last_weights(share):
    _, averaged, history = both({"train.average_tail": share})
    agree(averaged, plain.mean_of_tail(history, share))


def test_an_average_over_lookahead_takes_in_the_weights_that_lookahead_leaves():
    _, averaged, history = both({"train.ema_decay": 0.8, "optim.lookahead": 2})
    agree(averaged, plain.ema(history, 0.8))
