"""A record in the making: a fixed number of runs, each logged as it ends, beside a rival's, turn by turn.

Refuses to choose among runs, to print, and to leave anything unfinished where records lie.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import itertools
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fastresnet.base.sinks import slug
from fastresnet.bench import places
from fastresnet.bench.protocol import protocol, rival, runlog
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
    versus:    a rival's command
    seconds:   no turn begins that would probably end later than so long after the first; None: no limit
    parallel:  runs at once; more than one measures no times
    git:       commit and dirty of the code
    """

    runs: int
    target: float | None
    git: GitState
    versus: str | None = None
    seconds: float | None = None
    parallel: int = 1


def own_settings(cfg: Config) -> Config:
    """The settings of a record. Raises ValueError for one that the protocol doesn't obey."""
    flat = cfg.flat()
    for key, (value, why) in OWN_SETTINGS.items():
        told = cfg.provenance[key]
        wrong = flat[key] != value and told != DEFAULT
        if wrong and (told == COMMAND_LINE or key in CHANGES_THE_RESULT):
            raise ValueError(f"{'--' if told == COMMAND_LINE else f'{told}: '}{key}: {why}: leave it out")
    return cfg.replace({key: value for key, (value, _) in OWN_SETTINGS.items()}, origin="the protocol")


def header_of(cfg: Config, ask: Ask) -> dict[str, Any]:
    """What has to stay the same over all runs, and the date."""
    return {
        "recipe": cfg.recipe,
        "config": learned(cfg),
        "commit": ask.git["commit"],
        "dirty": bool(ask.git["dirty"]),
        "runs": ask.runs,
        "target": ask.target,
        "versus": ask.versus,
        "machine": hardware.short_name(hardware.describe()),
        "torch": torch.__version__,
        "timed": ask.parallel == 1,
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

Who = Literal["own", "rival"]
Said = Callable[[Who, Row, float], None]  # who, the row, seconds left


class Making:
    """The runs of a record, from where its log stands to the last one, or until the time is up."""

    def __init__(self, cfg: Config, ask: Ask, log: RunLog) -> None:
        self.cfg, self.ask, self.log = cfg, ask, log
        self.prepared: protocol.Prepared | None = None
        self.turn: tuple[Who, int] | None = None

    def where(self) -> str:
        """Where the record stands, for whoever watches."""
        if self.turn is not None and self.turn[0] == "rival":
            return f"rival, run {self.turn[1] + 1} of {self.ask.runs}"
        if self.turn is None or self.prepared is None:
            return "reading the data and warming up"
        seed = self.turn[1]
        if self.ask.parallel > 1:
            return f"{len(self.log.of('own'))} of {self.ask.runs} runs done, {self.ask.parallel} at once"
        step, last = self.prepared.experiment.trainer.steps_done, self.prepared.last_step
        state = f"step {step} of {last}" if step < last else "evaluating"
        return f"seed {seed}, run {seed + 1} of {self.ask.runs}: {state}"

    def run(self, said: Said) -> protocol.Prepared:
        """All runs that are left. The rival goes first, so that one that can't run costs nothing."""
        turns = [(who, seed) for seed in range(self.ask.runs) for who in self._sides()]
        left = [turn for turn in turns if not self.log.done(*turn)]
        if self.ask.versus and len(left) == len(turns):
            self._try_rival(said)
            left = left[1:]
        self.prepared = protocol.prepare(self.cfg)
        if self.ask.parallel > 1:
            self._run_in_parallel([seed for _, seed in left], said)
        else:
            self._run_in_turn(left, said)
        return self.prepared

    def _sides(self) -> tuple[Who, ...]:
        return ("rival", "own") if self.ask.versus else ("own",)

    def _try_rival(self, said: Said) -> None:
        """The rival's first run. Raises ValueError where it fails, and logs nothing: the next try is free."""
        self.turn = ("rival", 0)
        row = rival.run(str(self.ask.versus), 0)
        if row["status"] == "failed":
            raise ValueError(f"--versus: {self.ask.versus!r} failed in its first run ({row['message']})")
        self.log.add("rival", row)
        said("rival", row, 0.0)

    def _run_in_turn(self, left: list[tuple[Who, int]], said: Said) -> None:
        assert self.prepared is not None
        logged = [row["seconds"]["total"] for row in (*self.log.of("own"), *self.log.of("rival"))]
        began, longest = timing.now("cpu"), max((taken or 0.0 for taken in logged), default=0.0)
        for done, (who, seed) in enumerate(left, 1):
            started = timing.now("cpu")
            late = self.ask.seconds is not None and started - began + longest > self.ask.seconds
            if late and self.log.of("own"):
                return
            self.turn = who, seed
            if who == "own":
                row = protocol.run_once(self.prepared, seed, timed=self.ask.parallel == 1)
            else:
                row = rival.run(str(self.ask.versus), seed)
            self.log.add(who, row)
            now = timing.now("cpu")
            longest = max(longest, now - started)
            said(who, row, (now - began) / done * (len(left) - done))

    def _run_in_parallel(self, seeds: list[int], said: Said) -> None:
        """Processes share the device; each has its own experiment and takes the next seed when it is free."""
        workers = min(self.ask.parallel, max(1, len(seeds)))
        on_cpu = choose_device(self.cfg.run.device).type == "cpu"
        share = max(1, torch.get_num_threads() // self.ask.parallel) if on_cpu else 0
        shared = self.cfg.replace({"run.threads": self.cfg.run.threads or share}, origin="--parallel")
        began, self.turn = timing.now("cpu"), ("own", 0)
        context = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, _begin_worker, (shared,))
        try:
            waiting = [pool.submit(_run_in_worker, seed) for seed in seeds]
            for done, future in enumerate(concurrent.futures.as_completed(waiting), 1):
                self.log.add("own", future.result())
                said("own", future.result(), (timing.now("cpu") - began) / done * (len(seeds) - done))
        finally:
            pool.shutdown(cancel_futures=True)


_worker: list[protocol.Prepared] = []  # of a process of the pool: made once, used for all its seeds


def _begin_worker(cfg: Config) -> None:
    _worker.append(protocol.prepare(cfg))


def _run_in_worker(seed: int) -> Row:
    return protocol.run_once(_worker[0], seed, timed=False)
