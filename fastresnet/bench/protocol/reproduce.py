"""A record in the making: a fixed number of runs, each logged as it ends, beside rivals', turn by turn.

Refuses to choose among runs, to print, and to leave anything unfinished where records lie.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastresnet.base.sinks import slug
from fastresnet.bench import places
from fastresnet.bench.protocol import protocol, rival, runlog, start_up
from fastresnet.bench.protocol.beside import Seat
from fastresnet.bench.protocol.runlog import RunLog
from fastresnet.machine import hardware, timing
from fastresnet.machine.devices import choose_device
from fastresnet.machine.software import GitState
from fastresnet.series.rows import Row
from fastresnet.settings.config import Config
from fastresnet.settings.keys import COMMAND_LINE, DEFAULT

# What the protocol sets itself, and why another value is refused.
OWN_SETTINGS: dict[str, tuple[object, str]] = {
    "run.seed": (0, "the seeds of a record are 0 to n-1"),
    "run.dir": (None, "a record writes no run folders; --out names its own"),
    "run.resume": (None, "each run of a record starts from nothing; an interrupted record goes on by itself"),
    "run.loggers": ([], "a record's runs are logged in its runs.jsonl alone"),
    "run.save_checkpoints": (False, "a record keeps no weights"),
    "run.report": (False, "a record has one page for all runs"),
    "run.hang_after": (0, "nothing runs beside the clock of a record"),
    "eval.every": (0, "nothing is evaluated on the clock but what decides at the end"),
    "eval.best_on": ("none", "a record counts the last weights, never the best epoch's"),
    "model.pretrained": (None, "each run of a record starts from fresh weights"),
}
CHANGES_THE_RESULT = ("run.resume", "model.pretrained")  # refused in a recipe too


@dataclass(frozen=True)
class Ask:
    """What is asked of a record, beside the settings.

    runs:      fixed before the first
    target:    accuracy to exceed, a share
    versus:    rivals' commands
    turns:     of each rival, spread over the runs; at most as many
    seconds:   no turn begins that would probably end later than so long after the first; None: no limit
    parallel:  runs at once on one device
    starts:    time fresh processes up to the first run's clock, where runs are timed
    git:       commit and dirty of the code
    """

    runs: int
    target: float | None
    git: GitState
    versus: tuple[str, ...] = ()
    turns: int = 0
    seconds: float | None = None
    parallel: int = 1
    starts: bool = False


def own_settings(cfg: Config) -> Config:
    """The settings of a record. Raises ValueError for one that the protocol doesn't obey."""
    flat = cfg.flat()
    for key, (value, why) in OWN_SETTINGS.items():
        told = cfg.provenance[key]
        wrong = flat[key] != value and told != DEFAULT
        if wrong and (told == COMMAND_LINE or key in CHANGES_THE_RESULT):
            raise ValueError(f"{'--' if told == COMMAND_LINE else f'{told}: '}{key}: {why}: leave it out")
    return cfg.replace({key: value for key, (value, _) in OWN_SETTINGS.items()}, origin="the protocol")


def header_of(cfg: Config, ask: Ask, timed: bool) -> dict[str, Any]:
    """What has to stay the same over all runs, and the date."""
    return {
        "recipe": cfg.recipe,
        "config": learned(cfg),
        "commit": ask.git["commit"],
        "dirty": bool(ask.git["dirty"]),
        "runs": ask.runs,
        "target": ask.target,
        "versus": list(ask.versus),
        "turns": ask.turns,
        "machine": hardware.short_name(hardware.describe()),
        "torch": torch.__version__,
        "timed": timed,
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
    }


def learned(cfg: Config) -> dict[str, Any]:
    """The settings as a record keeps them: all but where files lie, which says nothing of the run."""
    kept = cfg.to_dict()
    for key in ("root", "train", "test", "betons"):
        kept["data"].pop(key)
    for key in ("dir", "resume", "progress"):
        kept["run"].pop(key)
    return kept


# ---- folders -----------------------------------------------------------------------------------------------


def folders(cfg: Config, out: Path | None, header: dict[str, Any]) -> tuple[Path, Path]:
    """Where the runs are logged, and where the finished record goes.

    Where records lie nothing unfinished does. Without `out`, an unfinished record that was begun with the
    same values is continued; else the record gets a name of its own.
    """
    if out is not None:
        inside = out.resolve().is_relative_to(places.RECORDS)
        return (places.UNFINISHED_RECORDS / out.name if inside else out), out
    on_cpu = choose_device(cfg.run.device).type == "cpu"
    device = hardware.short_name({"cpu": hardware.describe()["cpu"]}) if on_cpu else header["machine"]
    name = f"{cfg.recipe}-{slug(device)}" + ("-dirty" if header["dirty"] else "")
    for folder in sorted(places.UNFINISHED_RECORDS.glob(f"*-{name}*"), reverse=True):
        begun = (folder / runlog.NAME).exists() and runlog.difference(folder / runlog.NAME, header) is None
        if begun and not (folder / runlog.DIRTY).exists():
            return folder, places.RECORDS / folder.name
    homes, first = (places.UNFINISHED_RECORDS, places.RECORDS), f"{header['date']}-{name}"
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    fresh = next(each for each in names if not any((home / each).exists() for home in homes))
    return homes[0] / fresh, homes[1] / fresh


# ---- the runs ----------------------------------------------------------------------------------------------

