"""A comparison in words: cells, tables in plain text and Markdown, averages, plain data. Draws nothing."""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import fmean

from fastresnet.base import words
from fastresnet.bench.judging.comparison import Comparison, Entry
from fastresnet.bench.judging.significance import Ratio
from fastresnet.bench.measuring.file import value_of

LONG_LABEL = 20  # characters; on a terminal longer ones stand above the table
LEVEL = 0.05  # of a case's interval: so many of equal cases lie outside of it


def told(entry: Entry) -> list[str]:
    """Value, ratio, verdict and explanation of an entry, as text."""
    if entry.row is None or entry.row["status"] != "ok":
        return ["-", "", entry.verdict, ""]
    value = value_of(entry.row) + (" ~" if entry.row["noisy"] else "")
    if entry.ratio is None:
        return [value, "", "" if entry.verdict == "base" else entry.verdict, ""]
    return [value, speed(entry.ratio), entry.verdict, entry.why]


def speed(ratio: Ratio) -> str:
    """`0.95x [0.93, 0.97]`, with as many digits as the verdict needs; no interval where it isn't known."""
    if not ratio.judged:
        return f"{ratio.ratio:.2f}x"
    agree = (n for n in (2, 3, 4) if (round(ratio.low, n) <= 1 <= round(ratio.high, n)) == ratio.within_noise)
    digits = next(agree, 5)
    return f"{ratio.ratio:.{digits}f}x [{ratio.low:.{digits}f}, {ratio.high:.{digits}f}]"


def table(compared: Comparison, *, markdown: bool = False, width: int | None = None) -> str:
    """All cases as a table: plain columns, within a terminal's width if it is told, or Markdown."""
    names = compared.labels
    if width and max(map(len, names)) > LONG_LABEL:
        names = [f"file {number}" for number in range(1, len(names) + 1)]
    rows = [["case", names[0]]]
    for label in names[1:]:
        rows[0] += _joined([label, "speed [95 %]", "", "explained by"], width)
    for name, entries in compared.cases.items():
        base = told(entries[0])
        rows.append([name, base[0] if base[0] != "-" else base[2]])
        rows[-1] += [cell for entry in entries[1:] for cell in _joined(told(entry), width)]
    warnings = [f"> {text}\n" if markdown else f"! {text}" for text in compared.warnings]
    lines = [f"{name}: {label}" for name, label in zip(names, compared.labels) if name != label]
    lines += warnings + (words.markdown(rows) if markdown else words.columns(rows, width=width))
    lines += ["", *(f"{part}: {text}" for part, text in averages(compared).items())]
    notes = ["~ noisy: spread or drift of the samples, or processes that differ", *by_chance(compared)]
    return "\n".join([*lines, *notes, ""])


def _joined(cells: list[str], width: int | None) -> list[str]:
    """Where a terminal has no room for four columns, all that is said of a value is one."""
    return cells if width is None else [cells[0], " ".join(filter(None, cells[1:]))]


def by_chance(compared: Comparison) -> list[str]:
    """How many verdicts of this many cases mean nothing, in a line; none where nothing was judged."""
    ratios = [entry.ratio for entries in compared.cases.values() for entry in entries[1:]]
    judged = sum(ratio is not None and ratio.judged for ratio in ratios)
    told = f"each case is judged alone: of {judged} that are equal about {judged * LEVEL:.1f} look changed"
    return [f"{told}; --gate judges them together"] if judged else []


def averages(compared: Comparison) -> dict[str, str]:
    """Geometric mean of the comparable ratios, by part of the suite and file."""
    found: dict[str, list[str]] = {}
    for index, label in enumerate(compared.labels[1:], start=1):
        by_part: dict[str, list[float]] = {}
        for name, entries in compared.cases.items():
            ratio = entries[index].ratio
            if ratio is not None:
                by_part.setdefault(name.split("/")[0], []).append(math.log(ratio.ratio))
        for part, logs in by_part.items():
            found.setdefault(part, []).append(f"{label} {math.exp(fmean(logs)):.2f}x ({len(logs)} cases)")
    return {part: ", ".join(texts) for part, texts in found.items()}


def as_data(compared: Comparison) -> dict[str, object]:
    """The comparison as plain data for JSON: null where an interval isn't known."""
    return {
        "base": compared.labels[0],
        "files": compared.labels,
        "warnings": compared.warnings,
        "cases": {name: [_entry(entry) for entry in entries] for name, entries in compared.cases.items()},
    }


def _entry(entry: Entry) -> dict[str, object]:
    quantiles, ratio = entry.row["quantiles"] if entry.row else None, entry.ratio
    unknown = {} if ratio is None or ratio.judged else dict.fromkeys(("low", "high", "p_slower"))
    return {
        "median": quantiles["median"] if quantiles else None,
        "verdict": entry.verdict,
        "why": entry.why,
        "ratio": None if ratio is None else asdict(ratio) | unknown,
    }
