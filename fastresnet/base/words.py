"""One wording for numbers: shares in percent, times, amounts with their units; and columns of them.

Refuses to round away what a measurement knows: spreads get the digits of their figure. None is a dash.
Aligning, and breaking what a terminal is too narrow for, is all that tables need, so there is no rich, which
cuts cells instead.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TextIO

from fastresnet.base.sinks import for_markdown, for_terminal

UNKNOWN, GAP, NEXT = "-", "  ", "next      "
LAST = 24  # characters that a table's last column gets at least, before it goes on below
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SHORT = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def percent(share: float | None, spread: float | None = None, *, digits: int = 2) -> str:
    """A share (0..1) in percent: `94.02 %`, with a spread `94.02 ±0.14 %`."""
    return _figure(share, spread, 100.0, digits, " %")


def seconds(value: float | None, spread: float | None = None) -> str:
    """A measured time: `0.71 s`, with a spread `0.71 ±0.01 s`; whole from 100 s on, but for small spreads."""
    digits = 2 if value is None or value < 100 else int(spread is not None and spread < 1)
    return _figure(value, spread, 1.0, digits, " s")


def chance(p_value: float) -> str:
    """`p=0.0018`; below what its computation resolves `p<1e-12`."""
    return f"p={p_value:.2g}" if p_value >= 1e-12 else "p<1e-12"


def _figure(value: float | None, spread: float | None, scale: float, digits: int, unit: str) -> str:
    if value is None:
        return UNKNOWN
    around = "" if spread is None else f" ±{scale * spread:.{digits}f}"
    return f"{scale * value:.{digits}f}{around}{unit}"


def duration(seconds: float | None, *, digits: int = 1) -> str:
    """Seconds as people say them: `8.2 s`, `3:05 min`, `1:02:03 h`; `digits` of those below a minute."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def amount(value: float, unit: str = "") -> str:
    """A number scaled to be readable: `2.31 ms`, `1.11 GFLOP`, and without a unit `12k`, `3.1M`."""
    if unit == "s":
        scale, name = next((step for step in _SHORT if abs(value) >= step[0]), (1e-9, "ns"))
    else:
        scale, prefix = next((step for step in _LARGE if abs(value) >= step[0]), (1.0, ""))
        name = prefix + unit
    scaled = value / scale
    space = " " if unit else ""
    return f"{scaled:,.0f}{space}{name}" if abs(scaled) >= 999.5 else f"{scaled:.3g}{space}{name}"


def size(count: int) -> str:
    """Bytes: `3.0 KiB`, `48.2 MiB`, `1.5 GiB`."""
    scale, name = next((step for step in _BINARY if count >= step[0]), (1, "bytes"))
    return f"{count / scale:,.1f} {name}" if scale > 1 else f"{count} bytes"


def span(counts: Iterable[int]) -> str:
    """The least and the most of some: `5 to 60`, or `36` where they are one."""
    known = sorted(set(counts))
    return f"{known[0]:,} to {known[-1]:,}" if len(known) > 1 else f"{known[0]:,}"


def columns(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), *, width: int | None = None
) -> list[str]:
    """Rows of cells as aligned lines; the columns in these places are set flush right, as numbers are.

    width:  of a terminal: the columns that it is too narrow for go on below, indented; a long last one is for
            `fitted` to break
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    levels, found = _levels([*widths[:-1], min(widths[-1], LAST)], width or sys.maxsize), []
    for row in rows:
        for level, cells in groupby(zip(levels, _cells(row, widths, right)), itemgetter(0)):
            text = (GAP if level else "") + GAP.join(cell for _, cell in cells)
            found += [text.rstrip()] if text.strip() or not level else []
    return found


def _levels(widths: Sequence[int], room: int) -> list[int]:
    """For each column which of a row's lines it stands on: as many as have room, the later ones indented."""
    found: list[int] = []
    level, used = 0, -len(GAP)
    for width in widths:
        used += len(GAP) + width
        if used > room and found:
            level, used = level + 1, len(GAP) + width
        found.append(level)
    return found


def room(stream: TextIO) -> int | None:
    """Columns that a line on this stream may have: the terminal's, None where there is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fitted(text: str, stream: TextIO) -> str:
    """Each line on as many as its terminal needs, broken at spaces alone: a path stays whole."""
    width = room(stream)
    return text if width is None else "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip())) + GAP
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def then(*parts: object) -> str:
    """The command to go on with, to be copied from a terminal; a long one goes on below after a backslash."""
    lines, width = [f"{NEXT}fastresnet"], shutil.get_terminal_size().columns
    for part in map(shlex.quote, map(str, parts)):
        if len(f"{lines[-1]} {part} \\") > width:
            lines[-1:] = [f"{lines[-1]} \\", " " * len(NEXT) + " "]
        lines[-1] += f" {for_terminal(part)}"
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Rows of cells, the head first, as the lines of a Markdown table; `right` as in `columns`."""
    head, *body = ["| " + " | ".join(map(for_markdown, row)) + " |" for row in rows]
    rule = "".join(" ---: |" if place in right else " --- |" for place in range(len(rows[0])))
    return [head, f"|{rule}", *body]


def _cells(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(row, widths)):
        yield cell.rjust(width) if place in right else cell.ljust(width)
