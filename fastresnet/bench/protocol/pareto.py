"""The trials of a search in words and as a picture: cost, accuracy, and those that nothing beats in both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastresnet.base import words
from fastresnet.bench.protocol.search import Gain, Objective, Trial
from fastresnet.reports import plots
from fastresnet.series.rows import Row, accuracy_of


def front(tried: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The trials for which no other is both cheaper and more accurate, cheapest first."""
    best: list[Trial] = []
    for trial in sorted((t for t in tried if t.rows), key=lambda t: (t.cost(objective), -t.accuracy())):
        if not best or trial.accuracy() > best[-1].accuracy():
            best.append(trial)
    return best


def run_line(trial: Trial, row: Row) -> str:
    """One run in one aligned line."""
    what = row.get("message") if row["status"] == "failed" else f"{100 * accuracy_of(row):6.2f} %"
    return (
        f"{trial.who:<10} seed {row['seed']:<3} {what}  {row['seconds']['total'] or 0:8.2f} s  {_told(trial)}"
    )


def trial_line(trial: Trial, gain: Gain | None) -> str:
    """One trial over all its runs: mean accuracy, cost, the gain less its price with its standard error."""
    if trial.message is not None:
        return f"{trial.who:<10} can't run: {trial.message}"
    cost = f"{trial.cost('seconds'):8.2f} s  {words.amount(trial.cost('flops'), 'FLOP')}"
    over = "the recipe"
    if gain and trial.number:
        over = f"net gain {100 * gain.mean:+.2f} ±{100 * gain.error:.2f} points"
    figures = f"n={len(trial.rows):<3} {100 * trial.accuracy():6.2f} %  {cost}"
    return f"{trial.who:<10} {figures}  {over:<28} {_told(trial)}"


def _told(trial: Trial) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in trial.settings.items())


def draw(
    tried: Sequence[Trial], found: Mapping[int, Gain], target: float | None, objective: Objective, path: Path
) -> Path:
    """Cost against accuracy, a point a trial with its gain's error; the front a line, the target dashed."""
    places = {t.number: (t.cost(objective), 100 * t.accuracy()) for t in tried if t.rows}
    best = [(trial.number, places[trial.number]) for trial in front(tried, objective)]
    with plots.drawing(path, 7, 4.5) as figure:
        axes = figure.subplots()
        for number, (cost, accuracy) in places.items():
            error = 100 * found[number].error if number in found else 0.0
            axes.errorbar(cost, accuracy, yerr=error, fmt="o", ms=4, color="0.6", lw=1)
        axes.plot([cost for _, (cost, _) in best], [high for _, (_, high) in best], "o-", color="C0")
        for number, place in best:
            axes.annotate(str(number), place, xytext=(4, -10), textcoords="offset points", fontsize=8)
        if target is not None:
            axes.axhline(100 * target, color="C3", linestyle="--", linewidth=1)
        axes.set_xlabel("seconds of a run" if objective == "seconds" else "FLOPs of a run")
        axes.set_ylabel("accuracy (%), ± standard error of the gain")
        axes.set_title(f"{len(places)} trials and the front of those that nothing beats")
    return path
