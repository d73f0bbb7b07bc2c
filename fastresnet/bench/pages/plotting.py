"""SVG plots on logarithmic axes, and bars: text for a page, in the page's colours. Pure functions of
numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from fastresnet.base import words

WIDTH, HEIGHT = 560, 320  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one name; `line` joins them, `color` (0..6) sets them apart from other series."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    line: bool = True
    labels: Sequence[str] = ()


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the limits: powers of ten where these are many, else finer and finer steps of each."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in (
        (1.0,),
        (1.0, 2.0, 5.0),
        (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
        [1 + i / 10 for i in range(90)],
    ):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 7)] if found else [low]


def plot(
    title: str, subtitle: str, series: Sequence[Series], x_label: str, *, x_ticks: Sequence[float] = ()
) -> str:
    """A figure with both axes logarithmic; a sentence instead where there is no point to show."""
    points = [(x, y) for one in series for x, y in one.points if x > 0 and y > 0]
    if not points:
        return empty(title, "No file has these figures.")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high, y_low, y_high = *_limits(xs), *_limits(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - math.log(x_low)) / (math.log(x_high) - math.log(x_low))
        up = (math.log(y) - math.log(y_low)) / (math.log(y_high) - math.log(y_low))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in log_ticks(y_low, y_high):
        height = place(x_low, y)[1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{words.amount(y)}</text>'
        )
    for x in [x for x in x_ticks if x_low <= x <= x_high] or log_ticks(x_low, x_high):
        across = place(x, y_low)[0]
        parts.append(
            f'<text class="tick" x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{words.amount(x)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for one in series:
        places = [place(x, y) for x, y in one.points if x > 0 and y > 0]
        if one.line and len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="line s{one.color % 7}" points="{path}"/>')
        for index, (x, y) in enumerate(places):
            text = (
                one.labels[index]
                if index < len(one.labels)
                else f"{one.name}: {words.amount(one.points[index][1])}"
            )
            parts.append(
                f'<circle class="dot s{one.color % 7}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(text)}</title></circle>'
            )
    legend = "".join(
        f'<span class="key s{one.color % 7}"><i></i>{escape(one.name)}</span>' for one in series if one.points
    )
    return figure(title, subtitle, "".join(parts), legend)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: a little beyond the values, and never nothing wide."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.06, 1.08)
    return low / room, high * room


def bars(title: str, subtitle: str, values: Sequence[tuple[str, float, str, int]]) -> str:
    """Horizontal bars of (name, value, text, color), from zero."""
    if not values:
        return empty(title, "No energy meter could be read on these machines.")
    most, height = max(value for _, value, _, _ in values), 20 + 44 * len(values)
    parts = []
    for index, (name, value, text, color) in enumerate(values):
        y = 14 + 44 * index
        width = max(2.0, value / most * (WIDTH - 110))
        parts.append(f'<text class="tick" x="4" y="{y + 8}">{escape(name)}</text>'
                     f'<rect class="dot s{color % 7}" x="4" y="{y + 13}" width="{width:.1f}" height="15" rx="2"/>'
                     f'<text class="tick" x="{width + 12:.1f}" y="{y + 25}">{escape(text)}</text>')  # fmt: skip
    return figure(title, subtitle, "".join(parts), "", height)


def figure(title: str, subtitle: str, drawing: str, legend: str, height: int = HEIGHT) -> str:
    """The frame around a drawing; the vertical axis is named above it, where it is readable on a phone."""
    return (f'<figure><figcaption>{escape(title)} <span class="soft">{escape(subtitle)}</span></figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">{drawing}</svg>'
            f'<p class="legend">{legend}</p></figure>')  # fmt: skip


def empty(title: str, sentence: str) -> str:
    """A figure that isn't there, and why."""
    return f'<figure><figcaption>{escape(title)}</figcaption><p class="soft">{escape(sentence)}</p></figure>'
