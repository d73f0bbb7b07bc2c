"""Is one set of raw samples slower than another, or is it noise? Ratios with intervals, by Welch's test on
logarithms.

Neighbouring samples resemble each other (clocks, caches, other processes), so a case is first cut into blocks
in the order of measuring and each block counts once, by its median: pretending that all samples are
independent would find differences where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from fastresnet.base.statistics import student_t_cdf, student_t_quantile

BLOCKS = 8  # a case's independent observations, at most
# of a block's median: below it, samples agree by the clock's resolution, not by truth
LEAST_RELATIVE_ERROR = 0.002


@dataclass(frozen=True)
class Ratio:
    """How many times faster the second set is: above 1 faster, below 1 slower.

    low, high:  95 % interval; p_slower: chance of samples like these if the second set were not slower
    """

    ratio: float
    low: float
    high: float
    p_slower: float
    p_faster: float

    @property
    def within_noise(self) -> bool:
        return self.low <= 1.0 <= self.high


def blocks(samples: Sequence[float]) -> list[float]:
    """Logarithms of the medians of up to BLOCKS consecutive blocks of nearly equal length; all samples where
    few."""
    count = len(samples) if len(samples) <= BLOCKS else BLOCKS
    cuts = [round(i * len(samples) / count) for i in range(count + 1)]
    return [math.log(median(samples[a:b])) for a, b in zip(cuts, cuts[1:])]


def compare(base: Sequence[float], other: Sequence[float], *, lower_is_better: bool = True) -> Ratio | None:
    """The speed of `other` relative to `base`; None where a side has fewer than two samples or one isn't
    positive."""
    if len(base) < 2 or len(other) < 2 or min(*base, *other) <= 0:
        return None
    first, second = blocks(base), blocks(other)
    sign = 1.0 if lower_is_better else -1.0
    gain = sign * (fmean(first) - fmean(second))  # log of the speed ratio
    parts = [_error_squared(x, samples) for x, samples in ((first, base), (second, other))]
    error = math.sqrt(sum(parts))
    degrees = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (first, second)))
    whole = max(1, int(degrees))  # rounded down: never more certain than Welch's formula
    reach = student_t_quantile(0.975, whole) * error
    p_slower = student_t_cdf(gain / error, whole)
    return Ratio(math.exp(gain), math.exp(gain - reach), math.exp(gain + reach), p_slower, 1 - p_slower)


def _error_squared(of_blocks: Sequence[float], samples: Sequence[float]) -> float:
    """Variance of the mean of the blocks: from their spread, or from the samples' own with their correlation,
    whichever is larger. Blocks of a few samples still lean on their neighbours, and eight of them can agree
    by chance."""
    between = max(variance(of_blocks), LEAST_RELATIVE_ERROR**2) / len(of_blocks)
    count = len(samples)
    if count <= 2 * BLOCKS:
        return between
    logs = [math.log(x) for x in samples]
    middle, spread = fmean(logs), variance(logs)
    if not spread:
        return between
    raw = sum((a - middle) * (b - middle) for a, b in zip(logs, logs[1:])) / ((count - 1) * spread)
    lag1 = min(
        max(raw + (1 + 4 * raw) / count, 0.0), 0.95
    )  # Kendall's correction (1954): short series look less tied
    return max(between, spread / count * (1 + lag1) / (1 - lag1))


def slower_beyond_noise(ratios: Sequence[Ratio | None], margin: float, level: float = 0.01) -> list[bool]:
    """Which cases are slower by more than `margin` (0.05: 5 %) and provably slower, all cases together at
    `level`.

    Holm's correction (1979): of many cases some look slower by chance, so the smallest p must beat level /
    cases, the next level / (cases - 1), and so on.
    """
    known = [(ratio.p_slower, index) for index, ratio in enumerate(ratios) if ratio is not None]
    slower = [False] * len(ratios)
    for rank, (p, index) in enumerate(sorted(known)):
        if p >= level / (len(known) - rank):
            break
        ratio = ratios[index]
        slower[index] = ratio is not None and ratio.ratio < 1 / (1 + margin)
    return slower
