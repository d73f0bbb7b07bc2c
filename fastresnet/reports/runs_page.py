"""Several runs on one page: a table and their curves over each other. Built from the runs' folders alone.

Runs that differ in their seeds alone make a group, which has a mean and a standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from fastresnet.base import files, statistics, strict_yaml, words
from fastresnet.machine import hardware
from fastresnet.reports import charts, page, run_page
from fastresnet.reports.finished import Finished

COLUMNS = ("run", "data", "test", "with TTA", "highest", "in epoch", "training", "images/s", "machine")
SPREADS = ("runs", "test, mean ± sd", "95 % interval", "with TTA, mean ± sd", "training, mean ± sd")
OF_A_RUN = ("run.seed", "run.dir")  # settings that make no other group


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone; `settings`: what groups differ in, as text."""

    settings: dict[str, str]
    runs: list[Finished]

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.settings.items()) or "all seeds"

    @property
    def short(self) -> str:
        return ", ".join(self.settings.values()) or "all seeds"

    def values(self, section: str, key: str) -> list[float]:
        """A figure of the records of those runs that have it: accuracies as shares, seconds."""
        found: list[Any] = [dict(run.record or {}).get(section) or {} for run in self.runs]
        return [float(one[key]) for one in found if one.get(key) is not None]


def groups(runs: Sequence[Finished]) -> list[Group]:
    """The runs by the settings that they differ in, but for the seed, in the order in which they come."""
    unlike = {key: values for key, values in differing(runs).items() if key not in OF_A_RUN}
    found: dict[tuple[str, ...], list[Finished]] = {}
    for index, run in enumerate(runs):
        found.setdefault(tuple(values[index] for values in unlike.values()), []).append(run)
    return [Group(dict(zip(unlike, settings)), some) for settings, some in found.items()]


def names(runs: Sequence[Finished]) -> list[str]:
    """What the runs are called among themselves: without their recipe where the rest tells them apart."""
    whole, paths = [run.name for run in runs], [str(run.path) for run in runs]
    short = [run.path.absolute().name for run in runs] if _recipe(runs) else whole
    return next((some for some in (short, whole) if len(set(some)) == len(runs)), paths)


def _recipe(runs: Sequence[Finished]) -> str | None:
    """The one of them all."""
    found = {run.record["recipe"] if run.record else None for run in runs}
    return found.pop() if len(found) == 1 else None


def rows(runs: Sequence[Finished]) -> list[list[str]]:
    """A line of text cells a run, in the order of COLUMNS; a dash where a run has no such figure."""
    return [_row(run, name) for run, name in zip(runs, names(runs))]


def _row(run: Finished, name: str) -> list[str]:
    record: Any = run.record or {}
    best = run.best()
    data, accuracy = record.get("data", {}), record.get("accuracy", {})
    highest = [words.percent(best[0]), f"{best[1]:g}"] if best else [words.UNKNOWN, words.UNKNOWN]
    rate = record.get("images_per_second")
    return [
        name + ("" if record else " (unfinished)"),
        str(data.get("name", words.UNKNOWN)) + (" SYNTHETIC" if data.get("synthetic") else ""),
        words.percent(accuracy.get("test")),
        words.percent(accuracy.get("test_tta")),
        *highest,
        words.duration(record.get("seconds", {}).get("train"), digits=2),
        f"{rate:,.0f}" if rate else words.UNKNOWN,
        hardware.used_name(record) if record.get("hardware") else words.UNKNOWN,
    ]


def text(runs: Sequence[Finished], width: int | None = None) -> str:
    """The table as aligned columns, within a terminal's width if it is told."""
    return "\n".join(words.columns([COLUMNS, *rows(runs)], range(2, len(COLUMNS) - 1), width=width))


def seeds(runs: Sequence[Finished]) -> str | None:
    """Mean and standard deviation of runs that differ in their seeds alone; None where that isn't so."""
    found = groups(runs)
    accuracies = found[0].values("accuracy", "test") if found else []
    if len(found) > 1 or len(accuracies) < max(2, len(runs)):
        return None
    test = words.percent(*statistics.spread(accuracies)[:2])
    return f"{len(runs)} seeds: test {test} (mean ± standard deviation of a run)"


def spreads(found: Sequence[Group]) -> list[list[str]]:
    """A line of text cells a group: what its settings are, and SPREADS."""
    return [_spread(group) for group in found]


