"""Tables of the benchmarks' pages: cells as HTML, whose rows become cards on a phone, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from fastresnet.base import words

NOTHING = "None yet."


@dataclass(frozen=True)
class Cell:
    """A cell's text; a link where it leads somewhere; a note in small print; a class of the style sheet."""

    text: str
    link: str = ""
    note: str = ""
    style: str = ""


Row = Sequence[Cell]


def plain(*texts: str) -> list[Cell]:
    """Cells of text alone."""
    return [Cell(text) for text in texts]


def asset(name: str) -> str:
    """The text of a style sheet or script of the pages."""
    return (resources.files("fastresnet.bench.pages") / "assets" / name).read_text(encoding="utf-8")


def style_sheet(name: str) -> str:
    """A style sheet as an element of a page."""
    return "<style>" + asset(name) + "</style>"


def script(name: str) -> str:
    """A script as an element of a page."""
    return "<script>" + asset(name) + "</script>"


def html(head: Sequence[str], rows: Sequence[Row], kind: str = "") -> str:
    """A table; the first cell of a row names it. kind: `others` sets rows of another origin back."""
    if not rows:
        return f"<p>{escape(NOTHING)}</p>"
    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "\n".join(f"<tr>{_html_cells(head, row)}</tr>" for row in rows)
    style = f"rows {kind}".strip()
    return f'<table class="{style}"><thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table>'


def _html_cells(head: Sequence[str], row: Row) -> str:
    cells = []
    for index, (label, cell) in enumerate(zip(head, row)):
        text = escape(cell.text)
        text = f'<a href="{escape(cell.link, quote=True)}">{text}</a>' if cell.link else text
        text += f'<span class="note">{escape(cell.note)}</span>' if cell.note else ""
        style = f"{'' if index else 'head '}{cell.style}".strip()
        cells.append(f'<td class="{style}" data-label="{escape(label, quote=True)}"><div>{text}</div></td>')
    return "".join(cells)


def folded(title: str, about: str, inside: str) -> str:
    """A group that folds: its title, a few words about it, and what it holds."""
    summary = f'<summary>{escape(title)} <span class="soft">{escape(about)}</span></summary>'
    return f'<details class="group">{summary}{inside}</details>'


def markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table, or a sentence where there are no rows."""
    if not rows:
        return NOTHING
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in rows])


def _markdown(cell: Cell) -> str:
    text = cell.text + (f" ({cell.note})" if cell.note else "")
    text = text.replace("|", "/")
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
