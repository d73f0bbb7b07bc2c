"""Compare benchmark files: `python benchmarks/compare.py A.json B.json ... [--html FILE] [--md] [--json]
[--gate 5%]`.

The first file is the base. Ratios are speeds: 2.0 means twice as fast as the base. What can't be compared is
said, not averaged.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastresnet.base import words
from fastresnet.base.files import write_text
from fastresnet.bench.judging import bounds, significance
from fastresnet.bench.judging.significance import Ratio
from fastresnet.machine import hardware
from fastresnet.runs import record

DATA_PARTS = ("loader", "endtoend", "accuracy")  # parts whose figures depend on the images


@dataclass(frozen=True)
class Entry:
    """One case in one file, beside the base.

    verdict:  base, faster, slower, noise (within it), or why there is no ratio
    why:      which ceiling explains the difference
    """

    row: dict[str, Any] | None
    ratio: Ratio | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """`labels` name the files; `cases` maps a case's id to one entry a file, base first."""

    files: list[dict[str, Any]]
    labels: list[str]
    cases: dict[str, list[Entry]]
    warnings: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables, write pages, and with --gate exit 1 where a case became slower beyond noise."""
    options = parse(argv)
    files = [record.read(path, "benchmark") for path in options.files]
    compared = compare(files, names(files, options.files))
    if options.html:
        from fastresnet.bench.pages import compare_page

        write_text(Path(options.html), compare_page.render(compared))
        print(f"written: {options.html}", file=sys.stderr)
    if options.json:
        print(json.dumps(as_json(compared), indent=1, ensure_ascii=False, allow_nan=False))
    elif options.md or not options.html:
        print(table(compared, markdown=options.md))
    return gate(compared, options.gate) if options.gate is not None else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Exits with 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="benchmark files; the first is the base")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page")
    parser.add_argument("--md", action="store_true", help="tables as Markdown")
    parser.add_argument("--json", action="store_true", help="the comparison as JSON")
    parser.add_argument(
        "--gate", type=margin, metavar="5%", help="exit 1 where a case is slower by more, beyond noise"
    )
    options = parser.parse_args(argv)
    if options.gate is not None and len(options.files) < 2:
        parser.error("--gate needs a base and at least one other file")
    return options


def margin(text: str) -> float:
    """`5%` or `0.05` -> 0.05."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 5% or 0.05") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0% and 100% (0.05 means 5%)")
    return value


def names(files: Sequence[dict[str, Any]], paths: Sequence[str]) -> list[str]:
    """A short name for each file: its machine where these differ, else the file's own."""
    machines = [hardware.short_name(file["hardware"]) for file in files]
    stems = [Path(path).stem for path in paths]
    if len(set(machines)) == len(machines):
        return machines
    return stems if len(set(stems)) == len(stems) else [f"{stem} ({i + 1})" for i, stem in enumerate(stems)]


def compare(files: Sequence[dict[str, Any]], labels: Sequence[str]) -> Comparison:
    """All cases of all files beside the base's. Raises ValueError where the files were made at different
    scales."""
    scales = {file["scale"] for file in files}
    if len(scales) > 1:
        raise ValueError(
            "a file of scale tiny and one of scale normal don't compare: tiny only checks that all runs"
        )
    base = files[0]
    by_id = [{row["id"]: row for row in file["cases"]} for file in files]
    cases = {}
    for name in dict.fromkeys(name for rows in by_id for name in rows):
        own = by_id[0].get(name)
        entries = [Entry(own, None, "base" if own and own["status"] == "ok" else verdict_without(own))]
        for file, rows in zip(files[1:], by_id[1:]):
            entries.append(_entry(base, file, own, rows.get(name)))
        cases[name] = entries
    return Comparison(list(files), list(labels), cases, list(_warnings(files, labels)))


def _entry(
    base: dict[str, Any], file: dict[str, Any], own: dict[str, Any] | None, row: dict[str, Any] | None
) -> Entry:
    if row is None or row["status"] != "ok":
        return Entry(row, None, verdict_without(row))
    if own is None or own["status"] != "ok":
        return Entry(row, None, "base has none")
    problem = incomparable(base, file, own, row)
    if problem:
        return Entry(row, None, problem)
    ratio = significance.compare(own["samples"], row["samples"], lower_is_better=row["better"] == "lower")
    if ratio is None:
        return Entry(row, None, "too few samples")
    verdict = "noise" if ratio.within_noise else "faster" if ratio.ratio > 1 else "slower"
    return Entry(
        row, ratio, verdict, "" if ratio.within_noise else bounds.explain(base, file, own, row, ratio.ratio)
    )


def verdict_without(row: dict[str, Any] | None) -> str:
    """Why a case has no figure."""
    return "not measured" if row is None else row["status"]


