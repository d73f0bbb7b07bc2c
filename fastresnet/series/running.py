"""The runs of a series, one after the other, from where its folder stands to the last one.

A run has its own folder inside the series', as if it were trained alone: the same command goes on with the
runs that are left, and inside the one that was cut off.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastresnet import data as datasets
from fastresnet.base import words
from fastresnet.base.exits import Interrupted
from fastresnet.data import Splits
from fastresnet.machine import timing
from fastresnet.reports import telling
from fastresnet.reports.finished import Result
from fastresnet.runs import folder as folders
from fastresnet.runs import record, start
from fastresnet.runs.callbacks import Callback, Callbacks
from fastresnet.runs.folder import State
from fastresnet.runs.progress import Progress
from fastresnet.series import place, summary
from fastresnet.series import plan as plans
from fastresnet.series.place import Place
from fastresnet.series.plan import Member, Plan
from fastresnet.series.summary import Ran, SeriesResult
from fastresnet.settings.config import Config
from fastresnet.settings.sections import Data
from fastresnet.training.trainer import Diverged
from fastresnet.watching.fitting import OutOfMemory


@dataclass(frozen=True)
class Series:
    """A finished series: its folder, and what series.json there holds."""

    dir: Path
    record: SeriesResult


def train_series(
    settings: str | Path | Config = start.DEFAULT_RECIPE,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    seeds: int | None = None,
    sweep: Mapping[str, Sequence[object]] | None = None,
    model: nn.Module | Callable[[int, int], nn.Module] | None = None,
    data: object = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Series:
    """Train several runs, one after the other, and return what they say together.

    seeds:  how many, from 0 on; None: the one that run.seed says
    sweep:  one setting and its values, each with all seeds: {"optim.lr": [0.05, 0.1, 0.2]}
    The others are those of `train`; callbacks see every run, and a network that is handed in begins each.
    A run that diverges counts as failed and the others go on, as with a value that memory is too small for.
    Called again, what was cut off goes on.
    Raises ValueError for input that can't work, Interrupted on Ctrl-C.
    """
    plan = plans.plan(start.settled(settings, overrides), seeds, sweep)
    if model is not None and plan.key is not None and plan.key.startswith("model."):
        raise ValueError(f"sweep of {plan.key}: a network that is handed in reads no settings")
    cfg, given = start.with_data(plan.cfg, data)
    plan = Plan(cfg, plan.seeds, plan.key, plan.values)
    train = functools.partial(start.train, model=model, loss=loss, augment=augment)
    return Running(plan, place.find(plan), train, callbacks, data if given else None).run()


class _Begun(Callback):
    """Calls `then` when a run has its folder: what can't run leaves nothing on the disk."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def on_run_begin(self, folder: Path | None) -> None:
        self.then()


class Running:
    """A series under way; `given` is data that the caller holds in memory."""

    def __init__(
        self,
        plan: Plan,
        home: Place,
        train: Callable[..., start.Run],
        callbacks: Sequence[Callback],
        given: object,
    ) -> None:
        self.plan, self.home, self.train, self.given = plan, home, train, given
        self.callbacks = [_Begun(self._begin), *Callbacks(callbacks).parts]
        self.progress = Progress(plan.cfg.run.progress)
        self.rows: list[Ran] = list(home.made["runs"]) if home.made else []
        self._read: tuple[Data, Splits] | None = None  # the data that these settings ask for

    def run(self) -> Series:
        """All runs that are left."""
        members = self.plan.members()
        done = {row["name"] for row in self.rows}
        left = [member for member in members if member.name not in done]
        if done:
            self.progress.note(f"{len(done)} of {len(members)} runs done before, in {self.home.folder}")
        try:
            self._run(left, len(members))
        except KeyboardInterrupt:
            counted = f"{len(self.rows)} of {len(members)} runs done"
            raise Interrupted(f"interrupted, {counted}; the same command goes on") from None
        finally:
            self.home.close()
        return self._finish()

    def _run(self, left: Sequence[Member], planned: int) -> None:
        began = timing.now("cpu")
        for done, member in enumerate(left):
            what = f"{self.plan.key}={member.value}, " if self.plan.key else ""
            each = (timing.now("cpu") - began) / max(done, 1)
            rest = f", left about {words.duration(each * (len(left) - done))}" if done else ""
            self.progress.note(f"run {len(self.rows) + 1} of {planned}: {what}seed {member.seed}{rest}")
            self.rows.append(self._one(member))
            self._keep()

    def _one(self, member: Member) -> Ran:
        folder = self.home.folder / member.name
        if folders.state(folder) is State.FINISHED:  # killed before the series took note of it
            return summary.row_of(member, cast(Result, record.read(folder / "result.json", "result")))
        cfg = member.cfg.replace({"run.dir": str(folder)}, origin=plans.ORIGIN)
        splits = self._data(cfg)
        _forget_the_last_run(cfg)
        try:
            run = self.train(cfg, data=splits, callbacks=self.callbacks)
        except (Diverged, OutOfMemory) as error:
            if isinstance(error, OutOfMemory) and self.plan.key is None:
                raise  # every seed would find as little
            self.progress.note(f"{member.name} failed: {error}")
            return summary.row_of(member, None, str(error))
        assert run.record is not None, "a series has one process"
        return summary.row_of(member, run.record)

    def _data(self, cfg: Config) -> Splits:
        """Read once for all runs that ask for the same."""
        if self._read is None or self._read[0] != cfg.data:
            given = start.with_data(cfg, self.given)[1]
            self._read = cfg.data, given or datasets.prepare(cfg, self.progress.note)
        return self._read[1]

    def _begin(self) -> None:
        if self.home.begin():
            self._keep()

    def _keep(self) -> None:
        """series.json and the page, as far as the runs are."""
        if self._read is not None:
            info = self._read[1].info
        else:
            assert self.home.made is not None, "what went before has its data, too"
            info = self.home.made["data"]
        made = self.home.made = summary.assemble(self.plan, self.rows, info)
        record.write(self.home.folder / place.NAME, made)
        if self.plan.cfg.run.report and any(row["status"] == "ok" for row in self.rows):
            place.write_page(self.home.folder)

    def _finish(self) -> Series:
        made = self.home.made
        assert made is not None, "the last run was kept"
        self.progress.note(f"series in {self.home.folder}")
        listed = self.plan.key and not self.progress.out.isatty()  # a terminal's command ends with the table
        for line in [*(summary.table(made) if listed else []), telling.line(made)]:
            self.progress.say(line)
        return Series(self.home.folder, made)


def _forget_the_last_run(cfg: Config) -> None:
    """Its memory, and its compiled steps, of which PyTorch keeps no more than a few."""
    gc.collect()
    if cfg.train.compile != "off":
        torch.compiler.reset()
