"""Where a series lies: a folder that the same command began, or a new one. One process works in it.

It holds series.json, report.html and a run's folder for each run.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fastresnet.base import files, sinks
from fastresnet.reports import finished, runs_page
from fastresnet.runs import folder as folders
from fastresnet.runs import record
from fastresnet.runs.folder import State
from fastresnet.series import summary
from fastresnet.series.plan import Plan
from fastresnet.series.summary import SeriesResult
from fastresnet.settings import config

NAME = "series.json"
FREE = ("run.dir", "run.resume", "run.progress")  # settings that may differ where a series goes on


@dataclass
class Place:
    """A series' folder, which may not be there yet; `made`: what its series.json held."""

    folder: Path
    made: SeriesResult | None = None
    lock: contextlib.ExitStack | None = None

    def begin(self) -> bool:
        """Make the folder and claim it; False where that was done before. ValueError: another works in it."""
        if self.lock is not None:
            return False
        with contextlib.ExitStack() as lock:
            lock.enter_context(files.locked(self.folder, self._taken))
            self.lock = lock.pop_all()
        return True

    def _taken(self) -> None:
        raise ValueError(f"{self.folder}: another series is at work in it, name another folder")

    def close(self) -> None:
        """Let another process have it."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def find(plan: Plan) -> Place:
    """`run.dir`, or under `runs/<recipe>/` the folder where the same command was cut off, or a new one.

    Raises ValueError where `run.dir` holds something else, or another process works there.
    """
    if plan.cfg.run.dir:
        return _named(plan, Path(plan.cfg.run.dir))
    begun = Path("runs", plan.cfg.recipe).glob(f"*-{plan.kind}*/{NAME}")
    for file in sorted(begun, reverse=True):
        try:
            place = Place(file.parent, read(file.parent))
            if _goes_on(place, plan):
                place.begin()
                return place
        except ValueError:  # damaged, of another release, or another process is at work in it
            continue
    return Place(folders.free(plan.cfg.recipe, plan.kind))


def _named(plan: Plan, folder: Path) -> Place:
    if (folder / NAME).exists():
        place = Place(folder, read(folder))
        unlike = _difference(place, plan)
        if unlike:
            raise ValueError(f"run.dir={folder} holds another series ({unlike}): name another folder")
        place.begin()
        return place
    for path in (folder, *(folder / member.name for member in plan.members())):
        if folders.state(path) is not State.NEW:
            raise ValueError(f"run.dir={folder}: {path} holds a run of no series: name another folder")
    return Place(folder)


def read(folder: Path) -> SeriesResult:
    """What series.json of a folder holds. Raises ValueError where it is missing or damaged."""
    made = cast(SeriesResult, record.read(folder / NAME, "series"))
    for row in made["runs"]:
        if row["value"] not in made["values"] or sinks.for_path(row["name"]) != row["name"]:
            raise ValueError(f"{folder / NAME}: damaged, its run {row['name']} is none of this series")
    return made


def write_page(folder: Path) -> Path:
    """Write report.html there. Raises ValueError where it is no series, damaged, or no epoch is finished."""
    made = read(folder)
    ended = sorted(made["runs"], key=lambda row: (made["values"].index(row["value"]), row["seed"]))
    paths = [folder / row["name"] for row in ended]
    runs = [finished.read(path) for path in paths if (path / "config.yaml").is_file()]
    return runs_page.write(runs, folder / "report.html", summary.verdict(made))


def _goes_on(place: Place, plan: Plan) -> bool:
    """Whether the same command was cut off there."""
    made = place.made
    assert made is not None
    same = (made["values"], made["seeds"]) == (list(plan.values), list(plan.seeds))
    return same and len(made["runs"]) < made["runs_planned"] and _difference(place, plan) is None


def _difference(place: Place, plan: Plan) -> str | None:
    """The first thing in which the series there is another one, in words; it may have fewer runs."""
    made = place.made
    assert made is not None
    stored = config.from_dict(made["config"], recipe=made["recipe"], origin=str(place.folder / NAME))
    old = {"recipe": made["recipe"], "sweep": made["setting"], **stored.flat()}
    new = {"recipe": plan.cfg.recipe, "sweep": plan.key, **plan.cfg.flat()}
    unlike = [key for key in new if new[key] != old[key] and key not in FREE]
    if unlike:
        return f"{unlike[0]}={old[unlike[0]]} there, {new[unlike[0]]} here"
    planned = {member.name for member in plan.members()}
    left_out = [row["name"] for row in made["runs"] if row["name"] not in planned]
    return f"its run {left_out[0]} is none of these" if left_out else None
