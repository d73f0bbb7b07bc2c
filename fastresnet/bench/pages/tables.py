"""Tables of the benchmarks' pages: cells that become HTML, whose rows are cards on a phone, or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fastresnet.base import words
from fastresnet.reports import page

NOTHING = "None yet."


@dataclass(frozen=True)
class Cell:
    """A cell's text; a link where it leads somewhere; a note in small print; a class of the style sheet.

    more:  further links, each (text, address), that pages show below and Markdown leaves out
    """

    text: str
    link: str = ""
    note: str = ""
    style: str = ""
    more: tuple[tuple[str, str], ...] = ()


Row = Sequence[Cell]


def plain(*texts: str) -> list[Cell]:
    """Cells of text alone."""
    return [Cell(text) for text in texts]


def render(template: str, values: Mapping[str, object]) -> Markup:
    """A template of the benchmarks' own, filled in."""
    return page.render(template, values, "fastresnet.bench.pages")


def markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table, or a sentence where there are no rows."""
    if not rows:
        return NOTHING
    return "\n".join(words.markdown([head, *([_markdown(cell) for cell in row] for row in rows)]))


def _markdown(cell: Cell) -> str:
    text = cell.text + (f" ({cell.note})" if cell.note else "")
    return f"[{text}]({cell.link})" if cell.link else text


def measured(mean: float | None, spread: float | None, n: int, unit: str, scale: float = 1.0) -> str:
    """`94.02 ±0.14 %`: no more digits than the standard error of n runs supports."""
    if mean is None:
        return words.UNKNOWN
    if spread is None or n < 2:
        return f"{scale * mean:.{2 if scale * mean < 100 else 0}f} {unit}"
    digits = _digits(scale * spread / n**0.5)
    return f"{scale * mean:.{digits}f} ±{scale * spread:.{digits}f} {unit}"


def _digits(error: float) -> int:
    """Decimals, at most two, of a figure with this standard error."""
    return 2 if error < 0.1 else 1 if error < 1 else 0