def incomparable(base: dict[str, Any], file: dict[str, Any], own: dict[str, Any], row: dict[str, Any]) -> str:
    """Why these two rows mean different things, or nothing."""
    if own["settings"] != row["settings"] or own["unit"] != row["unit"]:
        changed = sorted(
            k
            for k in {*own["settings"], *row["settings"]}
            if own["settings"].get(k) != row["settings"].get(k)
        )
        return f"other settings ({', '.join(changed) or 'unit'})"
    if row["part"] not in DATA_PARTS:
        return ""
    first, second = base["data"], file["data"]
    if first is None or second is None:
        return "" if first == second else "data unknown"
    if first["synthetic"] != second["synthetic"]:
        return "synthetic against real data"
    same = all(first[key] == second[key] for key in ("name", "digest", "train_size", "test_size"))
    return "" if same else "other data"


def _warnings(files: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[str]:
    found = []
    for file, label in zip(files, labels):
        if file["data"] and file["data"]["synthetic"]:
            found.append(f"{label}: synthetic data, its accuracies say nothing about CIFAR-10")
        if file["condition"]["throttle"]:
            found.append(f"{label}: the GPU was held back ({', '.join(file['condition']['throttle'])})")
        noisy = sum(row["noisy"] for row in file["cases"])
        measured = sum(row["status"] == "ok" for row in file["cases"])
        if noisy > measured / 4:
            found.append(f"{label}: {noisy} of {measured} cases are noisy, the machine was busy or unsteady")
        if file["git"]["dirty"]:
            found.append(f"{label}: measured with uncommitted changes")
    if len({file["git"]["commit"] for file in files}) > 1:
        found.append("the files come from different commits of the code")
    return found


# ---- telling --------------------------------------------------------------------------------


def value_of(row: dict[str, Any]) -> str:
    """A row's result as a person wants it: images/s, or the accuracy reached and when, or the samples'
    median."""
    rate = row["figures"].get("images_per_second")
    if rate:
        return f"{rate:,.0f} images/s" if rate >= 100 else f"{rate:.1f} images/s"
    middle = words.amount(row["quantiles"]["median"], row["unit"])
    accuracy = row["figures"].get("accuracy")
    return f"{words.percent(accuracy)} in {middle}" if accuracy is not None else middle


def told(entry: Entry) -> list[str]:
    """Value, ratio, verdict and explanation of an entry, as text."""
    if entry.row is None or entry.row["status"] != "ok":
        return ["-", "", entry.verdict, ""]
    mark = " ~" if entry.row["noisy"] else ""
    if entry.ratio is None:
        return [value_of(entry.row) + mark, "", "" if entry.verdict == "base" else entry.verdict, ""]
    r = entry.ratio
    return [
        value_of(entry.row) + mark,
        f"{r.ratio:.2f}x [{r.low:.2f}, {r.high:.2f}]",
        entry.verdict,
        entry.why,
    ]


def table(compared: Comparison, *, markdown: bool = False) -> str:
    """All cases as a table: plain columns, or Markdown."""
    head = ["case", compared.labels[0]]
    for label in compared.labels[1:]:
        head += [label, "speed [95 %]", "", "explained by"]
    rows = []
    for name, entries in compared.cases.items():
        base = told(entries[0])
        rows.append([name, base[0] if base[0] != "-" else base[2]])
        for entry in entries[1:]:
            rows[-1] += told(entry)
    lines = [f"! {text}" for text in compared.warnings]
    if markdown:
        lines = [f"> {text}\n" for text in compared.warnings]
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    else:
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]
        ]
    lines += ["", *(f"{part}: {text}" for part, text in averages(compared).items())]
    return "\n".join(lines) + "\n~ noisy: spread or drift of the samples\n"


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
            found.setdefault(part, []).append(
                f"{label} {math.exp(sum(logs) / len(logs)):.2f}x ({len(logs)} cases)"
            )
    return {part: ", ".join(texts) for part, texts in found.items()}


def as_json(compared: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "base": compared.labels[0],
        "files": compared.labels,
        "warnings": compared.warnings,
        "cases": {
            name: [
                {
                    "median": (entry.row or {}).get("quantiles") and entry.row["quantiles"]["median"]
                    if entry.row
                    else None,
                    "verdict": entry.verdict,
                    "why": entry.why,
                    "ratio": asdict(entry.ratio) if entry.ratio else None,
                }
                for entry in entries
            ]
            for name, entries in compared.cases.items()
        },
    }


def gate(compared: Comparison, allowed: float) -> int:
    """1, with a line for each case slower than the base by more than `allowed` beyond noise; else 0."""
    failed, judged = [], 0
    for index, label in enumerate(compared.labels[1:], start=1):
        names = list(compared.cases)
        ratios = [compared.cases[name][index].ratio for name in names]
        judged += sum(ratio is not None for ratio in ratios)
        for name, ratio, slow in zip(names, ratios, significance.slower_beyond_noise(ratios, allowed)):
            if slow and ratio is not None:
                interval = f"[{ratio.low:.3f}, {ratio.high:.3f}]"
                failed.append(f"{label}: {name} runs at {ratio.ratio:.3f}x {interval} of the base")
    for line in failed:
        print(f"slower: {line}", file=sys.stderr)
    if not judged:
        print("gate: no case compares, nothing was judged", file=sys.stderr)
        return 1
    print(f"gate {100 * allowed:g} %: {len(failed)} of {judged} cases slower beyond noise", file=sys.stderr)
    return 1 if failed else 0
