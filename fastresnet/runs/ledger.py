"""What a run has measured so far: its epochs, the best one, its clock; and the record that is made of them.

A checkpoint holds the ledger, so that a resumed run's record covers all sessions. Refuses to measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, cast

import torch

from fastresnet.machine import hardware, memory, meters
from fastresnet.machine.ceiling import matmul_ceiling
from fastresnet.machine.distributed import World
from fastresnet.models.flops import flops_per_image
from fastresnet.ranks import collectives
from fastresnet.reports.finished import Accuracy, Result, Row, Seconds
from fastresnet.runs import record
from fastresnet.training import arithmetic
from fastresnet.training.evaluation import Score
from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import EpochResult

# eval.best_on -> the column that it reads
CHOSEN_BY = {"validation": "val_accuracy", "test": "test_accuracy"}


@dataclass
class Best:
    """The best epoch so far by the split that eval.best_on names; `epoch` counts from 1."""

    accuracy: float | None = None
    epoch: int | None = None

    def improves(self, accuracy: float | None) -> bool:
        return accuracy is not None and (self.accuracy is None or accuracy > self.accuracy)


def _no_seconds() -> Seconds:
    return {"startup": 0.0, "compile": 0.0, "init": 0.0, "train": 0.0, "eval": 0.0, "wall": 0.0}


@dataclass
class Ledger:
    """The measurements of a run.

    part_seconds:  training seconds of the epoch that is under way, earlier sessions included
    continued:     whether an earlier session did a part, of whose energy nobody knows
    """

    experiment: Experiment
    history: list[Row] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    seconds: Seconds = field(default_factory=_no_seconds)
    part_seconds: float = 0.0
    continued: bool = False

    def trained(self, seconds: float) -> None:
        """So many seconds more went into training the epoch that is under way."""
        self.seconds["train"] += seconds
        self.part_seconds += seconds

    def finish_epoch(self, result: EpochResult, scores: Mapping[str, Score]) -> bool:
        """Add the row of an epoch, scored on the splits in `scores`. True where it is the best one so far."""
        experiment, none = self.experiment, Score(math.nan, math.nan)
        val, test = scores.get("val", none), scores.get("test", none)
        first = result.epoch * experiment.steps_per_epoch
        row: Row = {
            "epoch": result.epoch + 1,
            "step": result.step,
            "lr": result.lr,
            "train_loss": result.loss,
            "train_accuracy": result.accuracy,
            "val_loss": _number(val.loss),
            "val_accuracy": _number(val.accuracy),
            "test_loss": _number(test.loss),
            "test_accuracy": _number(test.accuracy),
            "seconds": self.part_seconds,
            "images_per_second": arithmetic.work(experiment, first, result.step).images / self.part_seconds,
        }
        self.history.append(row)
        self.part_seconds = 0.0
        accuracy = cast(dict[str, Any], row).get(CHOSEN_BY.get(experiment.cfg.eval.best_on, ""))
        if not self.best.improves(accuracy):
            return False
        self.best = Best(accuracy, row["epoch"])
        return True

    def seconds_left(self, limit: int) -> float:
        """Expected training seconds up to step `limit`, at the speed so far."""
        done = self.experiment.trainer.steps_done
        return self.seconds["train"] / max(done, 1) * (limit - done)

    def state_dict(self, since: float = 0.0) -> dict[str, Any]:
        """What a continuation needs: plain values. since: seconds of training that aren't entered yet."""
        return {
            "history": list(self.history),
            "best": asdict(self.best),
            "seconds": {**self.seconds, "train": self.seconds["train"] + since},
            "part_seconds": self.part_seconds + since,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; start-up and compiling are this session's own."""
        self.history, self.best = list(state["history"]), Best(**state["best"])
        self.part_seconds, before, self.continued = state["part_seconds"], state["seconds"], True
        self.seconds.update({"init": before["init"], "train": before["train"], "eval": before["eval"]})
        self.seconds["wall"] = before["init"] + before["train"] + before["eval"]

    def record(self, plain: Score, with_tta: Score | None, energy_joules: float | None) -> Result:
        """The record of the run, finished with these scores of the last weights on the test set."""
        experiment, cfg, place = self.experiment, self.experiment.cfg, self.experiment.place
        work = arithmetic.work(experiment, 0, experiment.trainer.steps_done)
        device, precision, seconds = experiment.device, experiment.precision, self.seconds
        peak = memory.peak_bytes(device)  # before the ceiling's matrices
        ceiling = rate_ceiling(device, precision.compute, tf32=precision.name == "tf32") * place.size
        return {
            "schema_version": record.SCHEMA_VERSION,
            "kind": "result",
            "recipe": cfg.recipe,
            "config": cfg.to_dict(),
            "seed": cfg.run.seed,
            "data": experiment.splits.info,
            "accuracy": self._accuracy(plain, with_tta),
            "loss": _number(plain.loss),
            "seconds": {**seconds},
            "images_per_second": work.images / seconds["train"],
            "parameters": sum(value.numel() for value in experiment.model.parameters()),
            "flops_per_image": flops_per_image(experiment.model, experiment.image_size),
            "mfu": work.flops / seconds["train"] / ceiling if ceiling else None,
            "peak_memory_bytes": peak,
            "energy_joules": None if self.continued else energy_joules,
            **hardware.circumstances(),
            "precision": precision.name,
            "device": device.type,
            "loader": experiment.loaders.name,
            "world_size": place.size,
            "steps": experiment.trainer.steps_done,
            "own": experiment.own.names(),
            "per_epoch": self.history,
        }

    def _accuracy(self, plain: Score, with_tta: Score | None) -> Accuracy:
        chosen = self.best.accuracy is not None
        return {
            "test": plain.accuracy,
            "test_tta": with_tta.accuracy if with_tta else None,
            "best": self.best.accuracy if self.best.accuracy is not None else plain.accuracy,
            "best_epoch": self.best.epoch or self.history[-1]["epoch"],
            "best_on": self.experiment.cfg.eval.best_on if chosen else "last weights",
        }


def joules_of_all(meter: meters.EnergyMeter, place: World) -> float | None:
    """What the GPUs of all processes took, or the one host on whose CPUs they run; None where unknown.

    Every process calls it.
    """
    if place.size == 1:
        return meter.joules
    if meter.device.type != "cuda":
        return meter.joules if place.local_size == place.size else None
    known = math.nan if meter.joules is None else meter.joules
    total = collectives.sum_over(torch.tensor(known, dtype=torch.float64, device=meter.device), place)
    return _number(float(total))


@cache
def rate_ceiling(device: torch.device, dtype: torch.dtype, *, tf32: bool) -> float:
    """The matrix-multiply rate of a device, FLOP/s, measured once a process: it takes seconds on a CPU."""
    return matmul_ceiling(device, dtype, tf32=tf32)


def _number(value: float) -> float | None:
    """None for what JSON has no word for."""
    return value if math.isfinite(value) else None
