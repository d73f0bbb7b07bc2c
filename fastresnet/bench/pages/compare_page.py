"""The comparison as one self-contained page: the verdict, cases in groups that fold, pictures, machines.

Loads nothing, needs no server.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fastresnet.bench.judging.comparison import Comparison, Entry
from fastresnet.bench.judging.telling import LEVEL, averages, speed, told
from fastresnet.bench.measuring.file import number
from fastresnet.bench.pages import compare_pictures, tables
from fastresnet.bench.pages.case_names import PARTS, readable

CHANGES = 8  # of the largest, in the verdict
Case = tuple[str, list[Entry]]


@dataclass(frozen=True)
class Shown:
    """A cell as the template has it: by `value` it sorts, `bar` is (left, width) in percent of the cell."""

    label: str
    text: str
    style: str = "n"
    value: float = math.nan
    title: str = ""
    soft: str = ""
    bar: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A case as the template has it; sure: whether it changed beyond noise."""

    id: str
    name: str
    sure: bool
    cells: list[Shown]


@dataclass(frozen=True)
class Group:
    """A part of the suite, which folds."""

    title: str
    about: str
    lines: list[Line]


def render(compared: Comparison) -> str:
    """The whole page."""
    labels, cases = compared.labels, list(compared.cases.items())
    sure = [case for case in _by_change(cases) if _is_sure(case[1])]
    values = {
        "title": " and ".join(labels) if len(labels) <= 3 else f"{len(labels)} benchmark files",
        "labels": labels,
        "warnings": compared.warnings,
        "verdict": list(_verdict(compared)),
        "changes": [_line(compared, case) for case in sure[:CHANGES]],
        "judged": any(entry.ratio and entry.ratio.judged for _, entries in cases for entry in entries),
        "groups": _groups(compared),
        "pictures": compare_pictures.pictures(compared),
        "machines": [(label, compare_pictures.machine(file)) for file, label in zip(compared.files, labels)],
    }
    return str(tables.render("compare.html", values))


# ---- the verdict -------------------------------------------------------------------------------------------


def _verdict(compared: Comparison) -> Iterator[tuple[str, str]]:
    """How many cases of each file are slower, faster and the same, and the mean speed of each part."""
    for index, label in enumerate(compared.labels[1:], start=1):
        counts = Counter(entries[index].verdict for entries in compared.cases.values())
        if not counts.keys() & {"slower", "faster", "noise"}:
            yield "not judged", f"{label}: no case of several processes compares"
            continue
        judged = sum(counts[verdict] for verdict in ("slower", "faster", "noise"))
        by_chance = f"of {judged} equal cases about {judged * LEVEL:.1f} would look changed"
        yield f"{counts['slower']} slower", f"{label}: beyond noise, of {len(compared.cases)} cases"
        yield f"{counts['faster']} faster", f"{label}: beyond noise; {counts['noise']} within it; {by_chance}"
    for part, text in averages(compared).items():
        several = len(compared.files) > 2
        yield text if several else text.rsplit(" ", 3)[1], f"{PARTS.get(part, part)}: mean speed"


def _by_change(cases: list[Case]) -> list[Case]:
    """The largest changes first, those beyond noise before the others; as the file has them where equal."""
    return sorted(cases, key=lambda case: (not _is_sure(case[1]), -_change(case[1])))


def _change(entries: list[Entry]) -> float:
    return max((abs(math.log(entry.ratio.ratio)) for entry in entries if entry.ratio), default=0.0)


def _is_sure(entries: list[Entry]) -> bool:
    return any(entry.verdict in ("slower", "faster") for entry in entries)


# ---- the cases ---------------------------------------------------------------------------------------------


def _groups(compared: Comparison) -> list[Group]:
    """A group a part of the suite."""
    by_part: dict[str, list[Case]] = {}
    for case in compared.cases.items():
        by_part.setdefault(case[0].split("/")[0], []).append(case)
    return [_group(compared, part, cases) for part, cases in by_part.items()]


def _group(compared: Comparison, part: str, cases: list[Case]) -> Group:
    changed = sum(_is_sure(entries) for _, entries in cases)
    about = f"{len(cases)} case{'s' * (len(cases) != 1)}, {changed} beyond noise"
    return Group(PARTS.get(part, part), about, [_line(compared, case) for case in _by_change(cases)])


def _line(compared: Comparison, case: Case) -> Line:
    name, entries = case
    measured = next((entry.row for entry in entries if entry.row is not None), None)
    cells = [_value(entries[0], compared.labels[0])]
    for label, entry in zip(compared.labels[1:], entries[1:]):
        cells += [_value(entry, label), _ratio(entry), Shown("explained by", told(entry)[3], "")]
    return Line(name, readable(measured) if measured else name, _is_sure(entries), cells)


def _value(entry: Entry, label: str) -> Shown:
    row, text = entry.row, told(entry)[0]
    if row is None or row["quantiles"] is None:
        return Shown(label, entry.verdict, "n none", title=(row["message"] if row else "") or "")
    q = row["quantiles"]
    title = f"median {q['median']:.4g}, 20th {q['p20']:.4g}, 80th {q['p80']:.4g} {row['unit']}, n={q['n']}"
    title += f"; {row['noise']}" if row["noise"] else ""
    return Shown(label, text, value=number(row, "images_per_second") or q["median"], title=title)


def _ratio(entry: Entry) -> Shown:
    ratio = entry.ratio
    if ratio is None:
        return Shown("speed", entry.verdict if entry.row and entry.row["status"] == "ok" else "", "n none")
    value, _, interval = speed(ratio).partition(" ")
    style, bar = (entry.verdict, _bar(ratio.low, ratio.high)) if ratio.judged else ("none", None)
    return Shown("speed", value, f"n {style}", ratio.ratio, soft=f"{interval} {entry.verdict}", bar=bar)


def _bar(low: float, high: float) -> tuple[float, float]:
    """Where the interval lies between a tenth of the speed and ten times it."""
    left, right = (50 + 50 * max(-1.0, min(1.0, math.log10(x))) for x in (low, high))
    return round(left, 1), round(right - left, 1)
