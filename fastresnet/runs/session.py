"""One call of `train`, between the first step and the last file. `start.train` is the way in.

Trains an Experiment epoch by epoch and answers a signal with a checkpoint that continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastresnet.base.exits import Interrupted, StopRequest
from fastresnet.data import Pictures, Splits
from fastresnet.machine import meters, timing
from fastresnet.machine.distributed import World
from fastresnet.ranks.collectives import Vote
from fastresnet.reports import plots, telling
from fastresnet.reports.finished import Predictions, Result, Row
from fastresnet.runs import folder as folders
from fastresnet.runs import loggers
from fastresnet.runs.callbacks import Callback, Callbacks
from fastresnet.runs.folder import RunFolder
from fastresnet.runs.keeping import Keeper
from fastresnet.runs.ledger import Ledger, joules_of_all
from fastresnet.runs.progress import Progress
from fastresnet.settings.config import Config
from fastresnet.training import evaluation
from fastresnet.training.evaluation import Score
from fastresnet.training.experiment import Experiment, compile_kernels
from fastresnet.training.own import NOTHING, Own
from fastresnet.training.trainer import Diverged, EpochResult, Trainer
from fastresnet.watching import divergence, fitting
from fastresnet.watching.hang import Watchdog


@dataclass(frozen=True)
class Run:
    """A finished run.

    dir:          its folder
    record:       what result.json holds; None in all processes but the first
    model:        the trained network in evaluation mode, on the device it was trained on
    history:      a row an epoch (the record's `per_epoch`)
    class_names:  one a class, in label order
    """

    dir: Path
    record: Result | None
    model: nn.Module
    history: list[Row]
    class_names: tuple[str, ...]

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.dir / folders.LAST

    def plot(self) -> Path:
        """Draw loss and accuracy over the epochs; returns the picture's path."""
        return plots.curves(self.history, self.dir / "plots" / "curves.png")


@dataclass(frozen=True)
class Handed:
    """What a caller of `train` hands in beside settings: data, parts of the experiment, callbacks."""

    splits: Splits | None = None
    own: Own = NOTHING
    callbacks: Sequence[Callback] = ()


class Session:
    """The state of one call of `train`.

    payload:  of the checkpoint to go on from, or None
    where:    the run's folder where it is that checkpoint's own, None for a new one
    began:    `timing.now` when the call began
    """

    def __init__(
        self,
        cfg: Config,
        place: World,
        progress: Progress,
        payload: Mapping[str, Any] | None,
        where: Path | None,
        began: float,
        handed: Handed = Handed(),
    ) -> None:
        self.cfg, self.place, self.progress = cfg, place, progress
        self.payload, self.where, self.began, self.handed = payload, where, began, handed
        self.callbacks = Callbacks(handed.callbacks)
        self.predictions: tuple[Tensor, Tensor] | None = None  # of the test set, newest
        self.record: Result | None = None  # until the run is finished
        self.folder: RunFolder | None = None  # in the first process
        self.logs: list[loggers.Logger] = []

    def run(self) -> Run:
        """Everything. Raises Interrupted after a signal, with all that continuing needs on the disk."""
        handed, note = self.handed, self.progress.note
        with self.progress.busy("getting data and network ready"):
            self.experiment = Experiment(self.cfg, self.place, handed.splits, note, handed.own)
        self.ledger = Ledger(self.experiment)
        try:
            self._open()
            where = self.folder.path / "checkpoints" if self.folder else None
            self.keeper = Keeper(self.experiment, self.ledger, where, self.progress.banner)
            self.ledger.seconds["startup"] = self._since_began()
            with StopRequest() as self.stop:
                with self.progress.busy("warming up"):
                    self._warm_up()
                    self._begin()
                try:
                    with meters.EnergyMeter(self.experiment.device) as energy, self.watchdog:
                        self._epochs()
                except Diverged as error:
                    self.progress.note("not finite any more: looking for where it began ...")
                    raise divergence.traced(error, self.experiment, self.keeper.rewind, self.stop) from None
                self.stop.answer = "the last step is done, the run is finishing; again to stop now"
                with self.progress.busy("evaluating the last weights, writing the record"):
                    return self._finish(joules_of_all(energy, self.place))
        finally:
            self._close()

    # ---- before the first step -----------------------------------------------------------------------------

    def _open(self) -> None:
        self.stop_vote = Vote(self.place)
        if not self.place.is_main:
            return
        warn = self.progress.banner
        self.folder = RunFolder.of(self.cfg, self.where, warn)
        self.cfg.dump(self.folder.path / "config.yaml")
        self.progress.note(f"run folder {self.folder.path}")
        if risk := fitting.warning(self.experiment):
            warn(risk)
        self.logs = loggers.open_all(self.cfg.run.loggers, self.folder.path, self.cfg)

    def _warm_up(self) -> None:
        experiment, options = self.experiment, self.experiment.trainer.options
        if options.compile == "off" and not options.cuda_graph:
            compile_kernels(experiment)
        else:
            self.progress.note(f"compiling the step ({options.compile}, cuda_graph={options.cuda_graph}) ...")
            experiment.warm_up()
        self.ledger.seconds["compile"] = self._since_began() - self.ledger.seconds["startup"]

    def _begin(self) -> None:
        experiment = self.experiment
        if self.payload is None:
            clock = timing.Stopwatch(experiment.device)
            experiment.initialise()
            self.ledger.seconds["init"] = clock.lap("init")
        else:
            origin = str(self.cfg.run.resume or self.where)
            self.keeper.restore(self.payload, origin)
            step = experiment.trainer.steps_done
            self.progress.note(_going_on(self, origin))
            if self.folder:
                self.folder.finished(step)
        self.limit = min(self.cfg.train.max_steps or experiment.total_steps, experiment.total_steps)
        where = self.folder.path if self.folder else None
        self.callbacks.call("on_run_begin", where)
        self.watchdog = Watchdog(self.cfg.run.hang_after, where, lambda: _how_far(self))
        experiment.on_batch = self.watchdog.beat

    # ---- training ------------------------------------------------------------------------------------------

    def _epochs(self) -> None:
        experiment, trainer = self.experiment, self.experiment.trainer
        per_epoch = experiment.steps_per_epoch
        self.progress.start(
            epochs=self.cfg.train.epochs,
            total_steps=self.limit,
            batch_size=self.cfg.train.batch_size,
            first_step=trainer.steps_done,
            advise=experiment.device.type == "cpu",
        )
        while trainer.steps_done < self.limit:
            self.epoch_began = timing.now(experiment.device)
            epoch = trainer.steps_done // per_epoch
            result = experiment.fit_epoch(epoch, limit=self.limit, on_step=self._after_step)
            self.ledger.trained(result.seconds)
            trainer.check(epoch)
            whole = trainer.steps_done % per_epoch == 0 or trainer.steps_done == experiment.total_steps
            stopped = self.stop_vote.settle(self.stop.asked)
            if not whole:  # a continuation finishes the epoch: what is kept has no row of it
                self.keeper.keep_last()
            if whole or not stopped:
                self._finish_epoch(result, last=trainer.steps_done == self.limit)
            if whole:
                self.keeper.keep_last()
            if stopped and trainer.steps_done < self.limit:
                self.keeper.flush()
                self.progress.silent = True  # what is said from here on is the one line of the error
                raise Interrupted(f"interrupted at {_how_far(self)}")

    def _after_step(self, trainer: Trainer) -> bool:
        self.watchdog.beat()
        epoch = self.experiment.epoch
        loss = _running_loss(trainer, epoch) if self.progress.peek else None
        self.progress.step(epoch, trainer.steps_done, loss)
        stop, keep, end = self.stop_vote.cast(self.stop.asked, self.keeper.due(), self.callbacks.ending)
        if keep and not stop and trainer.steps_done % self.experiment.steps_per_epoch:
            self.keeper.keep_last(since=timing.now(self.experiment.device) - self.epoch_began)
        self.callbacks.call("on_step_end", trainer)
        if end or (self.callbacks.ending and self.place.size == 1):
            self.limit = trainer.steps_done
        return stop or trainer.steps_done == self.limit

    def _finish_epoch(self, result: EpochResult, *, last: bool) -> None:
        every, self.predictions = self.cfg.eval.every, None
        scores: dict[str, Score] = {}
        if last or (every and (result.epoch + 1) % every == 0):
            clock = timing.Stopwatch(self.experiment.device)
            with self.progress.busy("evaluating"):
                answers = {name: self.experiment.predict(name) for name in self.experiment.eval_loaders}
            self.predictions = answers.get("test")
            scores = {name: evaluation.score(*both) for name, both in answers.items()}
            self.ledger.seconds["eval"] += clock.lap("eval")
        best = self.ledger.finish_epoch(result, scores)
        row = self.ledger.history[-1]
        self.progress.epoch(row, self.ledger.seconds_left(self.limit))
        if self.folder:
            self.folder.write_rows(self.ledger.history)
        for log in self.logs:
            log.epoch(row)
        if best:
            self.keeper.keep_best()
        if self.stop_vote.settle(self.callbacks.call("on_epoch_end", row)):
            self.limit = self.experiment.trainer.steps_done

    # ---- after the last step -------------------------------------------------------------------------------

    def _finish(self, energy_joules: float | None) -> Run:
        experiment, cfg = self.experiment, self.cfg
        clock = timing.Stopwatch(experiment.device)
        logits_NK, labels_N = self.predictions or experiment.predict("test")
        plain = evaluation.score(logits_NK, labels_N)
        with_tta = experiment.evaluate("test", tta=cfg.eval.tta) if cfg.eval.tta != "none" else None
        self.ledger.seconds["eval"] += clock.lap("eval")
        model = experiment.averaged_model or experiment.model
        names = experiment.splits.class_names
        if self.folder:
            if not self.folder.checkpoint("best").exists():
                self.keeper.keep_best()
            self.keeper.flush()
            self.ledger.seconds["wall"] += self._since_began()
            stored = self.folder.finished(experiment.trainer.steps_done)
            self.record = stored or self.ledger.record(plain, with_tta, energy_joules)
            images = Pictures(experiment.splits.test, cfg.data.label_field)
            answers = Predictions(logits_NK.cpu().numpy(), labels_N.cpu().numpy(), tuple(names), images)
            self.progress.say(telling.line(self.record))
            self.keeper.insist()
            self.folder.write_result(self.record, answers, report=cfg.run.report)
            self.progress.note(f"results in {self.folder.path}")
        self.callbacks.call("on_run_end", self.record)
        path = self.folder.path if self.folder else Path()
        return Run(path, self.record, model.eval(), self.ledger.history, tuple(names))

    def _since_began(self) -> float:
        return timing.now(self.experiment.device) - self.began

    def _close(self) -> None:
        self.experiment.close()
        if hasattr(self, "keeper"):
            self.keeper.close()
        for log in self.logs:
            log.close(self.record)
        if self.folder:
            self.folder.close()


def _going_on(session: Session, origin: str) -> str:
    """From where, and whether otherwise than an uninterrupted run would."""
    assert session.payload is not None
    experiment, now = session.experiment, session.place.size
    told = f"continuing {origin} at step {experiment.trainer.steps_done} of {experiment.total_steps}"
    before = session.payload.get("processes", now)
    if before == now:
        return told
    return f"{told}, with {now} in place of {before} processes: the same batches, not the same bits"


def _running_loss(trainer: Trainer, epoch: int) -> float:
    """The mean loss of the epoch so far. Raises Diverged where it isn't finite."""
    loss_sum, _, images = trainer.totals.tolist()
    if trainer.place.size == 1 and not math.isfinite(loss_sum):  # of several processes none may leave alone
        trainer.check(epoch)
    return float(loss_sum / max(images, 1.0))


def _how_far(session: Session) -> str:
    """The last step that was done, and how the run goes on from what is kept of it."""
    told = f"step {session.experiment.trainer.steps_done}"
    return f"{told}; {session.folder.way_on()}" if session.folder else told
