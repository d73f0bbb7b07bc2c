"""The learning-rate range test (Smith 2017, arXiv 1506.01186): raise the rate step by step, watch the loss.

Runs the experiment's own training step on its own batches, then puts every weight, buffer and optimizer state
back as it was. Writes nothing; `plots.lr_finder` draws the result.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import Trainer

Floats = npt.NDArray[np.float64]
RANGES = {"sgd": (1e-4, 10.0), "muon": (1e-4, 10.0), "adam": (1e-6, 1.0), "adamw": (1e-6, 1.0)}
SMOOTHING = 0.9  # weight of the past in the moving average of the loss
DIVERGED = 3.0  # the test ends when the smoothed loss is so many times its minimum
SUGGESTIONS = ("valley", "steepest", "minimum/10")


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    rates:        of `optim.lr`, one a step
    losses:       mean per image before that step, nats
    smoothed:     their moving average
    suggestions:  rates by the names in SUGGESTIONS
    diverged:     whether the test ended before its highest rate
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestions: dict[str, float]
    diverged: bool


def range_test(
    experiment: Experiment,
    *,
    low: float | None = None,
    high: float | None = None,
    steps: int = 100,
    on_step: Callable[[int, float, float], None] = lambda step, rate, loss: None,
) -> RangeTest:
    """Train `steps` steps with rates from `low` to `high`, evenly spaced on a logarithmic scale.

    experiment: an Experiment; its groups keep the proportions of their rates
    on_step:    called with the step's number, its rate and its loss
    Raises ValueError for a range that is none, and where the loss is not a number from the first step on.
    """
    lowest, highest = RANGES.get(experiment.cfg.optim.name, RANGES["sgd"])
    low, high = low or lowest, high or highest
    if not 0 < low < high or steps < 10:
        raise ValueError(
            f"a range test needs 0 < low < high and 10 steps or more, got {low:g}, {high:g}, {steps}"
        )
    restore, groups = experiment.trainer.update.remember(), experiment.optimizer.param_groups
    before = [dict(group) for group in groups]
    try:
        rates, losses, diverged = _climb(experiment, np.geomspace(low, high, steps), on_step)
    finally:
        restore()
        for group, values in zip(groups, before):
            group.update(values)
    if len(losses) < 10:
        raise ValueError(
            f"the loss left all bounds after {len(losses)} steps, at a rate of {rates[-1]:.2g}: "
            f"start the test lower (--low={low / 100:g})"
        )
    smoothed = smooth(losses)
    return RangeTest(rates, losses, smoothed, suggest(rates, losses, smoothed), diverged)


def _climb(
    experiment: Experiment, planned: Floats, on_step: Callable[[int, float, float], None]
) -> tuple[list[float], list[float], bool]:
    """Rates and losses up to the end or to divergence."""
    peak = experiment.cfg.optim.lr  # before optim.lr_scaling, which the groups' base rates hold already
    original: Trainer = experiment.trainer
    plain = dataclasses.replace(original.options, compile="off", cuda_graph=False)
    trainer = Trainer(
        original.model,
        experiment.optimizer,
        list(planned / peak),
        device=experiment.device,
        precision=experiment.precision,
        options=plain,
        select=original.select,
        freeze=[one for one in original.freeze if one.holds(0) and one.until_step is None],
    )
    original.model.train()
    rates: list[float] = []
    losses: list[float] = []
    batches = itertools.chain.from_iterable(map(experiment.batches, itertools.count()))
    for step, rate in enumerate(planned):
        trainer.totals.zero_()
        trainer.step(*next(batches))
        loss_sum, _, images = trainer.totals.tolist()
        loss = loss_sum / images
        if not math.isfinite(loss):
            return rates, losses, True
        rates.append(float(rate))
        losses.append(loss)
        on_step(step, float(rate), loss)
        recent = smooth(losses)
        if step >= 10 and recent[-1] > DIVERGED * min(recent):
            return rates, losses, True
    return rates, losses, False


def smooth(losses: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving average without the pull towards zero at its start (Kingma, Ba 2015, section 3)."""
    result: list[float] = []
    average = 0.0
    for step, loss in enumerate(losses, start=1):
        average = weight * average + (1 - weight) * loss
        result.append(average / (1 - weight**step))
    return result


def suggest(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]) -> dict[str, float]:
    """Three readings of the curve up to the minimum of its moving average:

    valley:      two thirds along the longest falling stretch (fastai's rule)
    steepest:    where the loss falls fastest for a given factor of the rate
    minimum/10:  a tenth of the rate with the least loss, where momentum and noise haven't hidden trouble yet
    """
    bottom = max(int(np.argmin(smoothed)), 2)
    start, end = _longest_fall(smoothed)
    valley = start + round((end - start) * 2 / 3)
    steepest = _steepest(np.log(rates[: bottom + 1]), np.asarray(losses[: bottom + 1]))
    return {
        "valley": float(rates[valley]),
        "steepest": float(rates[steepest]),
        "minimum/10": float(rates[bottom]) / 10,
    }


def _steepest(logs: Floats, losses: Floats) -> int:
    """Where a straight line through the losses around falls most.

    The lines cover a fifth of the curve and lie wholly on it: no single loss decides, a moving average's lag
    shifts nothing, and the last drop before the minimum is not taken for the steepest.
    """
    reach = max(1, len(losses) // 10)
    slopes = []
    for centre in range(reach, len(losses) - reach):
        piece = slice(centre - reach, centre + reach + 1)
        slopes.append(np.polynomial.Polynomial.fit(logs[piece], losses[piece], 1).convert().coef[1])
    return reach + int(np.argmin(slopes))


def _longest_fall(values: Sequence[float]) -> tuple[int, int]:
    """First and last index of the longest decreasing subsequence of `values`."""
    length, first = [1] * len(values), list(range(len(values)))
    for i in range(1, len(values)):
        for j in range(i):
            if values[i] < values[j] and length[j] + 1 > length[i]:
                length[i], first[i] = length[j] + 1, first[j]
    end = int(np.argmax(length))
    return first[end], end
