"""Learning-rate schedules: pure functions from the step to a share of the peak rate. Knows no optimizer and
no tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Sequence


@dataclass(frozen=True)
class Table:
    """A schedule written out: entry s belongs to step s, counted from 0.

    lr_factor:  share of each group's peak learning rate
    momentum:   momentum (Adam: beta1), or None where it doesn't change
    """

    lr_factor: list[float]
    momentum: list[float] | None = None


def table(settings: Any, total_steps: int, steps_per_epoch: int | float) -> Table:
    """The schedule that `settings` (the section `schedule`) describes, for a run of `total_steps` steps.

    A run of a single step takes it at the peak: the first or the last rate of a schedule may well be 0.
    Raises ValueError for settings that don't go together.
    """
    if total_steps < 1 or steps_per_epoch <= 0:
        raise ValueError(
            f"a schedule needs at least one step, got {total_steps} steps, {steps_per_epoch} an epoch "
            "(train.epochs or train.max_steps is too small)"
        )
    cycles = settings.momentum_low is not None or settings.momentum_high is not None
    if cycles and settings.name != "onecycle":
        raise ValueError(
            "schedule.momentum_low and schedule.momentum_high belong to schedule.name=onecycle, "
            f"got {settings.name}"
        )
    factor = _lr(settings, total_steps, steps_per_epoch)
    factors = [factor(step) for step in range(total_steps)] if total_steps > 1 else [1.0]
    return Table(factors, _momentum_table(settings, total_steps) if cycles else None)


def _lr(settings: Any, total_steps: int, steps_per_epoch: float) -> Callable[[int], float]:
    warmup, first, last = settings.warmup_fraction, settings.initial_factor, settings.final_factor
    if settings.name == "onecycle":
        return lambda step: onecycle(step, total_steps, warmup, first, 1.0, last, settings.anneal)
    if settings.name == "cosine":
        return lambda step: cosine(step / total_steps, warmup, first, last)
    if settings.name == "linear":
        return lambda step: linear(step / total_steps, warmup, first, last)
    if settings.name == "piecewise":
        points = _checked(settings.points)
        return lambda step: piecewise(step / steps_per_epoch, points)
    if settings.name == "constant":
        return lambda step: 1.0
    raise ValueError(
        f"schedule.name must be one of onecycle, cosine, linear, piecewise, constant, got {settings.name!r}"
    )


def _momentum_table(settings: Any, total_steps: int) -> list[float]:
    low, high = settings.momentum_low, settings.momentum_high
    if low is None or high is None or low > high:
        raise ValueError(
            "schedule.momentum_low and schedule.momentum_high go together, low at most high: "
            f"got {low} and {high}"
        )
    return [
        onecycle(step, total_steps, settings.warmup_fraction, high, low, high, settings.anneal)
        for step in range(total_steps)
    ]


def onecycle(
    step: int, total_steps: int, warmup: float, first: float, peak: float, last: float, anneal: str
) -> float:
    """From `first` to `peak` in the first `warmup` share of the steps, then to `last` (Smith and Topin 2018,
    arXiv 1708.07120); the same value as torch.optim.lr_scheduler.OneCycleLR with two phases."""
    top, end = warmup * total_steps - 1.0, total_steps - 1.0
    if step <= top:
        return _anneal(anneal, first, peak, _share(step, 0.0, top))
    return _anneal(anneal, peak, last, _share(step, top, end))


def cosine(progress: float, warmup: float, first: float, last: float) -> float:
    """A straight rise, then half a cosine from 1 to `last` (Loshchilov and Hutter 2017); progress runs in [0,
    1)."""
    if progress < warmup:
        return _anneal("linear", first, 1.0, progress / warmup)
    return _anneal("cos", 1.0, last, _share(progress, warmup, 1.0))


def linear(progress: float, warmup: float, first: float, last: float) -> float:
    """A straight rise and a straight fall (a triangle); progress runs in [0, 1)."""
    if progress < warmup:
        return _anneal("linear", first, 1.0, progress / warmup)
    return _anneal("linear", 1.0, last, _share(progress, warmup, 1.0))


def piecewise(epoch: float, points: Sequence[tuple[float, float]]) -> float:
    """Straight lines through (epoch, factor), flat outside. Two points at one epoch make a jump; the later
    one holds there."""
    if epoch < points[0][0]:
        return points[0][1]
    for (left, before), (right, after) in zip(points, points[1:]):
        if left <= epoch < right:
            return _anneal("linear", before, after, _share(epoch, left, right))
    return points[-1][1]


def falling(total_steps: int, until_step: float) -> list[float]:
    """Straight from 1 to 0 at `until_step`, and 0 from there on: a group that is frozen after the start of
    the run."""
    return [max(0.0, 1.0 - step / until_step) if until_step > 0 else 0.0 for step in range(total_steps)]


def _anneal(kind: str, start: float, end: float, share: float) -> float:
    if kind == "cos":
        return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
    return start + (end - start) * share


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 1.0


def _checked(points: Any) -> list[tuple[float, float]]:
    rule = "schedule.points must be a list of [epoch, factor] with epochs that don't fall"
    if not points or any(not isinstance(point, (list, tuple)) or len(point) != 2 for point in points):
        raise ValueError(f"{rule}, got {points!r}")
    pairs = [(float(epoch), float(factor)) for epoch, factor in points]
    if any(left > right for (left, _), (right, _) in zip(pairs, pairs[1:])):
        raise ValueError(f"{rule}, got {points!r}")
    return pairs
