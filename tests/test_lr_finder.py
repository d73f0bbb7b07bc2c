"""The range test: its readings of curves with known answers, and a real one that leaves no trace."""

import math
import sys

import numpy as np
import pytest
import torch
from drawn import splits
from made_run import call

from fastresnet import data
from fastresnet.runs import progress
from fastresnet.settings import config
from fastresnet.training import lr_finder
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import Own

SETTINGS = {
    "data.source": "synthetic", "train.batch_size": 20, "model.depth": 20, "model.width": 0.25,
    "run.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
IMAGES = splits(200, 20)


def valley_curve(bottom=1e-2):
    rates = np.geomspace(1e-5, 1, 101)
    return rates, 1 + np.log10(rates / bottom) ** 2


def test_minimum_over_ten_is_a_tenth_of_the_best_rate():
    rates, losses = valley_curve()
    assert lr_finder.suggest(rates, losses, losses)["minimum/10"] == pytest.approx(1e-3)


def test_steepest_is_where_the_loss_falls_fastest_a_factor():
    rates = np.geomspace(1e-5, 1, 101)
    losses = 2 - 1 / (1 + np.exp(-4 * np.log(rates / 1e-3)))  # steepest at 1e-3
    assert lr_finder.suggest(rates, losses, losses)["steepest"] == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize("seed", range(8))
def test_steepest_is_found_in_a_noisy_curve_as_it_comes_out_of_a_test(seed):
    """A known fall, steepest at 1e-3, then slowly down to a minimum near 0.3, then divergence."""
    rates = np.geomspace(1e-6, 1, 120)
    clean = (
        2.3
        - 1 / (1 + (1e-3 / rates) ** 1.5)
        - 0.02 * np.log10(rates / 1e-6)
        + np.exp(4 * np.log(rates / 0.6))
    )
    losses = clean + np.random.default_rng(seed).normal(scale=0.05, size=120)
    found = lr_finder.suggest(rates, losses, lr_finder.smooth(losses))
    assert 3e-4 < found["steepest"] < 3e-3
    assert found["steepest"] < found["minimum/10"] * 10


def test_steepest_is_not_the_last_drop_before_the_minimum():
    rates = np.geomspace(1e-5, 1, 101)
    losses = 3 - 0.1 * np.log10(rates / 1e-5)
    losses[20:60] -= np.linspace(0, 1, 40)
    losses[60:] -= 1
    losses[90:] -= 0.3  # one lucky batch, then the end
    assert 1e-4 <= lr_finder.suggest(rates, losses, losses)["steepest"] <= 4e-3


def test_valley_is_two_thirds_down_the_longest_fall():
    rates, losses = valley_curve()
    assert math.log10(lr_finder.suggest(rates, losses, losses)["valley"]) == pytest.approx(-3, abs=0.1)


def test_smoothing_starts_without_a_pull_towards_zero():
    assert np.allclose(lr_finder.smooth([2.0] * 5), 2.0)


@pytest.fixture
def experiment():
    made = Experiment(config.load(None, SETTINGS), splits=IMAGES)
    yield made
    made.close()


@pytest.mark.parametrize("changes", [{}, {"train.ema_decay": 0.9}], ids=str)
def test_the_test_leaves_weights_buffers_optimizer_and_rates_as_they_were(changes):
    made = Experiment(config.load(None, SETTINGS | changes), splits=IMAGES)
    made.trainer.fit_epoch(made.train_loader.epoch(0), 0, limit=2)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    momentum = [
        state["momentum_buffer"].clone() for part in made.optimizer.parts for state in part.state.values()
    ]
    rates = [group["lr"] for group in made.optimizer.param_groups]
    lr_finder.range_test(made, steps=12, low=1e-3, high=1e-1)
    assert all(torch.equal(value, before[key]) for key, value in made.model.state_dict().items())
    after = [state["momentum_buffer"] for part in made.optimizer.parts for state in part.state.values()]
    assert all(torch.equal(old, new) for old, new in zip(momentum, after, strict=True))
    assert rates == [group["lr"] for group in made.optimizer.param_groups] and made.trainer.steps_done == 2


def test_it_climbs_evenly_and_stops_where_the_loss_diverges(experiment):
    result = lr_finder.range_test(experiment, low=1e-3, high=1e6, steps=60)
    assert result.diverged and 10 <= len(result.rates) < 60
    factors = np.diff(np.log(result.rates))
    assert np.allclose(factors, factors[0]) and set(result.suggestions) == set(lr_finder.SUGGESTIONS)


def test_rates_are_what_optim_lr_must_be_told_where_the_batch_scales_them():
    scaled = {"optim.lr_scaling": "linear", "optim.lr_base_batch": 5}
    made = Experiment(config.load(None, SETTINGS | scaled), splits=IMAGES)
    used = []
    result = lr_finder.range_test(
        made,
        low=1e-4,
        high=1e-2,
        steps=12,
        on_step=lambda *given: used.append(made.optimizer.param_groups[0]["lr"]),
    )
    made.close()
    assert result.rates[0] == pytest.approx(1e-4)
    assert used == pytest.approx([4 * rate for rate in result.rates]), "batches of 20, rates chosen for 5"


def test_a_range_that_is_none_is_named(experiment):
    with pytest.raises(ValueError, match="0 < low < high and 10 steps"):
        lr_finder.range_test(experiment, low=1.0, high=0.1)


def test_a_test_may_be_longer_than_the_run_that_a_proxy_learns_along():
    changes = {"train.epochs": 1, "train.hard_fraction": 0.5, "train.proxy_width": 0.125}
    made = Experiment(config.load(None, SETTINGS | changes), splits=IMAGES)
    assert made.total_steps == 10
    assert len(lr_finder.range_test(made, steps=12, low=1e-4, high=1e-3).rates) == 12


def test_it_trains_on_what_the_callers_own_augmentation_gives():
    shown = []
    own = Own(augment=lambda images: shown.append(len(images)) or images)
    made = Experiment(config.load(None, SETTINGS), splits=IMAGES, own=own)
    shown.clear()  # it was tried
    lr_finder.range_test(made, steps=12, low=1e-4, high=1e-3)
    assert shown == [20] * 12


def test_find_lr_writes_a_picture_and_a_recipe_that_trains_with_onecycle(tmp_path, monkeypatch, capsys):
    recipe, plot, stood = tmp_path / "found.yaml", tmp_path / "lr.png", []
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress.Heartbeat, "at", lambda self, line: stood.append(line))
    monkeypatch.setattr(data, "prepare", lambda *given: IMAGES)
    words = [f"--{key}={value}" for key, value in SETTINGS.items()]
    more = f"--config rn18-adam --steps 12 --plot {plot} --apply {recipe}".split()
    assert call(monkeypatch, "find_lr", *words, *more) == 0
    told = capsys.readouterr().out
    assert "valley" in told and told.endswith(f"\nnext      fastresnet train --config={recipe}\n")
    assert plot.stat().st_size > 1000
    assert len([line for line in stood if line.startswith("step ")]) >= 10, "it says where it stands"
    cfg = config.load(recipe)
    assert cfg.schedule.name == "onecycle" and cfg.model.depth == 20 and cfg.optim.name == "adam"
    assert cfg.optim.lr != config.load("rn18-adam").optim.lr
    assert call(monkeypatch, "find_lr", *words, "--apply", recipe) == 2
    assert "there is such a file already" in capsys.readouterr().err
