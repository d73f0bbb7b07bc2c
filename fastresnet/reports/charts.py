"""Line charts and bars as SVG text for a page: they take the page's colours, so light and dark read well.

Pure functions of numbers. Styles are named by class (`s0` … `s6`, `grid`, `tick`) and set by the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fastresnet.base import words
from fastresnet.reports.metrics import Bin

WIDTH, HEIGHT = 560, 300  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 14, 44


@dataclass(frozen=True)
class Line:
    """One line of a chart. mark: index of the point to ring, or None; mark_text: what the legend adds."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: int | None = None
    mark_text: str = ""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2, 2.5, 5 times a power of ten apart) from below `low` to above `high`.

    Where both are the same, numbers around it; around 0 they reach from 0 to 1.
    """
    if low >= high:
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if high else (0.0, 1.0)
    rough = max(high - low, abs(high) * 1e-9) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def plain(value: float) -> str:
    """A tick's text: 0.25, 40, 12k, 3.1M."""
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            divisor = {"G": 1e9, "M": 1e6, "k": 1e3}[sign]
            return f"{value / divisor:g}{sign}"
    return f"{value:.4g}"


def lines(
    chart: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    start_at_zero: bool = False,
    text: Callable[[float], str] = plain,
) -> str:
    """An SVG line chart with a legend, without points that aren't finite. Empty text where none is left."""
    kept = [
        (index, line, [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)])
        for index, line in enumerate(chart)
    ]
    kept = [entry for entry in kept if entry[2]]
    if not kept:
        return ""
    xs = [x for _, _, points in kept for x, _ in points]
    ys = [y for _, _, points in kept for _, y in points]
    x_ticks = ticks(min(xs), max(xs), 6) if max(xs) > min(xs) else [min(xs)]
    y_ticks = ticks(0.0 if start_at_zero else min(ys), max(ys))
    x_low, x_high = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_frame(x_ticks, y_ticks, x_low, x_high, at, x_label, text)]
    for index, line, points in kept:
        parts.append(_line(index, line, points, at))
    legend = "".join(
        f'<span class="key s{index % 7}"><i></i>{escape(line.name)}{escape(line.mark_text)}</span>'
        for index, line, _ in kept
    )
    return _figure(title, y_label, "".join(parts), legend)


def _figure(title: str, y_label: str, drawing: str, legend: str) -> str:
    """The vertical axis is named above it, where its name is readable and takes no width on a phone."""
    return (
        f'<figure><figcaption>{escape(title)} <span class="soft">{escape(y_label)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}, '
        f'{escape(y_label, quote=True)}">{drawing}</svg><p class="legend">{legend}</p></figure>'
    )


def _frame(
    x_ticks: list[float],
    y_ticks: list[float],
    x_low: float,
    x_high: float,
    at: Callable[..., tuple[float, float]],
    x_label: str,
    text: Callable[[float], str],
) -> str:
    parts = []
    for value in y_ticks:
        _, y = at(x_low, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text(value)}</text>'
        )
    for value in x_ticks:
        if x_low <= value <= x_high:
            x, _ = at(value, y_ticks[0])
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
                f"{plain(value)}</text>"
            )
    parts.append(
        f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return "".join(parts)


def _line(
    index: int, line: Line, points: list[tuple[float, float]], at: Callable[..., tuple[float, float]]
) -> str:
    style = f"s{index % 7}"
    places = [at(x, y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline class="line {style}" points="{path}"/>']
    if len(points) <= 60:
        for (x, y), (px, py) in zip(points, places, strict=True):
            parts.append(
                f'<circle class="dot {style}" cx="{px:.1f}" cy="{py:.1f}" r="2.6"><title>'
                f"{escape(line.name)}: "
                f"{y:.5g} at {x:g}</title></circle>"
            )
    if line.mark is not None:
        px, py = at(line.x[line.mark], line.y[line.mark])
        parts.append(f'<circle class="ring {style}" cx="{px:.1f}" cy="{py:.1f}" r="6"/>')
    return "".join(parts)


def reliability(bins: Sequence[Bin], title: str) -> str:
    """Accuracy in bins of confidence as bars, with the diagonal of a perfectly calibrated model."""

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    def percent(value: float) -> str:
        return f"{100 * value:.0f}"

    grid = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [_frame([], grid, 0.0, 1.0, at, "confidence in the predicted class (%)", percent)]
    for value in grid:
        x, _ = at(value, 0)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
            f"{percent(value)}</text>"
        )
    for row in bins:
        if row["accuracy"] is not None:
            (x, y), (x_end, y_zero) = at(row["low"], row["accuracy"]), at(row["high"], 0)
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{x_end - x - 2:.1f}" '
                f'height="{y_zero - y:.1f}">'
                f"<title>{row['count']} images, confidence {words.percent(row['confidence'])}, "
                f"accuracy {words.percent(row['accuracy'])}</title></rect>"
            )
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    parts.append(f'<line class="diagonal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    legend = (
        '<span class="key bars"><i></i>accuracy in the bin</span>'
        '<span class="key diagonal"><i></i>perfectly calibrated</span>'
    )
    return _figure(title, "accuracy (%)", "".join(parts), legend)