def _spread(group: Group) -> list[str]:
    test = group.values("accuracy", "test")
    mean, std, ci95 = statistics.spread(test)
    return [
        *group.settings.values(),
        f"{len(test)}" + (f" of {len(group.runs)}" if len(test) < len(group.runs) else ""),
        words.percent(mean, std),
        words.UNKNOWN if ci95 is None else f"±{100 * ci95:.2f}",
        words.percent(*statistics.spread(group.values("accuracy", "test_tta"))[:2]),
        words.seconds(*statistics.spread(group.values("seconds", "train"))[:2]),
    ]


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


def write(runs: Sequence[Finished], path: str | Path, verdict: str = "") -> Path:
    """The page that compares `runs`, at `path`. Raises ValueError where none has finished an epoch.

    verdict:  what the caller has to say of them, instead of the mean of seeds
    """
    if not any(run.history for run in runs):
        raise ValueError("none of these runs has finished an epoch, so there is nothing to compare")
    recipe = _recipe(runs)
    values = {
        "title": (f"{recipe}: " if recipe else "") + f"{len(runs)} runs compared",
        "runs": runs,
        "synthetic": any(run.record and run.record["data"].get("synthetic") for run in runs),
        "verdict": verdict or seeds(runs),
        "columns": COLUMNS,
        "rows": rows(runs),
        "differing": _side_by_side(runs),
        "curves": _curves(runs),
        **_together(groups(runs)),
    }
    return files.write_text(path, page.render("runs.html", values))


def _side_by_side(runs: Sequence[Finished]) -> list[tuple[str, ...]]:
    """Head and rows of the settings that differ; the fewer of settings and runs are the columns."""
    unlike = {key: values for key, values in differing(runs).items() if key != "run.dir"}
    if not unlike:
        return []
    columns = [("setting", *names(runs)), *((key, *values) for key, values in unlike.items())]
    return columns if len(unlike) > len(runs) else [("run", *unlike), *list(zip(*columns))[1:]]


def _together(found: Sequence[Group]) -> dict[str, object]:
    """Each group's mean and spread, where a group has several runs or one setting is all they differ in."""
    if not any(len(group.runs) > 1 for group in found) and len(found[0].settings) != 1:
        return {"spreads": []}
    by = f", by {' and '.join(found[0].settings)}" if found[0].settings else ""
    dots = [(group.short, [100 * value for value in group.values("accuracy", "test")]) for group in found]
    return {
        "spreads": spreads(found),
        "spread_columns": [*found[0].settings, *SPREADS],
        "numbers_from": len(found[0].settings),
        "strips": charts.strips(dots, title=f"Test accuracy of each run{by}", x_label="accuracy (%)"),
    }


def _curves(runs: Sequence[Finished]) -> list[Markup]:
    shown: list[tuple[str, Sequence[Mapping[str, Any]]]] = list(
        zip(names(runs), (run.history for run in runs))
    )
    if len(runs) > charts.COLORS:
        shown = [(f"{one.name} (mean of {len(one.runs)})", _mean_rows(one)) for one in groups(runs)]
    drawn = []
    for key, title, unit, scale in (
        ("test_accuracy", "Test accuracy", "accuracy (%)", 100.0),
        ("test_loss", "Test loss", "cross-entropy (nats)", 1.0),
        ("train_loss", "Training loss", "as each run's own page says", 1.0),
        ("images_per_second", "Throughput", "images a second", 1.0),
    ):
        mark = "accuracy" if key == "test_accuracy" else None
        found = [
            run_page.line(history, key, name, color % charts.COLORS, scale, mark)
            for color, (name, history) in enumerate(shown)
        ]
        drawn.append(charts.chart(title, unit, found, "epoch"))
    return drawn


def _mean_rows(group: Group) -> list[dict[str, float]]:
    """The rows of a group's epochs, each figure the mean of the runs that have it."""
    rows: list[dict[str, float]] = []
    for epoch in sorted({row["epoch"] for run in group.runs for row in run.history}):
        some: list[dict[str, Any]] = [
            dict(row) for run in group.runs for row in run.history if row["epoch"] == epoch
        ]
        known = {key: [row[key] for row in some if row.get(key) is not None] for key in some[0]}
        rows.append({key: fmean(values) for key, values in known.items() if values} | {"epoch": epoch})
    return rows
