"""Is one machine or commit slower than another, or is it noise? Ratios of speeds, with intervals.

A process counts once, by the median of its samples: samples of one process share its memory layout, its
clocks and its neighbours, so their spread says nothing about the next process. One process alone can't be
judged. Few processes leave their variance uncertain, so the cases of a file lend each other theirs, as far as
these agree (Smyth 2004, «Linear models and empirical Bayes methods», section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

import torch

from fastresnet.base.statistics import student_t_cdf, student_t_quantile

# of a process's median: below it, processes agree by the clock's resolution, not by truth
LEAST_RELATIVE_ERROR = 0.002
# degrees of freedom that other cases lend at most
MOST_LENT = 100.0
Processes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Ratio:
    """How many times faster the second set is: above 1 faster, below 1 slower.

    low, high:  95 % interval; 0 and infinity where a side has one process only
    p_slower:   chance of such processes if the second set were not slower
    """

    ratio: float
    low: float = 0.0
    high: float = math.inf
    p_slower: float = 0.5

    @property
    def judged(self) -> bool:
        """Whether anything is known of the noise."""
        return math.isfinite(self.high)

    @property
    def within_noise(self) -> bool:
        return self.low <= 1.0 <= self.high


@dataclass(frozen=True)
class Side:
    """One case in one file: logarithms of its processes' medians, and their variance with its degrees."""

    logs: list[float]
    variance: float
    degrees: float

    @property
    def error_squared(self) -> float:
        """Variance of the mean."""
        return self.variance / len(self.logs)


def compare(base: Sequence[Processes], other: Sequence[Processes], lower: Sequence[bool]) -> list[Ratio]:
    """The speed of each case of `other` relative to `base`, a case being its processes' samples.

    lower:  for each case, whether less is better
    Samples are positive; one process on either side gives a ratio without an interval.
    """
    first, second = sides(base), sides(other)
    return [_ratio(one, two, 1.0 if down else -1.0) for one, two, down in zip(first, second, lower)]


def sides(cases: Sequence[Processes]) -> list[Side]:
    """Each case of a file, its variance drawn to what the others of the same number of processes have."""
    logs = [[math.log(median(samples)) for samples in processes] for processes in cases]
    raw = {i: max(variance(x), LEAST_RELATIVE_ERROR**2) for i, x in enumerate(logs) if len(x) > 1}
    found = {}
    for count in {len(logs[i]) for i in raw}:
        alike = [i for i in raw if len(logs[i]) == count]
        usual, lent = common([raw[i] for i in alike], count - 1)
        for i in alike:
            drawn = (lent * usual + (count - 1) * raw[i]) / (lent + count - 1)
            found[i] = Side(logs[i], drawn, lent + count - 1)
    return [found.get(i, Side(x, math.nan, 0.0)) for i, x in enumerate(logs)]


def common(variances: Sequence[float], degrees: int) -> tuple[float, float]:
    """(variance, degrees of freedom) that a case may borrow from all: none where the cases differ too much.

    The variances scatter by chance as log chi-square / degrees; what they scatter beyond it is real.
    """
    if len(variances) < 3:
        return 1.0, 0.0
    half = degrees / 2
    logs = [math.log(x) - _polygamma(0, half) + math.log(half) for x in variances]
    beyond = variance(logs) - _polygamma(1, half)
    lent = min(2 * _inverse_trigamma(beyond), MOST_LENT) if beyond > 0 else MOST_LENT
    return math.exp(fmean(logs) + _polygamma(0, lent / 2) - math.log(lent / 2)), lent


def _polygamma(order: int, x: float) -> float:
    return float(torch.polygamma(order, torch.tensor(x, dtype=torch.float64)))


def _inverse_trigamma(value: float) -> float:
    """The x > 0 whose trigamma is `value`, by bisection: it falls from infinity to 0."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _polygamma(1, middle) > value else (low, middle)
    return low


def _ratio(one: Side, two: Side, sign: float) -> Ratio:
    """By Welch's formula: the two variances need not be equal."""
    gain = sign * (fmean(one.logs) - fmean(two.logs))
    if not one.degrees or not two.degrees:
        return Ratio(math.exp(gain))
    total = one.error_squared + two.error_squared
    degrees = total**2 / sum(side.error_squared**2 / side.degrees for side in (one, two))
    whole = max(1, int(degrees))  # rounded down: never more certain than Welch's formula
    error = math.sqrt(total)
    reach = student_t_quantile(0.975, whole) * error
    p_slower = student_t_cdf(gain / error, whole)
    return Ratio(math.exp(gain), math.exp(gain - reach), math.exp(gain + reach), p_slower)


def slower_beyond_noise(ratios: Sequence[Ratio], margin: float, level: float = 0.05) -> list[bool]:
    """Which cases are slower by more than `margin` (0.05: 5 %) and provably slower, all together at `level`.

    Holm's correction (1979): of many cases some look slower by chance, so the smallest p must beat level /
    cases, the next level / (cases - 1), and so on.
    """
    known = [(ratio.p_slower, index) for index, ratio in enumerate(ratios) if ratio.judged]
    slower = [False] * len(ratios)
    for rank, (p, index) in enumerate(sorted(known)):
        if p >= level / (len(known) - rank):
            break
        slower[index] = ratios[index].ratio < 1 / (1 + margin)
    return slower
