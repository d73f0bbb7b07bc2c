"""Benchmark files and contests between loaders as rows: the best of each part, with its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastresnet.base import words
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.file import Benchmark, figure, good, median_of, number
from fastresnet.bench.pages import tables
from fastresnet.bench.pages.tables import Cell, Row, plain
from fastresnet.machine import hardware

HEAD = (
    "machine", "suite", "processes", "matrix rate", "loader", "ResNet-18 step", "speednet step",
    "epochs, end to end", "date",
)  # fmt: skip
LOADER_HEAD = (
    "loader", "machine", "images/s", "20th to 80th percentile", "n", "first batch", "of FFCV's", "cores busy",
)  # fmt: skip
SCALING_HEAD = (
    "", "processes", "batch", "images/s", "times one", "of a step exchanging", "gradients",
    "all of them alone", "8 bytes alone",
)  # fmt: skip
RATE = "images_per_second"
EXCHANGED = {"exchange_bytes": "B", "exchange_seconds": "s", "latency_seconds": "s"}


@dataclass(frozen=True)
class Measured:
    """A benchmark file, and where it lies in the repository."""

    place: str
    made: Benchmark


def load(root: Path) -> list[Measured]:
    """All benchmark files, in the order of their paths; each is validated."""
    paths = sorted(root.glob("benchmarks/results/*.json"))
    return [Measured(path.relative_to(root).as_posix(), file.read(path)) for path in paths]


def result_rows(results: Sequence[Measured], up: str = "") -> list[Row]:
    """A row a machine and date: the best of each part, with its settings. `up` leads to the repository."""
    found: list[Row] = []
    for one in results:
        result = one.made
        note = "synthetic data" if result["data"] and result["data"]["synthetic"] else ""
        texts = [
            result["suite"],
            str(result.get("processes_done", 1)),
            _matrix_rate(result),
            _best(result, "loader"),
            _best(result, "step", model="resnet18", work="step"),
            _best(result, "step", model="speednet", work="step"),
            _best(result, "endtoend", prefix="run/"),
        ]
        if set(texts[2:]) == {"-"}:
            continue  # of several processes alone: docs/scaling.md
        machine = Cell(hardware.used_name(result), up + one.place, note)
        found.append([machine, *plain(*texts), Cell(result["date"][:10], style="n")])
    return found


def loader_rows(root: Path, up: str = "") -> list[Row]:
    """A row a loader of each file that benchmarks/loader.py wrote into benchmarks/results/loaders."""
    found: list[Row] = []
    for path in sorted((root / "benchmarks" / "results" / "loaders").glob("*.json")):
        made = json.loads(path.read_text(encoding="utf-8"))
        machine = f"{hardware.short_name(made['hardware'])}, {made['dtype']}, batch {made['batch_size']}"
        theirs = [row["images_per_second"] for row in made["rows"] if row["name"].startswith("ffcv")]
        rival = max(filter(None, theirs), key=lambda speed: speed["median"], default=None)
        where = Cell(machine, up + path.relative_to(root).as_posix())
        found += [
            [Cell(row["name"]), where, *(Cell(text, style="n") for text in _contest(row, rival))]
            for row in made["rows"]
            if not row["status"].startswith(ModuleNotFoundError.__name__)  # it took no part
        ]
    return found


def scaling_tables(results: Sequence[Measured]) -> str:
    """Markdown: a table for each file in which steps over several processes were measured."""
    found = []
    for one in results:
        rows = good(one.made, "scaling")
        if rows:
            told, samples = rows[0]["settings"], words.span(len(row["samples"]) for row in rows)
            ones = [row for row in rows if row["settings"]["processes"] == 1]
            alone = {row["settings"]["kind"]: figure(row, RATE) for row in ones}
            cells = [_scaled(row, alone.get(row["settings"]["kind"])) for row in rows]
            found.append(
                f"{hardware.short_name(one.made['hardware'])}, {one.made['date'][:10]}, a step of "
                f"`{told['recipe']}` in {told['train.precision']}, medians of {samples} samples "
                f"(`{one.place}`):\n\n{tables.markdown(SCALING_HEAD, cells)}"
            )
    return "\n\n".join(found) or tables.NOTHING


def _scaled(row: file.Row, alone: float | None) -> Row:
    settings, rate, cores = row["settings"], figure(row, RATE), number(row, "cores_per_process")
    note = f"{cores:.2g} of a core each" if cores and cores < 1 else ""
    texts = [
        f"{settings['train.batch_size']:,}",
        f"{rate:,.0f}{' ~' * row['noisy']}",
        f"{rate / alone:.2f}" if alone else words.UNKNOWN,
        words.percent(number(row, "communication_share"), digits=0),
    ]
    told = {name: number(row, name) for name in EXCHANGED}
    texts += ["-" if value is None else words.amount(value, EXCHANGED[name]) for name, value in told.items()]
    return [Cell(str(settings["kind"])), Cell(str(settings["processes"]), note=note), *plain(*texts)]


def _contest(row: dict[str, Any], rival: dict[str, Any] | None) -> list[str]:
    speed = row["images_per_second"]
    if speed is None:
        return [row["status"], *["-"] * (len(LOADER_HEAD) - 3)]
    return [
        f"{speed['median']:,.0f}",
        f"{speed['p20']:,.0f} to {speed['p80']:,.0f}",
        str(speed["n"]),
        words.amount(row["first_batch_seconds"], "s"),
        f"{speed['median'] / rival['median']:.2f} times" if rival else "-",
        f"{row['host_cpu_cores']:.2f}",
    ]


def _matrix_rate(result: Benchmark) -> str:
    rows = [row for row in good(result, "ceilings") if row["name"].startswith(f"{result['device']}/matmul-")]
    if not rows:
        return "-"
    best = max(rows, key=median_of)
    return f"{words.amount(median_of(best), 'FLOP/s')} ({best['name'].rsplit('-', 1)[1]})"


def _best(result: Benchmark, part: str, prefix: str = "", **settings: str) -> str:
    rows = [
        row
        for row in good(result, part)
        if row["name"].startswith(prefix)
        and number(row, RATE)
        and all(row["settings"].get(key) == value for key, value in settings.items())
    ]
    if not rows:
        return "-"
    best = max(rows, key=lambda row: figure(row, RATE))
    told, rate = best["settings"], figure(best, RATE)
    how = (
        f"batch {told['batch_size']}, {told['precision']}"
        if part == "step"
        else best["name"].removeprefix(prefix)
    )
    return f"{rate:,.0f} images/s{' ~' * best['noisy']} ({how})"
