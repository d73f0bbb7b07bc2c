"""Schedules: equal to PyTorch's OneCycleLR, right at their ends, strict about their points."""

import math

import pytest
import torch
from model_settings import section

from fastresnet.optim import schedule


def table(steps=100, steps_per_epoch=10, **changes):
    return schedule.table(section("schedule", **changes), steps, steps_per_epoch)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("steps, warmup", [(100, 0.2), (97, 0.3), (7, 0.5), (2, 0.2), (50, 0.0), (50, 1.0)])
@pytest.mark.filterwarnings(
    "ignore:Detected call of"
)  # the rival's scheduler is stepped without its optimizer
def test_onecycle_equals_pytorchs(anneal, steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=warmup, anneal_strategy=anneal, div_factor=25,
        final_div_factor=100, base_momentum=0.85, max_momentum=0.95,
    )  # fmt: skip
    ours = table(steps, warmup_fraction=warmup, anneal=anneal, initial_factor=1 / 25, final_factor=1 / 2500,
                 momentum_low=0.85, momentum_high=0.95)  # fmt: skip
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert ours.lr_factor[step] == pytest.approx(group["lr"], abs=1e-12)
        assert ours.momentum[step] == pytest.approx(group["momentum"], abs=1e-12)
        if step < steps - 1:
            theirs.step()


def test_linear_is_a_triangle():
    factors = table(name="linear", warmup_fraction=0.2, initial_factor=0.5, final_factor=0.0).lr_factor
    assert factors[0] == 0.5 and factors[10] == pytest.approx(0.75) and factors[20] == 1.0
    assert factors[60] == pytest.approx(0.5) and factors[99] == pytest.approx(1 / 80)


def test_linear_without_warmup_starts_at_the_peak_and_never_rests_at_zero():
    factors = table(name="linear", warmup_fraction=0.0).lr_factor
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.01)


def test_cosine_is_half_way_in_the_middle():
    factors = table(name="cosine", warmup_fraction=0.0, final_factor=0.2).lr_factor
    assert factors[0] == 1.0 and factors[50] == pytest.approx(0.6)
    assert factors[25] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_piecewise_goes_through_its_points_by_epoch():
    factors = table(name="piecewise", points=[[0.0, 0.2], [3.0, 1.0], [8.0, 0.0]]).lr_factor
    assert factors[0] == 0.2 and factors[15] == pytest.approx(0.6) and factors[30] == 1.0
    assert factors[55] == pytest.approx(0.5) and factors[80:] == [0.0] * 20


def test_a_tail_stays_at_the_last_rate_and_none_falls_below_the_floor():
    factors = table(10, 5, name="linear", warmup_fraction=0.0, floor_factor=0.25, tail_fraction=0.2).lr_factor
    assert factors == [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.25, 0.25, 0.25]
    warm = table(10, 5, name="linear", warmup_fraction=0.5, initial_factor=0.0, floor_factor=0.5).lr_factor
    assert warm[:5] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8]) and warm[-1] == 0.5


def test_constant_stays():
    assert set(table(name="constant").lr_factor) == {1.0}


def test_a_group_that_freezes_falls_to_zero_and_stays_there():
    assert schedule.falling(6, 4) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert schedule.falling(2, 0) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["onecycle", "cosine", "linear", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_tiny_runs_get_finite_factors_between_0_and_1(name, steps):
    factors = table(steps, 1, name=name).lr_factor
    assert len(factors) == steps and all(0.0 <= factor <= 1.0 for factor in factors)


@pytest.mark.parametrize("name", ["onecycle", "cosine", "linear", "constant", "piecewise"])
def test_a_run_of_one_step_takes_it_at_the_peak(name):
    factors = table(1, 97, name=name, initial_factor=0.0, points=[[0.0, 0.0], [5.0, 1.0]]).lr_factor
    assert factors == [1.0]


def test_a_run_without_steps_or_by_no_schedule_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        table(0)
    with pytest.raises(ValueError, match="schedule.name must be one of"):
        table(name="step")
