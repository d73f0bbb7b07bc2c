"""Several runs on one page: a table and their curves over each other. Built from the runs' folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastresnet.base import files, words
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


def write(runs: Sequence[Finished], path: str | Path) -> Path:
    """The page that compares `runs`, at `path`. Raises ValueError where none of them has finished an
    epoch."""
    if not any(run.history for run in runs):
        raise ValueError("none of these runs has finished an epoch, so there is nothing to compare")
    drawn = []
    for key, title, unit, scale in (
        ("test_accuracy", "Test accuracy", "accuracy (%)", 100.0),
        ("test_loss", "Test loss", "cross-entropy (nats)", 1.0),
        ("train_loss", "Training loss", "cross-entropy (nats)", 1.0),
        ("images_per_second", "Throughput", "images a second", 1.0),
    ):
        mark = "accuracy" if key == "test_accuracy" else None
        chart = [run_page.line(run.history, key, run.name, scale, mark) for run in runs]
        drawn.append(charts.lines(chart, title=title, x_label="epoch", y_label=unit))
    synthetic = any(run.record and run.record["data"].get("synthetic") for run in runs)
    warning = '<p class="warn">Some of these runs trained on synthetic data.</p>' if synthetic else ""
    head = (
        f'<header><p class="soft">fastresnet</p><h1>{len(runs)} runs compared</h1>{warning}'
        '<p class="soft">"Highest" is chosen on the test set over the epochs: it is no result, "test" '
        "is.</p></header>"
    )
    table = page.section("Results", page.table(COLUMNS, rows(runs), numbers_from=2))
    curves = page.section("Curves", f'<div class="charts">{"".join(drawn)}</div>')
    folders = page.section("Folders", f"<pre>{escape(chr(10).join(str(run.path) for run in runs))}</pre>")
    return files.write_text(
        Path(path), page.document("runs compared · fastresnet", head + table + curves + folders)
    )
