"""Several runs on one page: a table and their curves over each other. Built from the runs' folders alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastresnet.base import files, strict_yaml, words
from fastresnet.machine import hardware
from fastresnet.reports import charts, page, run_page
from fastresnet.reports.finished import Finished

COLUMNS = ("run", "data", "test", "with TTA", "highest", "in epoch", "training", "images/s", "machine")


def rows(runs: Sequence[Finished]) -> list[list[str]]:
    """A line of text cells a run, in the order of COLUMNS; a dash where a run has no such figure."""
    return [_row(run) for run in runs]


def _row(run: Finished) -> list[str]:
    record: Any = run.record or {}
    best = run.best()
    data, accuracy = record.get("data", {}), record.get("accuracy", {})
    highest = [words.percent(best[0]), f"{best[1]:g}"] if best else [words.UNKNOWN, words.UNKNOWN]
    rate = record.get("images_per_second")
    return [
        run.name + ("" if record else " (unfinished)"),
        str(data.get("name", words.UNKNOWN)) + (" SYNTHETIC" if data.get("synthetic") else ""),
        words.percent(accuracy.get("test")),
        words.percent(accuracy.get("test_tta")),
        *highest,
        words.duration(record.get("seconds", {}).get("train"), digits=2),
        f"{rate:,.0f}" if rate else words.UNKNOWN,
        hardware.short_name(record["hardware"]) if record.get("hardware") else words.UNKNOWN,
    ]


def text(runs: Sequence[Finished]) -> str:
    """The table for a terminal, columns aligned."""
    cells = [list(COLUMNS), *rows(runs)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(COLUMNS))]
    lines = []
    for row in cells:
        left = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(row[2:-1], widths[2:-1]))
        lines.append(f"{left}  {numbers}  {row[-1]}".rstrip())
    return "\n".join(lines)


def seeds(runs: Sequence[Finished]) -> str | None:
    """Mean and standard deviation of runs that differ in their seeds alone; None where that isn't so."""
    accuracies = [run.record["accuracy"]["test"] for run in runs if run.record]
    if len(accuracies) < max(2, len(runs)) or not set(differing(runs)) <= {"run.seed", "run.dir"}:
        return None
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    return f"{len(runs)} seeds: test {words.percent(mean, spread)} (mean ± standard deviation of a run)"


def differing(runs: Sequence[Finished]) -> dict[str, list[str]]:
    """Settings that aren't the same in all runs: their value in each, in the runs' order."""
    flat = [dict(_flat(strict_yaml.parse(run.settings) or {})) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    told = {key: [str(settings.get(key, words.UNKNOWN)) for settings in flat] for key in keys}
    return {key: values for key, values in told.items() if len(set(values)) > 1}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def write(runs: Sequence[Finished], path: str | Path) -> Path:
    """The page that compares `runs`, at `path`. Raises ValueError where none has finished an epoch."""
    if not any(run.history for run in runs):
        raise ValueError("none of these runs has finished an epoch, so there is nothing to compare")
    synthetic = any(run.record and run.record["data"].get("synthetic") for run in runs)
    warning = '<p class="warn">Some of these runs trained on synthetic data.</p>' if synthetic else ""
    head = (
        f'<header><p class="soft">fastresnet</p><h1>{len(runs)} runs compared</h1>{warning}'
        f"<p><b>{seeds(runs) or ''}</b></p>"
        '<p class="soft">"Highest" is chosen on the test set over the epochs: it is no result, "test" '
        "is.</p></header>"
    )
    settings = [[key, *values] for key, values in differing(runs).items()]
    parts = [
        head,
        page.section("Results", page.table(COLUMNS, rows(runs), numbers_from=2)),
        page.section("Settings that differ", page.table(["setting", *(run.name for run in runs)], settings)),
        page.section("Curves", f'<div class="charts">{_curves(runs)}</div>'),
        page.section("Folders", f"<pre>{escape(chr(10).join(str(run.path) for run in runs))}</pre>"),
    ]
    return files.write_text(path, page.document("runs compared · fastresnet", "".join(parts)))


def _curves(runs: Sequence[Finished]) -> str:
    drawn = []
    for key, title, unit, scale in (
        ("test_accuracy", "Test accuracy", "accuracy (%)", 100.0),
        ("test_loss", "Test loss", "cross-entropy (nats)", 1.0),
        ("train_loss", "Training loss", "as each run's own page says", 1.0),
        ("images_per_second", "Throughput", "images a second", 1.0),
    ):
        mark = "accuracy" if key == "test_accuracy" else None
        chart = [run_page.line(run.history, key, run.name, scale, mark) for run in runs]
        drawn.append(charts.lines(chart, title=title, x_label="epoch", y_label=unit))
    return "".join(drawn)
