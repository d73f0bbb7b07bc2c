"""SVG plots on logarithmic axes, and bars, in the colours of a page. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from fastresnet.base import words

WIDTH, HEIGHT = 560, 320  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46
LABEL_HEIGHT = 16


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one name; `line` joins them, `color` (0..6) sets them apart from other series.

    style:  words: `named` writes each point's label beside it, `hollow` leaves its dot open
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    line: bool = True
    labels: Sequence[str] = ()
    style: str = ""


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the limits: powers of ten where these are many, else ever finer steps of each."""
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
    axes = _Axes(_limits([x for x, _ in points]), _limits([y for _, y in points]))
    inside = [x for x in x_ticks if axes.x[0] <= x <= axes.x[1]]
    parts = [_grid(axes, inside or log_ticks(*axes.x), x_label), *(_drawn(one, axes) for one in series)]
    legend = "".join(
        f'<span class="key s{one.color % 7}"><i></i>{escape(one.name)}</span>' for one in series if one.points
    )
    return figure(title, subtitle, "".join(parts), legend)


@dataclass(frozen=True)
class _Axes:
    """The ends of both axes, where a point lies in the drawing, and the places that names have taken."""

    x: tuple[float, float]
    y: tuple[float, float]
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # left, right, middle's height

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        up = math.log(y / self.y[0]) / math.log(self.y[1] / self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def label(self, text: str, x: float, y: float) -> str:
        """A point's name beside it, as near as no other name lies, measured as large as a phone shows it."""
        width, left = 8.5 * len(text), x > LEFT + 0.6 * (WIDTH - LEFT - RIGHT)
        begin, end = (x - 8 - width, x - 8) if left else (x + 8, x + 8 + width)
        for step in (0, -1, 1, -2, 2, -3, 3, -4, 4):
            height = y + LABEL_HEIGHT * step
            if all(end < a or b < begin or abs(height - c) >= LABEL_HEIGHT for a, b, c in self.taken):
                break
        self.taken.append((begin, end, height))
        return _text("point", end if left else begin, height + 4, text, "end" if left else "start")


def _grid(axes: _Axes, x_ticks: Sequence[float], x_label: str) -> str:
    parts = []
    for tick in log_ticks(*axes.y):
        y = axes.place(axes.x[0], tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text("tick", LEFT - 6, y + 4, words.amount(tick), "end"))
    for tick in x_ticks:
        x = axes.place(tick, axes.y[0])[0]
        parts.append(_text("tick", x, HEIGHT - BOTTOM + 18, words.amount(tick), "middle"))
    return "".join(parts) + _text("name", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle")


def _drawn(one: Series, axes: _Axes) -> str:
    places = [axes.place(x, y) for x, y in one.points if x > 0 and y > 0]
    color, parts = f"s{one.color % 7}", []
    if one.line and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line {color}" points="{path}"/>')
    for index, (x, y) in enumerate(places):
        told = f"{one.name}: {words.amount(one.points[index][1])}"
        text = one.labels[index] if index < len(one.labels) else told
        hollow = " hollow" if "hollow" in one.style else ""
        dot = f'<circle class="dot {color}{hollow}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
        parts.append(f"{dot}<title>{escape(text)}</title></circle>")
        if "named" in one.style:
            parts.append(axes.label(text, x, y))
    return "".join(parts)


def _text(style: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


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
        box = f'x="4" y="{y + 13}" width="{width:.1f}" height="15" rx="2"'
        parts.append(_text("tick", 4, y + 8, name, "start"))
        parts.append(f'<rect class="dot s{color % 7}" {box}/>')
        parts.append(_text("tick", width + 12, y + 25, text, "start"))
    return figure(title, subtitle, "".join(parts), "", height)


def figure(title: str, subtitle: str, drawing: str, legend: str, height: int = HEIGHT) -> str:
    """The frame around a drawing; the vertical axis is named above it, where it is readable on a phone."""
    caption = f'{escape(title)} <span class="soft">{escape(subtitle)}</span>'
    facts = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}"'
    below = f'<p class="legend">{legend}</p>'
    return f"<figure><figcaption>{caption}</figcaption><svg {facts}>{drawing}</svg>{below}</figure>"


def empty(title: str, sentence: str) -> str:
    """A figure that isn't there, and why."""
    return f'<figure><figcaption>{escape(title)}</figcaption><p class="soft">{escape(sentence)}</p></figure>'
