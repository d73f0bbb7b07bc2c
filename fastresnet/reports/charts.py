"""Charts as SVG for a page: lines, points, bars, on linear or logarithmic axes. Pure functions of numbers.

matplotlib's SVG has its own colours and letters; these take the page's, so light, dark and phone read well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from fastresnet.base import words
from fastresnet.reports.axes import Axis, across, logarithmic, plain, ticks, upward
from fastresnet.reports.metrics import Bin
from fastresnet.reports.page import render

WIDTH, HEIGHT, TALL = (
    560,
    300,
    430,
)  # units of the drawing, which the page scales; tall where points are named
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 14, 44
COLORS = 7  # that the style sheet has
DOTS = 60  # points of a line from which on only the line is drawn
NAMES, ROW = 150, 34  # of strips: room for their names, height of one
LETTER, LINE_HEIGHT = 9.6, 16  # of a point's name, as large as a phone shows it
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one name; those that aren't finite, or fit no logarithmic axis, are left out.

    color:   0..6, which sets the dash as well
    line:    whether the points are joined
    labels:  a text for each point, shown where one points at it; `named` writes it beside the point
    hollow:  whether the dots are open
    spans:   for each point, from where to where along x it may lie
    mark:    the index of a point to ring
    about:   what the legend adds to the name
    """

    name: str
    points: Sequence[Point]
    color: int = 0
    line: bool = True
    labels: Sequence[str] = ()
    named: bool = False
    hollow: bool = False
    spans: Sequence[Point] = ()
    mark: int | None = None
    about: str = ""


# ---- drawing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """A point's name: from x on, or up to it, as `anchor` says, at height y; and where the point is."""

    text: str
    anchor: str
    x: float
    y: float
    of_x: float
    of_y: float


@dataclass(frozen=True)
class Canvas:
    """Two axes, and the places that dots and names have taken: left, right, height of the middle."""

    x: Axis
    y: Axis
    height: int = HEIGHT
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def at(self, x: float, y: float) -> Point:
        """Where a point lies in the drawing."""
        right = LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT)
        up = self.y.share(y) * (self.height - TOP - BOTTOM)
        return round(right, 1), round(self.height - BOTTOM - up, 1)

    def ticks(self) -> dict[str, list[tuple[float, str]]]:
        """Both axes' ticks: where, and the text."""
        x, y = self.x, self.y
        return {
            "x_ticks": [(self.at(tick, y.low)[0], x.text(tick)) for tick in x.ticks],
            "y_ticks": [(self.at(x.low, tick)[1], y.text(tick)) for tick in y.ticks],
        }

    def occupy(self, points: Iterable[Point]) -> None:
        """Let no name cover these points."""
        self.taken.extend((x - 6, x + 6, y) for x, y in (self.at(*point) for point in points))

    def cover(self, series: Iterable[Series]) -> None:
        """Let no name cover the spans of these series."""
        for one in series:
            for (low, high), (_, y) in zip(one.spans, one.points):
                self.taken.append((self.at(low, y)[0], *self.at(high, y)))

    def name(self, text: str, x: float, y: float) -> Name:
        """A point's name beside it, as near as nothing else lies."""
        width = LETTER * len(text)
        leftward = x > LEFT + 0.6 * (WIDTH - LEFT - RIGHT)
        sides = [(x - 8 - width, x - 8), (x + 8, x + 8 + width)]
        places = [
            (begin, end, y + LINE_HEIGHT / 2 * step)
            for step in sorted(range(-24, 25), key=abs)
            for begin, end in (sides if leftward else sides[::-1])
        ]
        begin, end, height = next((place for place in places if self._free(*place)), places[0])
        self.taken.append((begin, end, height))
        anchor, start = ("end", end) if end < x else ("start", begin)
        return Name(text, anchor, round(start, 1), round(height, 1), x, y)

    def _free(self, begin: float, end: float, height: float) -> bool:
        inside = LEFT <= begin and end <= WIDTH and TOP < height < self.height - BOTTOM
        return inside and all(
            end < a or b < begin or abs(height - c) >= LINE_HEIGHT for a, b, c in self.taken
        )


