"""The trials of a search as JSON lines, and the front of those that nothing beats in cost and accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastresnet.base import files, words


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one trial to the log."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All trials of the log; a last line that was cut off in the writing is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def front(rows: list[dict[str, Any]], objective: str) -> list[dict[str, Any]]:
    """The complete trials for which no other is both cheaper and more accurate, cheapest first."""
    done = [row for row in rows if row["state"] == "complete"]
    best: list[dict[str, Any]] = []
    for row in sorted(done, key=lambda row: (row[objective], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best


def line(row: dict[str, Any], target: float) -> str:
    """One trial in one aligned line."""
    if row["state"] != "complete":
        return f"trial {row['trial']:<4} {row['state']:<9} {row.get('message', 'hopeless at its epoch')}"
    mark = "reached" if row["accuracy"] >= target else "missed"
    settings = " ".join(f"{key}={json.dumps(value)}" for key, value in row["settings"].items())
    return (
        f"trial {row['trial']:<4} {mark:<9} {words.percent(row['accuracy']):>8}  {row['seconds']:8.2f} s  "
        f"{row['flops'] / 1e15:.4f} PFLOP  {settings}"
    )


def draw(rows: list[dict[str, Any]], target: float, objective: str, path: Path) -> Path | None:
    """Cost against accuracy, the front as a line, the target dashed. None where no trial is complete."""
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        return None
    import matplotlib  # late: reading a log needs no pictures

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    axes.scatter([row[objective] for row in done], [100 * row["accuracy"] for row in done], s=18, color="0.6")
    best = front(rows, objective)
    axes.plot([row[objective] for row in best], [100 * row["accuracy"] for row in best], "o-", color="C0")
    for row in best:
        axes.annotate(
            str(row["trial"]),
            (row[objective], 100 * row["accuracy"]),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8,
        )
    axes.axhline(100 * target, color="C3", linestyle="--", linewidth=1)
    axes.set_xlabel("seconds of a run" if objective == "seconds" else "FLOPs of a run")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{len(done)} trials, the front and the target of {100 * target:g} %")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix[1:])
    pyplot.close(figure)
    return path
