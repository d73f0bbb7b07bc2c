"""One run of a recipe under the clock of the measuring protocol. Writes no files.

On the clock: fresh weights, whitening, augmentation, training, and the evaluation that decides success. Off
it: start-up, reading the data, compiling and warming up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import torch

from fastresnet import models
from fastresnet.data import Splits
from fastresnet.loading import Batch
from fastresnet.machine import memory, meters, timing
from fastresnet.machine.ceiling import matmul_ceiling
from fastresnet.series.rows import Row
from fastresnet.settings.config import Config
from fastresnet.training import arithmetic, trainer
from fastresnet.training.experiment import Experiment
from fastresnet.watching import fitting

CLOCK = {
    "on": "fresh weights, whitening, augmentation, training, the test evaluation that decides success",
    "off": "start-up, reading the data and its upload, compiling, a discarded run on random labels",
    "how": "monotonic clock, with a synchronise of the device on both sides",
}
# Of each kind: the first finds no optimizer state, a captured one runs twice before its capture.
WARM_STEPS = 3


@dataclass
class Prepared:
    """A recipe ready to run: the experiment, warm, and what that took off the clock.

    last_step:  steps of a run (train.max_steps obeyed)
    flops:      of one image's forward pass, and of a run's training
    ceiling:    FLOP/s of large matrix products in the training dtype, measured here
    """

    experiment: Experiment
    last_step: int
    off_clock_seconds: dict[str, float]
    flops: dict[str, float]
    ceiling: float


def prepare(cfg: Config, splits: Splits | None = None) -> Prepared:
    """Build and warm up. Raises ValueError that says what would fit where memory runs out."""
    began = timing.now("cpu")
    experiment = Experiment(cfg, splits=splits)
    device, precision = experiment.device, experiment.precision
    last_step = min(cfg.train.max_steps or experiment.total_steps, experiment.total_steps)
    built = timing.now(device)
    if short := _rehearsed(experiment, last_step):
        splits = experiment.splits
        experiment.close()
        del experiment  # and what it holds: the trials need the room
        raise ValueError(f"{cfg.recipe}: {short}; {fitting.advice(cfg, fitting.parts_that_fit(cfg, splits))}")
    seconds = {
        "data": experiment.data_seconds,
        "build": built - began - experiment.data_seconds,
        "warm_up": timing.now(device) - built,
    }
    flops = {
        "forward": float(models.flops_per_image(experiment.model, experiment.image_size)),
        "train": arithmetic.work(experiment, 0, last_step).flops,
    }
    ceiling = matmul_ceiling(device, precision.compute, tf32=precision.name == "tf32")
    memory.reset_peak(device)  # its matrices are no part of a run
    return Prepared(experiment, last_step, seconds, flops, ceiling)


def _rehearsed(experiment: Experiment, last_step: int) -> str:
    """`rehearse`; where memory runs out what was tried, in words."""
    try:
        rehearse(experiment, last_step)
        return ""
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        return fitting.tried(experiment.cfg, error)


def rehearse(experiment: Experiment, last_step: int) -> None:
    """A run on random labels, to be discarded: every kind of step a few times, then the whole evaluation.

    What is compiled, captured or allocated on first use is so now. `run_once` begins with a reset.
    """
    experiment.initialise()
    experiment.model.train()
    classes = len(experiment.splits.class_names)
    for epoch, steps in first_of_each_kind(experiment, last_step).items():
        with closing(experiment.batches(epoch)) as batches:
            numbered = zip(range(epoch * experiment.steps_per_epoch, max(steps) + 1), batches)
            for step, (images, labels) in numbered:
                if step in steps:
                    experiment.trainer.steps_done = step
                    experiment.trainer.step(images, torch.randint_like(labels, classes))
    for split in experiment.eval_loaders:
        experiment.evaluate(split, tta=experiment.cfg.eval.tta)
    timing.synchronize(experiment.device)


def first_of_each_kind(experiment: Experiment, last_step: int) -> dict[int, list[int]]:
    """Epoch -> those of its steps that are among the first WARM_STEPS of their kind.

    Kinds differ in the images' size and number, in what is frozen, and in whether the epoch is the first.
    """
    found: dict[int, list[int]] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for step in range(last_step):
        epoch = step // experiment.steps_per_epoch
        kind = (*experiment.batch_of(step), experiment.trainer.kind_at(step), min(epoch, 1))
        seen[kind] += 1
        if seen[kind] <= WARM_STEPS:
            found.setdefault(epoch, []).append(step)
    return found


# ---- a run -------------------------------------------------------------------------------------------------


def run_once(prepared: Prepared, seed: int, *, timed: bool = True, split: str = "test") -> Row:
    """One run with its own seed, from fresh weights to the last ones, judged by `split`.

    A diverged run comes back as status "failed", never as an exception; `timed` false keeps no seconds.
    """
    experiment, tta = prepared.experiment, prepared.experiment.cfg.eval.tta
    decides: Literal["accuracy", "accuracy_tta"] = "accuracy" if tta == "none" else "accuracy_tta"
    row: Row = {"seed": seed, "status": "ok", "accuracy": None, "accuracy_tta": None}
    augmenting = 0.0
    with meters.EnergyMeter(experiment.device) as energy:
        clock = timing.Stopwatch(experiment.device)
        experiment.reset(seed)
        experiment.initialise()
        clock.lap("init")
        try:
            augmenting = _train(experiment, prepared.last_step)
            clock.lap("train")
            row[decides] = experiment.evaluate(split, tta=tta).accuracy
            clock.lap("eval")
        except trainer.Diverged as error:
            clock.lap("train")
            row["status"], row["message"] = "failed", str(error)
    row["seconds"] = _seconds(clock, augmenting) if timed else {"total": None}
    row["energy_joules"] = energy.joules if timed else None
    row["condition"] = meters.condition(experiment.device)
    if row["status"] == "failed":  # somewhere in the middle: how much it did isn't known
        return row
    row["mfu"] = prepared.flops["train"] / clock.seconds["train"] / prepared.ceiling if timed else None
    if tta != "none":  # decides nothing, so it is off the clock
        row["accuracy"] = experiment.evaluate(split, tta="none").accuracy
    return row


def _train(experiment: Experiment, last_step: int) -> float:
    """All steps of a run; the host's seconds that went into making batches.

    A GPU is read from once, at the end: the host draws the next epoch while it still works at this one. Where
    there is nothing to hide so, a loss that is no number ends the run with its epoch.
    """
    batches, epochs = _Clocked(), -(-last_step // experiment.steps_per_epoch)
    together = epochs if experiment.device.type == "cuda" else 1
    for first in range(0, epochs, together):
        some = range(first, min(first + together, epochs))
        with closing(_of_epochs(experiment, some)) as made:
            experiment.trainer.fit_epoch(batches.of(made), some[-1], limit=last_step)
    return batches.seconds


def _of_epochs(experiment: Experiment, epochs: range) -> Generator[Batch, None, None]:
    for epoch in epochs:
        yield from experiment.batches(epoch)


class _Clocked:
    """Hands batches on and adds up the host's seconds spent on making them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            began = timing.now("cpu")
            batch = next(batches, None)
            self.seconds += timing.now("cpu") - began
            if batch is None:
                return
            yield batch


def _seconds(clock: timing.Stopwatch, augmenting: float) -> dict[str, float | None]:
    """The laps and their sum. On a CPU augmentation has its own; elsewhere it overlaps with the step."""
    seconds: dict[str, float | None] = {**clock.seconds, "total": sum(clock.seconds.values())}
    if torch.device(clock.device or "cpu").type == "cpu":
        seconds |= {"augment": augmenting, "train": clock.seconds["train"] - augmenting}
    return seconds
