"""Is one machine or commit slower than another, or is it noise? Ratios of speeds, with intervals.

A process counts once, by the median of its samples: samples of one process share its memory layout, its
clocks and its neighbours, so their spread says nothing about the next process. One process alone can't be
judged. Where two files were measured in turns, a process is held against its partner alone: what both met,
a machine that drifts say, cancels.

Each case is judged by its own spread. Cases that lend each other theirs find more, and accuse the noisiest
too often: it is drawn to a spread smaller than its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from fastresnet.base.statistics import student_t_cdf, student_t_quantile

# of a process's median: below it, processes agree by the clock's resolution, not by truth
LEAST_RELATIVE_ERROR = 0.002
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


def compare(
    base: Sequence[Processes], other: Sequence[Processes], lower: Sequence[bool], *, in_turns: bool = False
) -> list[Ratio]:
    """The speed of each case of `other` relative to `base`, a case being its processes' samples.

    lower:     for each case, whether less is better
    in_turns:  the first processes of both sides are partners, the second ones, and so on
    Samples are positive; one process on either side gives a ratio without an interval.
    """
    return [_ratio(one, two, 1.0 if down else -1.0, in_turns) for one, two, down in zip(base, other, lower)]


def _ratio(one: Processes, two: Processes, sign: float, in_turns: bool) -> Ratio:
    first, second = ([sign * math.log(median(samples)) for samples in side] for side in (one, two))
    gain = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return Ratio(math.exp(gain))
    error, degrees = _error([[a - b for a, b in zip(first, second)]] if in_turns else [first, second])
    reach = student_t_quantile(0.975, degrees) * error
    p_slower = student_t_cdf(gain / error, degrees)
    return Ratio(math.exp(gain), math.exp(gain - reach), math.exp(gain + reach), p_slower)


def _error(sets: Sequence[Sequence[float]]) -> tuple[float, int]:
    """(standard error of the sum or difference of the sets' means, its degrees of freedom) by Welch (1947).

    Two sets of one size and one true variance never get more degrees than Student's exact test would.
    """
    squares = [max(variance(values), LEAST_RELATIVE_ERROR**2) / len(values) for values in sets]
    total = sum(squares)
    degrees = total**2 / sum(square**2 / (len(values) - 1) for square, values in zip(squares, sets))
    return math.sqrt(total), int(degrees + 1e-6)  # rounded down, but not below a whole number


def slower_beyond_noise(ratios: Sequence[Ratio], margin: float, level: float = 0.05) -> list[bool]:
    """Which cases are slower by more than `margin` (0.05: 5 %) and provably slower, all together at `level`.

    Holm's correction (1979): of many cases some look slower by chance, so the smallest p must beat level /
    cases, the next level / (cases - 1), and so on. However the cases depend on each other, the chance that
    any is named though none is slower stays at `level`.
    """
    known = [(ratio.p_slower, index) for index, ratio in enumerate(ratios) if ratio.judged]
    slower = [False] * len(ratios)
    for rank, (p, index) in enumerate(sorted(known)):
        if p >= level / (len(known) - rank):
            break
        slower[index] = ratios[index].ratio < 1 / (1 + margin)
    return slower
