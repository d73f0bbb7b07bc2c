"""The comparison as one self-contained page: the verdict, cases in groups that fold, pictures, machines.

Loads nothing, needs no server.
"""

from __future__ import annotations

import math
from collections import Counter
from html import escape

from fastresnet.bench.judging.comparison import Comparison, Entry
from fastresnet.bench.judging.telling import averages, speed, told
from fastresnet.bench.measuring.file import number
from fastresnet.bench.pages import compare_pictures
from fastresnet.bench.pages.case_names import PARTS, readable
from fastresnet.bench.pages.tables import folded, script, style_sheet
from fastresnet.reports import page as look

CHANGES = 8  # of the largest, in the verdict
TOOLS = (
    '<div class="tools"><input type="search" id="search" placeholder="filter: resnet18 bf16" '
    'aria-label="filter the cases"><label><input type="checkbox" id="sure"> beyond noise only</label>'
    '<span class="soft" id="count"></span></div>'
)
Case = tuple[str, list[Entry]]


def render(compared: Comparison) -> str:
    """The whole page as text."""
    labels = compared.labels
    title = " and ".join(labels) if len(labels) <= 3 else f"{len(labels)} benchmark files"
    machines = (compare_pictures.machine(*pair) for pair in zip(compared.files, labels))
    body = [
        style_sheet("pages.css"),
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Speeds beside the first file, {escape(labels[0])}: 2.00x is twice as fast. '
        "In brackets the 95 % interval over processes; within it, a difference is noise.</p>",
        *(f'<p class="warn">{escape(text)}</p>' for text in compared.warnings),
        _verdict(compared),
        look.section("Largest changes", _changes(compared)),
        look.section("Cases", TOOLS, _groups(compared)),
        look.section("Pictures", f'<div class="charts">{compare_pictures.pictures(compared)}</div>'),
        look.section("Machines", *machines),
        script("compare.js"),
    ]
    return look.document(f"Benchmark: {title}", "\n".join(body))


# ---- the verdict -------------------------------------------------------------------------------------------


def _verdict(compared: Comparison) -> str:
    """How many cases of each file are slower, faster and the same, and the mean speed of each part."""
    cards = []
    for index, label in enumerate(compared.labels[1:], start=1):
        counts = Counter(entries[index].verdict for entries in compared.cases.values())
        about = f"{label}: {counts['noise']} within noise, of {len(compared.cases)} cases"
        cards.append(look.card(f"{counts['slower']} slower, {counts['faster']} faster", about))
    for part, text in averages(compared).items():
        several = len(compared.files) > 2
        cards.append(
            look.card(text if several else text.rsplit(" ", 3)[1], f"{PARTS.get(part, part)}: mean speed")
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _changes(compared: Comparison) -> str:
    """The cases that changed most, beyond noise."""
    sure = [case for case in _by_change(list(compared.cases.items())) if _is_sure(case[1])]
    if not sure:
        return "<p>No case differs beyond noise.</p>"
    return _table(compared, sure[:CHANGES], "")


def _by_change(cases: list[Case]) -> list[Case]:
    """The largest changes first, those beyond noise before the others; as the file has them where equal."""
    return sorted(cases, key=lambda case: (not _is_sure(case[1]), -_change(case[1])))


def _change(entries: list[Entry]) -> float:
    return max((abs(math.log(entry.ratio.ratio)) for entry in entries if entry.ratio), default=0.0)


def _is_sure(entries: list[Entry]) -> bool:
    return any(entry.verdict in ("slower", "faster") for entry in entries)


# ---- the cases ---------------------------------------------------------------------------------------------


def _groups(compared: Comparison) -> str:
    """A group a part of the suite, folded: the largest changes stand above."""
    by_part: dict[str, list[Case]] = {}
    for case in compared.cases.items():
        by_part.setdefault(case[0].split("/")[0], []).append(case)
    return "".join(_group(compared, part, cases) for part, cases in by_part.items())


def _group(compared: Comparison, part: str, cases: list[Case]) -> str:
    changed = sum(_is_sure(entries) for _, entries in cases)
    about = f"{len(cases)} cases, {changed} beyond noise"
    return folded(PARTS.get(part, part), about, _table(compared, _by_change(cases), "cases"))


def _table(compared: Comparison, cases: list[Case], kind: str) -> str:
    """One row a case; a cell's `data-value` is what it sorts by."""
    head = ["case", compared.labels[0]]
    for label in compared.labels[1:]:
        head += [label, "speed", "explained by"]
    heads = "".join(f'<th class="{"sorts" if kind else ""}">{escape(text)}</th>' for text in head)
    rows = "\n".join(_row(compared, *case) for case in cases)
    return f'<table class="rows {kind}"><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>'


def _row(compared: Comparison, name: str, entries: list[Entry]) -> str:
    measured = next((entry.row for entry in entries if entry.row is not None), None)
    title = readable(measured) if measured is not None else name
    cells = [f'<td class="head" data-label="case" title="{escape(name, quote=True)}">{escape(title)}</td>']
    cells.append(_value_cell(entries[0], compared.labels[0]))
    for label, entry in zip(compared.labels[1:], entries[1:]):
        why = f'<td data-label="explained by">{escape(told(entry)[3])}</td>'
        cells += [_value_cell(entry, label), _ratio_cell(entry), why]
    sure = int(_is_sure(entries))
    return f'<tr data-id="{escape(name, quote=True)}" data-sure="{sure}">{"".join(cells)}</tr>'


def _value_cell(entry: Entry, label: str) -> str:
    row, text = entry.row, told(entry)[0]
    if row is None or row["quantiles"] is None:
        return _cell("n none", label, math.nan, escape(entry.verdict), (row["message"] if row else "") or "")
    q = row["quantiles"]
    title = f"median {q['median']:.4g}, 20th {q['p20']:.4g}, 80th {q['p80']:.4g} {row['unit']}, n={q['n']}"
    title += f"; {row['noise']}" if row["noise"] else ""
    return _cell("n", label, number(row, "images_per_second") or q["median"], escape(text), title)


def _ratio_cell(entry: Entry) -> str:
    ratio = entry.ratio
    if ratio is None:
        text = "" if entry.row is None or entry.row["status"] != "ok" else entry.verdict
        return _cell("n none", "speed", math.nan, escape(text))
    value, _, interval = speed(ratio).partition(" ")
    inside = f'<div>{value} <span class="soft">{interval} {escape(entry.verdict)}</span>'
    inside += (_bar(ratio.low, ratio.high) if ratio.judged else "") + "</div>"
    return _cell(f"n {entry.verdict if ratio.judged else 'none'}", "speed", ratio.ratio, inside)


def _cell(style: str, label: str, value: float, inside: str, title: str = "") -> str:
    number_ = "NaN" if math.isnan(value) else f"{value:.6g}"
    facts = f'class="{style}" data-label="{escape(label, quote=True)}" data-value="{number_}"'
    facts += f' title="{escape(title, quote=True)}"' if title else ""
    return f"<td {facts}>{inside}</td>"


def _bar(low: float, high: float) -> str:
    """Where the interval lies between a tenth of the speed and ten times it."""
    left, right = (50 + 50 * max(-1.0, min(1.0, math.log10(x))) for x in (low, high))
    return f'<div class="ratio"><b></b><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i></div>'
