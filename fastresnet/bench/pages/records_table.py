"""Records as rows and as points of a chart, beside what others published. Judges by the protocol's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastresnet.base import strict_yaml
from fastresnet.bench.pages.tables import Cell, Row, measured
from fastresnet.bench.protocol.rival import timed_by
from fastresnet.machine import hardware
from fastresnet.reports.charts import Series
from fastresnet.runs import record
from fastresnet.series.rows import Summary, judgement

HEAD = ("recipe", "machine", "target", "time ± sd", "accuracy ± sd", "runs")
HEAD_PUBLISHED = ("program", "machine", "accuracy", "time")
PUBLISHED = "benchmarks/published.yaml"
RAW = ("record.json", "runs.jsonl")


@dataclass(frozen=True)
class Entry:
    """A record, the folder it lies in, relative to the repository, and the files of raw data there."""

    folder: str
    made: dict[str, Any]
    raw: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """What others say of their own program on their own machine."""

    name: str
    accuracy: float
    seconds: float
    machine: str
    source: str


def load(root: Path) -> list[Entry]:
    """All records, in the order of target, recipe and folder; each is validated."""
    paths = sorted(root.glob("benchmarks/records/*/record.json"))
    found = [_entry(root, path) for path in paths]
    return sorted(found, key=lambda entry: (entry.made["target"] or 0.0, entry.made["recipe"], entry.folder))


def _entry(root: Path, path: Path) -> Entry:
    raw = tuple(name for name in RAW if (path.parent / name).is_file())
    return Entry(path.parent.relative_to(root).as_posix(), record.read(path, "record"), raw)


def load_published(root: Path) -> list[Published]:
    """benchmarks/published.yaml: name -> accuracy, seconds, machine and source; none without such a file."""
    path = root / PUBLISHED
    told = strict_yaml.read(path) if path.exists() else {}
    return [Published(name, **facts) for name, facts in told.items()]


def rows(entries: Sequence[Entry], up: str = "") -> list[Row]:
    """A row a record, and one a rival timed beside it. `up` leads from the page to the repository."""
    found: list[Row] = []
    for entry in entries:
        made, machine = entry.made, hardware.used_name(entry.made)
        target, planned = made["target"], made.get("runs_planned")
        told = made["published"]
        notes = ["synthetic data"] if made["data"]["synthetic"] else []
        notes += [f"published: {told['source']}"] if told else []
        raw = tuple((name, f"{up}{entry.folder}/{name}") for name in entry.raw)
        own = Cell(made["recipe"], f"{up}{entry.folder}/README.md", "; ".join(notes), more=raw)
        found.append([own, Cell(machine), *_figures(made["summary"], target, planned)])
        for rival in made["rivals"]:
            told, notes = rival["published"], ["rival, same machine and session", timed_by(rival["runs"])]
            notes += [f"published: {told['source']}"] if told else []
            beside = Cell(rival["name"], note="; ".join(filter(None, notes)))
            turns = rival.get("runs_planned", planned)
            found.append([beside, Cell(machine), *_figures(rival["summary"], target, turns)])
    return found


def _figures(summary: Summary, target: float | None, planned: int | None) -> list[Cell]:
    n, failed = summary["n"], summary.get("failed", 0)
    return [
        _target(summary, target, planned),
        Cell(measured(summary["seconds_mean"], summary["seconds_std"], n, "s"), style="n"),
        Cell(measured(summary["mean"], summary["std"], n, "%", 100), style="n"),
        Cell(f"{n}, {failed} failed" if failed else str(n), style="n"),
    ]


def _target(summary: Summary, target: float | None, planned: int | None) -> Cell:
    if target is None:
        return Cell("-")
    verdict = judgement(summary, target, planned)
    style = (
        "met" if verdict.startswith("met") else "missed" if verdict.startswith(("not met", "missed")) else ""
    )
    return Cell(f"{100 * target:g} % {verdict}", style=style)


def published_rows(published: Sequence[Published]) -> list[Row]:
    """A row a program, in the columns of HEAD_PUBLISHED."""
    return [
        [
            Cell(one.name, note=f"published: {one.source}"),
            Cell(one.machine),
            Cell(f"{100 * one.accuracy:.4g} %", style="n"),
            Cell(f"{one.seconds:g} s", style="n"),
        ]
        for one in published
    ]


def points(entries: Sequence[Entry], published: Sequence[Published]) -> list[Series]:
    """Seconds and test error in percent: measured ones filled, published ones hollow, each with its name."""
    own = []
    for entry in entries:
        sides = [(entry.made["recipe"], entry.made["summary"])]
        sides += [(rival["name"], rival["summary"]) for rival in entry.made["rivals"]]
        own += [(name, s["seconds_mean"], s["mean"]) for name, s in sides if s["seconds_mean"] and s["mean"]]
    theirs = [(one.name, one.seconds, one.accuracy) for one in published]
    found = [_series("measured here", own, 0), _series("published by others, on their machines", theirs, 6)]
    return [one for one in found if one.points]


def _series(title: str, told: Sequence[tuple[str, float, float]], color: int) -> Series:
    names = [name.partition(",")[0] for name, _, _ in told]
    found = [(seconds, 100 * (1 - accuracy)) for _, seconds, accuracy in told]
    return Series(title, found, color, line=False, labels=names, named=True, hollow=color > 0)