Turn = tuple[str, int]  # who runs, and with which seed
Said = Callable[[str, Row, float], None]  # who, the row, seconds left


def order(ask: Ask) -> list[Turn]:
    """Who runs when: rivals before our first run, and then at even distances, as often as they have turns."""
    before = {turn * ask.runs // ask.turns: turn for turn in range(ask.turns)} if ask.turns else {}
    found: list[Turn] = []
    for seed in range(ask.runs):
        if seed in before:
            found += [(who, before[seed]) for who in rival.sides(ask.versus)]
        found.append((rival.OWN, seed))
    return found


class Making:
    """The runs of a record, from where its log stands to the last one, or until the time is up.

    log:  in the first of several processes alone, which take the runs as they are free
    """

    def __init__(self, ask: Ask, seat: Seat, log: RunLog | None) -> None:
        self.ask, self.seat, self.log = ask, seat, log
        self.prepared: protocol.Prepared | None = None
        self.turn: Turn | None = None
        self.until_now = timing.process_age()
        self.doing = "reading the data and warming up"
        self.longest, self.any_done = 0.0, False  # of all runs: seconds, and whether one of our own is done

    def where(self) -> str:
        """Where the record stands, for whoever watches."""
        if self.turn is not None and self.turn[0] != rival.OWN:
            return f"{self.turn[0]}, run {self.turn[1] + 1} of {self.ask.turns}"
        if self.turn is None or self.prepared is None:
            return self.doing
        if self.log is not None and self.seat.at_once > 1:
            return f"{len(self.log.of(rival.OWN))} of {self.ask.runs} runs done, {self.seat.at_once} at once"
        seed = self.turn[1]
        step, last = self.prepared.experiment.trainer.steps_done, self.prepared.last_step
        state = f"step {step} of {last}" if step < last else "evaluating"
        return f"seed {seed}, run {seed + 1} of {self.ask.runs}: {state}"

    def run(self, said: Said) -> protocol.Prepared:
        """All runs that are left. Rivals go first, so that one that can't run costs nothing."""
        if self.log is not None and not self.log.of(rival.OWN):
            self._try_rivals(self.log, said)
        if self.log is not None and self.ask.starts and self.seat.timed:
            self._time_starts(self.log)
        self.seat.table.of_each(None)  # the others wait: nothing works beside these starts
        prepared = self.prepare()
        info = prepared.experiment.splits.info
        self.seat.agree_on(info)
        if self.log is not None:
            digests = {"train": info["digest"], "test": info.get("test_digest")}
            self.log.hold_to("data", digests, "the data's digests")
        left, self.longest, self.any_done = self.seat.table.of_each(self._standing())[0]
        self.began = timing.now("cpu")
        counted = itertools.count(1)

        def heard(came: tuple[str, Row]) -> None:
            assert self.log is not None, "it is the first process that hears"
            self.log.add(*came)
            each = (timing.now("cpu") - self.began) / (done := next(counted))
            said(*came, each * (len(left) - done))

        self.seat.table.share(left, self._take, heard)
        return prepared

    def prepare(self) -> protocol.Prepared:
        """Ready for the first run; off its clock is all that this process has done for that."""
        self.prepared = protocol.prepare(self.seat.cfg)
        if self.until_now is not None:
            started = {"start": self.until_now}
            self.prepared.off_clock_seconds = started | self.prepared.off_clock_seconds
        return self.prepared

    def _time_starts(self, log: RunLog) -> None:
        """Once for a record, however often it goes on."""
        if "start_up_s" not in log.header:
            before, self.doing = self.doing, "starting anew, with cold and with warm caches"
            log.hold_to("start_up_s", start_up.cold_and_warm(self.seat.cfg), "the start-up")
            self.doing = before

    def _standing(self) -> tuple[list[Turn], float, bool]:
        """Of the log: the turns that are left, seconds of the longest one, whether one of ours is done."""
        if self.log is None:
            return [], 0.0, False
        logged = [row["seconds"]["total"] or 0.0 for _, row in self.log.rows]
        left = [turn for turn in order(self.ask) if not self.log.done(*turn)]
        return left, max(logged, default=0.0), bool(self.log.of(rival.OWN))

    def _try_rivals(self, log: RunLog, said: Said) -> None:
        """Each rival's first run. ValueError where one fails, which isn't logged: the next try is free."""
        for who, command in rival.sides(self.ask.versus).items():
            if log.done(who, 0):
                continue
            self.turn = (who, 0)
            row = rival.run(command, 0)
            if row["status"] == "failed":
                raise ValueError(f"--versus: {command!r} failed in its first run ({row['message']})")
            log.add(who, row)
            said(who, row, 0.0)
        self.turn = None

    def _take(self, turn: Turn) -> Iterator[tuple[str, Row]]:
        """One turn, unless it would probably end too late."""
        assert self.prepared is not None
        started = timing.now("cpu")
        late = self.ask.seconds is not None and started - self.began + self.longest > self.ask.seconds
        if late and self.any_done:
            return
        self.turn = who, seed = turn
        if who == rival.OWN:
            row = protocol.run_once(self.prepared, seed, timed=self.seat.timed)
        else:
            row = rival.run(rival.sides(self.ask.versus)[who], seed)
        if self.seat.at_once > 1:
            row["condition"] = {**row.get("condition", {}), "runs_at_once": self.seat.at_once}
        self.longest = max(self.longest, timing.now("cpu") - started)
        self.any_done |= who == rival.OWN
        yield who, row
