"""Learning-rate schedules: from settings to a function of the step, a share of the peak rate.

Each is a function `(settings, total steps, steps an epoch) -> factor`. Knows no optimizer and no tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastresnet.base import parts
from fastresnet.settings.sections import Schedule

Factor = Callable[[int], float]  # step, from 0 -> share of the peak rate
Maker = Callable[[Schedule, int, float], Factor]
MOST_STEPS = 10**8  # of which a table takes a gigabyte


@dataclass(frozen=True)
class Table:
    """A schedule written out: entry s belongs to step s, counted from 0.

    lr_factor:  share of each group's peak learning rate
    momentum:   momentum (Adam: beta1), or None where it doesn't change
    """

    lr_factor: list[float]
    momentum: list[float] | None = None


def table(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Table:
    """The schedule that the settings describe, for a run of `total_steps` steps.

    A run of a single step takes it at the peak: the first or the last rate of a schedule may well be 0.
    Raises ValueError for a run without a step; settings that don't go together were refused before.
    """
    if total_steps < 1 or steps_per_epoch <= 0:
        raise ValueError(
            f"a schedule needs at least one step, got {total_steps} steps, {steps_per_epoch} an epoch "
            "(train.epochs or train.max_steps is too small)"
        )
    if total_steps > MOST_STEPS:
        raise ValueError(
            f"train.epochs makes {total_steps:,} steps of {steps_per_epoch:g} an epoch: no run lasts so long "
            f"(at most {MOST_STEPS:,})"
        )
    make = cast(Maker, parts.find(parts.SCHEDULES, "schedule.name", settings.name))
    steps = max(1, total_steps - round(settings.tail_fraction * total_steps))
    factor, tail = make(settings, steps, steps_per_epoch), total_steps - steps
    floored = [_floored(settings, factor(step), step / steps) for step in range(steps)]
    factors = _with_tail(floored, tail) if total_steps > 1 else [1.0]
    low, high = settings.momentum_low, settings.momentum_high
    if low is None or high is None:
        return Table(factors)
    momentum = _two_phases(settings, steps, high, low, high)
    return Table(factors, _with_tail([momentum(step) for step in range(steps)], tail))


def _floored(settings: Schedule, factor: float, progress: float) -> float:
    return max(factor, settings.floor_factor) if progress >= settings.warmup_fraction else factor


def _with_tail(values: list[float], count: int) -> list[float]:
    return values + values[-1:] * count


def onecycle(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Factor:
    """Up to the peak in the warm-up's share of the steps, then down (Smith and Topin 2018, arXiv 1708.07120).

    The same values as torch.optim.lr_scheduler.OneCycleLR with two phases.
    """
    return _two_phases(settings, total_steps, settings.initial_factor, 1.0, settings.final_factor)


def _two_phases(settings: Schedule, total_steps: int, first: float, peak: float, last: float) -> Factor:
    top, end = settings.warmup_fraction * total_steps - 1.0, total_steps - 1.0

    def factor(step: int) -> float:
        if step <= top:
            return _anneal(settings.anneal, first, peak, _share(step, 0.0, top))
        return _anneal(settings.anneal, peak, last, _share(step, top, end))

    return factor


def cosine(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Factor:
    """A straight rise, then half a cosine from 1 to the last factor (Loshchilov and Hutter 2017)."""
    return _risen(settings, total_steps, "cos")


def linear(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Factor:
    """A straight rise and a straight fall: a triangle."""
    return _risen(settings, total_steps, "linear")


def _risen(settings: Schedule, total_steps: int, fall: str) -> Factor:
    warmup = settings.warmup_fraction

    def factor(step: int) -> float:
        progress = step / total_steps
        if progress < warmup:
            return _anneal("linear", settings.initial_factor, 1.0, progress / warmup)
        return _anneal(fall, 1.0, settings.final_factor, _share(progress, warmup, 1.0))

    return factor


def piecewise(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Factor:
    """Straight lines through schedule.points, (epoch, factor), flat outside.

    Two points at one epoch make a jump; the later one holds there.
    """
    points = settings.points
    assert points, "settings without any are refused"

    def factor(step: int) -> float:
        epoch = step / steps_per_epoch
        if epoch < points[0][0]:
            return points[0][1]
        for (left, before), (right, after) in zip(points, points[1:]):
            if left <= epoch < right:
                return _anneal("linear", before, after, _share(epoch, left, right))
        return points[-1][1]

    return factor


def constant(settings: Schedule, total_steps: int, steps_per_epoch: float) -> Factor:
    """The peak rate, from the first step to the last."""
    return lambda step: 1.0


def falling(total_steps: int, until_step: float) -> list[float]:
    """Straight from 1 to 0 at `until_step`, and 0 from there on: a group that freezes early in the run."""
    return [max(0.0, 1.0 - step / until_step) if until_step > 0 else 0.0 for step in range(total_steps)]


def _anneal(kind: str, start: float, end: float, share: float) -> float:
    if kind == "cos":
        return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
    return start + (end - start) * share


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 1.0
