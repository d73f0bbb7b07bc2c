"""Axes of charts, linear and logarithmic: round ticks, their texts, where a value lies. Draws nothing.

matplotlib has tickers, too, but pages shall not need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastresnet.base import words


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """About `count` round numbers (1, 2, 2.5, 5 times a power of ten apart) from below `low` to above `high`.

    whole:  only whole numbers: there is no half epoch
    Where both are the same, numbers around it; around 0 they reach from 0 to 1.
    """
    if low >= high:
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if high else (0.0, 1.0)
    rough = max(high - low, abs(high) * 1e-9) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999]
    step = next((one for one in steps if one == int(one)), 1.0) if whole else steps[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the limits: powers of ten where these are many, else ever finer steps of each."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    finest = [1 + i / 10 for i in range(90)]
    found: list[float] = []
    for steps in ([1.0], [1.0, 2.0, 5.0], [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], finest):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 7)] if found else [low]


def plain(value: float) -> str:
    """A tick's text: 0.25, 40, 12k, 3.1M."""
    for limit, divisor, sign in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:g}{sign}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Axis:
    """The ends of an axis, its ticks and their texts."""

    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str] = plain
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def across(values: Sequence[float]) -> Axis:
    """A linear axis from the least to the greatest value; epochs get whole ticks."""
    low, high = min(values), max(values)
    if low == high:
        return Axis(low - 1, high + 1, [low])
    whole = all(float(value).is_integer() for value in values)
    return Axis(low, high, [tick for tick in ticks(low, high, 6, whole=whole) if low <= tick <= high])


def upward(values: Sequence[float], *, from_zero: bool = False) -> Axis:
    """A linear axis from one tick to another, around all values."""
    marks = ticks(0.0 if from_zero else min(values), max(values))
    return Axis(marks[0], marks[-1], marks)


def logarithmic(values: Sequence[float], asked: Sequence[float] = ()) -> Axis:
    """A logarithmic axis a little beyond the values; ticks where `asked`, as far as these lie inside."""
    room = max((max(values) / min(values)) ** 0.06, 1.08)
    low, high = min(values) / room, max(values) * room
    inside = [tick for tick in asked if low <= tick <= high]
    return Axis(low, high, inside or log_ticks(low, high), words.amount, True)
