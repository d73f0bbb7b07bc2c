"""The only clock: when work on a device is really done, and what a set of samples says about its speed.

Refuses to know models, files or settings, to print, and to import anything else of the package.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

import torch


def synchronize(device: torch.device | str | None = None) -> None:
    """Wait until everything queued on `device` is done. A CPU has nothing to wait for."""
    kind = torch.device(device or "cpu").type
    if kind == "cuda":  # ROCm answers to this name too
        torch.cuda.synchronize(device)
    elif kind != "cpu":
        backend = getattr(torch, kind, None)
        if backend is not None and hasattr(backend, "synchronize"):
            backend.synchronize()


def now(device: torch.device | str | None = None) -> float:
    """Seconds on a monotonic clock, after all queued work of `device` is done."""
    synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Splits a stretch of time into named laps, with a synchronise at each boundary.

    >>> with Stopwatch() as watch:
    ...     _ = watch.lap("prepare")
    ...     _ = watch.lap("train")
    >>> sorted(watch.seconds)
    ['prepare', 'train', 'wall']

    A name used twice adds up. `seconds["wall"]` is set on leaving the block.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._start = self._last = now(device)

    def lap(self, name: str) -> float:
        """Book the time since the last boundary under `name`; returns those seconds."""
        moment = now(self.device)
        passed, self._last = moment - self._last, moment
        self.seconds[name] = self.seconds.get(name, 0.0) + passed
        return passed

    def __enter__(self) -> Stopwatch:
        self._start = self._last = now(self.device)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds["wall"] = now(self.device) - self._start


def time_calls(
    function: Callable[[], Any], count: int, device: torch.device | str = "cpu", *, repeats: int = 1
) -> list[float]:
    """Seconds a call of `function`, `count` samples of `repeats` calls each.

    CUDA and ROCm: device events around each sample, one synchronise at the end, so that the host may run
    ahead as it does in training. Elsewhere: the monotonic clock with a synchronise on both sides.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _time_with_events(function, count, device, repeats)
    samples = []
    for _ in range(count):
        start = now(device)
        for _ in range(repeats):
            function()
        samples.append((now(device) - start) / repeats)
    return samples


def _time_with_events(
    function: Callable[[], Any], count: int, device: torch.device, repeats: int
) -> list[float]:
    with torch.cuda.device(device):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        synchronize(device)
        marks[0].record()
        for mark in marks[1:]:
            for _ in range(repeats):
                function()
            mark.record()
        synchronize(device)
        return [a.elapsed_time(b) / 1e3 / repeats for a, b in zip(marks, marks[1:])]


def quantiles(samples: Sequence[float]) -> dict[str, float | int]:
    """Median, 20th and 80th percentile (linear interpolation between order statistics) and their number.

    Raises ValueError on no samples: a speed without a measurement is no number.
    """
    if not samples:
        raise ValueError("quantiles need at least one sample, got none")
    ordered = sorted(samples)

    def at(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    return {"median": median(ordered), "p20": at(0.2), "p80": at(0.8), "n": len(ordered)}


@dataclass(frozen=True)
class Interval:
    """A mean and what is known of it: `mean` ± `half_width` covers the true mean at the level asked for."""

    mean: float
    half_width: float  # infinite for a single sample: one run says nothing about its own spread
    std: float  # of one sample, with n-1
    n: int


def confidence_interval(samples: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent samples. Raises ValueError on none."""
    if not samples:
        raise ValueError("a confidence interval needs at least one sample, got none")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level} (a share, not percent)")
    n = len(samples)
    if n == 1:
        return Interval(samples[0], math.inf, 0.0, 1)
    spread = stdev(samples)
    return Interval(
        fmean(samples), student_t_quantile((1 + level) / 2, n - 1) * spread / math.sqrt(n), spread, n
    )


def p_value_mean_above(samples: Sequence[float], target: float) -> float:
    """One-sided t test: the chance of samples like these if the true mean were `target` or less.

    Small means «the mean is above the target». For «below», negate both. Needs two samples (ValueError).
    """
    if len(samples) < 2:
        raise ValueError(f"a t test needs at least two samples, got {len(samples)}")
    error = stdev(samples) / math.sqrt(len(samples))
    distance = fmean(samples) - target
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return 1 - student_t_cdf(distance / error, len(samples) - 1)


def student_t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for whole degrees of freedom: the finite series of Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be 1 or more, got {degrees}")
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if degrees == 1:
        inside = 2 * theta / math.pi
    elif odd:
        inside = 2 / math.pi * (theta + sine * total)
    else:
        inside = sine * total
    return 0.5 * (1 + inside)


def student_t_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = probability, by bisection to double precision."""
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie between 0 and 1, got {probability}")
    low, high = -1.0, 1.0
    while student_t_cdf(low, degrees) > probability:
        low *= 2
    while student_t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if student_t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
