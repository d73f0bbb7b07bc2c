"""What a set of samples says: quantiles, mean and spread, Student's t test.

Refuses to measure. Student's distribution is computed here, in forty lines that the tests hold to SciPy:
that would be 140 MB more to install, on rented machines too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, median, stdev
from typing import TypedDict

import numpy as np


class Quantiles(TypedDict):
    """Of a set of samples: the median, the 20th and the 80th percentile, and how many samples there are."""

    median: float
    p20: float
    p80: float
    n: int


def quantiles(samples: Sequence[float]) -> Quantiles:
    """Median, 20th and 80th percentile (linear interpolation between order statistics) and their number.

    Raises ValueError on no samples: a speed without a measurement is no number.
    """
    if not samples:
        raise ValueError("quantiles need at least one sample, got none")
    low, high = np.quantile(samples, (0.2, 0.8)).tolist()
    return {"median": median(samples), "p20": low, "p80": high, "n": len(samples)}


def spread(
    samples: Sequence[float], resolution: float = 0.0
) -> tuple[float | None, float | None, float | None]:
    """(mean, standard deviation of a sample, half of the mean's 95 % interval by Student's t).

    None for what so few samples don't know: one says nothing about its own spread.
    resolution:  as of `p_value_paired`; it widens the interval alone
    """
    n = len(samples)
    if n < 2:
        return (samples[0] if n else None), None, None
    std = stdev(samples)
    return fmean(samples), std, student_t_quantile(0.975, n - 1) * max(std, resolution) / math.sqrt(n)


def p_value_mean_above(samples: Sequence[float], target: float, resolution: float = 0.0) -> float:
    """One-sided t test: the chance of samples like these if the true mean were `target` or less.

    Small means «the mean is above the target». For «below», negate both. Needs two samples (ValueError).
    resolution:  as of `p_value_paired`
    """
    if len(samples) < 2:
        raise ValueError(f"a t test needs at least two samples, got {len(samples)}")
    error = max(stdev(samples), resolution) / math.sqrt(len(samples))
    distance = fmean(samples) - target
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return 1 - student_t_cdf(distance / error, len(samples) - 1)


def p_value_paired(one: Sequence[float], other: Sequence[float], resolution: float = 0.0) -> float:
    """Two-sided t test of pairs: the chance of differences like these if their true mean were 0.

    resolution:  what samples are multiples of (of an accuracy: an image's share of its test set). What
                 agrees more closely agrees by it, not by truth.
    Raises ValueError on fewer than two pairs.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    if len(differences) < 2:
        raise ValueError(f"a paired t test needs at least two pairs, got {len(differences)}")
    error = max(stdev(differences), resolution) / math.sqrt(len(differences))
    distance = abs(fmean(differences))
    if error == 0:
        return 0.0 if distance else 1.0
    return max(0.0, 2 * (1 - student_t_cdf(distance / error, len(differences) - 1)))


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


@cache
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