def chart(
    title: str,
    subtitle: str,
    series: Sequence[Series],
    x_label: str,
    *,
    log: bool = False,
    from_zero: bool = False,
    x_ticks: Sequence[float] = (),
    empty: str = "",
) -> Markup:
    """A figure with a legend; without a point to show the sentence `empty`, or nothing.

    log:        both axes are logarithmic, with ticks at `x_ticks`
    from_zero:  the vertical axis begins at 0
    """
    fits = _positive if log else _finite
    kept = [(one, [i for i, point in enumerate(one.points) if fits(point)]) for one in series]
    kept = [(one, places) for one, places in kept if places]
    if not kept:
        return render("nothing.html", {"title": title, "sentence": empty}) if empty else Markup("")
    xs = [one.points[i][0] for one, places in kept for i in places]
    xs += [x for one, _ in kept for span in one.spans for x in span]
    ys = [one.points[i][1] for one, places in kept for i in places]
    axes = (
        (logarithmic(xs, x_ticks), logarithmic(ys)) if log else (across(xs), upward(ys, from_zero=from_zero))
    )
    named = any(one.named for one, _ in kept)
    canvas = Canvas(*axes, TALL if named else HEIGHT)
    if named:
        canvas.occupy(one.points[i] for one, places in kept for i in places)
        canvas.cover(one for one, _ in kept)
    drawn = [_drawn(one, places, canvas) for one, places in kept]
    return _figure(title, subtitle, canvas, x_label, drawn=drawn)


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _positive(point: Point) -> bool:
    return _finite(point) and min(point) > 0


def _figure(title: str, subtitle: str, canvas: Canvas, x_label: str, **inside: object) -> Markup:
    """The vertical axis is named above the drawing, where a phone has room for it."""
    box = {"width": WIDTH, "height": canvas.height, "left": LEFT, "right": WIDTH - RIGHT}
    box["bottom"] = canvas.height - BOTTOM
    about = {"title": title, "subtitle": subtitle, "x_label": x_label}
    return render("chart.html", {"drawn": [], "bars": [], **box, **about, **canvas.ticks(), **inside})


def _drawn(one: Series, places: Sequence[int], canvas: Canvas) -> dict[str, object]:
    """What the template draws of a series."""
    spots = {i: canvas.at(*one.points[i]) for i in places}
    joined = one.line and len(spots) > 1
    dots = [] if joined and len(spots) > DOTS else [(*spot, _label(one, i)) for i, spot in spots.items()]
    spans = [canvas.at(x, one.points[i][1]) for i in places if i < len(one.spans) for x in one.spans[i]]
    return {
        "series": one,
        "path": " ".join(f"{x},{y}" for x, y in spots.values()) if joined else "",
        "dots": dots,
        "names": [canvas.name(one.labels[i], *spot) for i, spot in spots.items()] if one.named else [],
        "spans": [(low[0], high[0], low[1]) for low, high in zip(spans[::2], spans[1::2])],
        "ring": None if one.mark is None else canvas.at(*one.points[one.mark]),
    }


def _label(one: Series, index: int) -> str:
    if index < len(one.labels):
        return one.labels[index]
    x, y = one.points[index]
    return f"{one.name}: {y:.5g} at {x:g}"


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """Accuracy in bins of confidence as bars, with the diagonal of a perfectly calibrated model."""
    axis = Axis(0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0], lambda share: f"{100 * share:.0f}")
    canvas = Canvas(axis, axis)
    bars = []
    for row in bins:
        if row["accuracy"] is not None:
            (x, y), (end, zero) = canvas.at(row["low"], row["accuracy"]), canvas.at(row["high"], 0.0)
            told = f"{row['count']} images, confidence {words.percent(row['confidence'])}"
            told += f", accuracy {words.percent(row['accuracy'])}"
            bars.append((round(x + 1, 1), y, round(end - x - 2, 1), round(zero - y, 1), told))
    diagonal = (*canvas.at(0.0, 0.0), *canvas.at(1.0, 1.0))
    subtitle, x_label = "accuracy (%)", "confidence in the predicted class (%)"
    return _figure(title, subtitle, canvas, x_label, bars=bars, diagonal=diagonal)


def strips(groups: Sequence[tuple[str, Sequence[float]]], *, title: str, x_label: str) -> Markup:
    """A row a group: a dot for each of its values, a stroke at their mean. Nothing without any value."""
    values = [value for _, some in groups for value in some]
    if not values:
        return Markup("")
    marks, bottom = ticks(min(values), max(values), 6), TOP + ROW * len(groups)

    def at(value: float) -> float:
        share = (value - marks[0]) / (marks[-1] - marks[0])
        return round(NAMES + share * (WIDTH - NAMES - RIGHT - 12), 1)

    rows = [
        (round(TOP + ROW * (index + 0.5)), name, [(at(value), f"{name}: {value:.5g}") for value in some])
        for index, (name, some) in enumerate(groups)
    ]
    box = {"width": WIDTH, "height": bottom + BOTTOM, "left": NAMES, "top": TOP, "bottom": bottom}
    told = {"title": title, "x_label": x_label, "marks": [(at(mark), plain(mark)) for mark in marks]}
    return render("strips.html", {**box, **told, "rows": rows})
