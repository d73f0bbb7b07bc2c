"""One run of a recipe under the clock of the measuring protocol, and the same for a rival's command. Writes
no files.

On the clock: fresh weights, whitening, augmentation, training, and the evaluation that decides success. Off
it: start-up, reading the data, compiling and warming up.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fastresnet import models
from fastresnet.machine import hardware, timing
from fastresnet.settings.config import Config
from fastresnet.training import trainer
from fastresnet.training.experiment import Experiment

CLOCK = {
    "on": "fresh weights, whitening, augmentation, training, the test evaluation that decides success",
    "off": "start-up, reading the data and its upload, compiling, warm-up on random images and labels",
    "how": "monotonic clock, with a synchronise of the device on both sides",
}
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass
class Prepared:
    """A recipe ready to run: the experiment, warm, and what that took off the clock."""

    experiment: Experiment
    off_clock_seconds: dict[str, float]
    flops: dict[str, float]
    ceiling: float  # FLOP/s of large matrix products in the training dtype, measured here


def prepare(cfg: Config, splits: Any = None) -> Prepared:
    """Build and warm up. Raises ValueError that names the batch which would fit where memory runs out."""
    began = timing.now("cpu")
    experiment = Experiment(cfg, splits=splits)
    device = experiment.device
    built = timing.now(device)
    try:
        experiment.warm_up()
        if (
            device.type == "cuda"
        ):  # kernels of the evaluation are chosen and compiled here, its answer is not looked at
            experiment.predict("test", tta=cfg.eval.tta)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        splits = experiment.splits
        experiment.close()
        del experiment
        fits = batch_that_fits(cfg, splits)
        raise ValueError(
            f"{cfg.recipe}: train.batch_size={cfg.train.batch_size} needs more memory than {device} has; "
            + (f"--train.batch_size={fits} fits" if fits else "no smaller batch fits either")
        ) from None
    seconds = {
        "data": experiment.data_seconds,
        "build": built - began - experiment.data_seconds,
        "warm_up": timing.now(device) - built,
    }
    ceiling = hardware.matmul_ceiling(
        device, experiment.precision.compute, tf32=experiment.precision.name == "tf32"
    )
    return Prepared(experiment, seconds, arithmetic(experiment), ceiling)


def batch_that_fits(cfg: Config, splits: Any) -> int | None:
    """The largest of batch_size/2, /4, … that trains here, or None. Built anew each time: memory decides, not
    a formula."""
    size = cfg.train.batch_size // 2
    while size >= max(1, cfg.train.accumulate):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            smaller = Experiment(cfg.replace({"train.batch_size": size}), splits=splits)
            smaller.warm_up()
            smaller.close()
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch says that memory ran out: CUDA's has a class of its own, the CPU's only its
    words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def arithmetic(experiment: Experiment) -> dict[str, float]:
    """FLOPs of one run: `forward` of one image at full size; `train` of all steps, three forward passes an
    image. Where only the hardest share is trained on, that share alone counts three times, and whoever judges
    the batch once."""
    share, judge = experiment.cfg.train.hard_fraction, getattr(experiment.trainer.select, "model", None)
    resolution = getattr(experiment.train_loader, "resolution", None)
    per_size: dict[int, float] = {}
    total = 0.0
    for step in range(experiment.total_steps):
        size = (resolution(step) if resolution else None) or experiment.image_size
        if size not in per_size:
            per_size[size] = 3 * share * models.flops_per_image(experiment.model, size)
            if judge is not None:
                passes = 1 + 2 * share if judge is not experiment.model else 1
                per_size[size] += passes * models.flops_per_image(judge, size)
        total += per_size[size] * experiment.cfg.train.batch_size
    return {"forward": float(models.flops_per_image(experiment.model, experiment.image_size)), "train": total}


def run_once(prepared: Prepared, seed: int, *, timed: bool = True) -> dict[str, Any]:
    """One run with its own seed, from fresh weights to the last ones: a row of the record.

    A diverged run comes back as status "failed", never as an exception. With `timed` false no seconds are
    kept.
    """
    experiment, cfg = prepared.experiment, prepared.experiment.cfg
    device = experiment.device
    row: dict[str, Any] = {"seed": seed, "status": "ok", "accuracy": None, "accuracy_tta": None}
    augment_seconds = [0.0]
    with hardware.EnergyMeter(device) as energy:
        clock = timing.Stopwatch(device)
        experiment.reset(seed)
        experiment.initialise()
        clock.lap("init")
        try:
            for epoch in range(experiment.num_epochs):
                batches = experiment.train_loader.epoch(epoch)
                if (
                    device.type == "cpu"
                ):  # elsewhere augmentation overlaps with the step and has no time of its own
                    batches = _clocked(batches, augment_seconds)
                experiment.trainer.fit_epoch(batches, epoch)
            clock.lap("train")
            row["accuracy_tta" if cfg.eval.tta != "none" else "accuracy"] = experiment.evaluate(
                "test", tta=cfg.eval.tta
            ).accuracy
            clock.lap("eval")
        except trainer.Diverged as error:
            clock.lap("train")
            row |= {"status": "failed", "message": str(error)}
    seconds: dict[str, float | None] = dict(clock.seconds)
    seconds["total"] = sum(clock.seconds.values())
    if device.type == "cpu":
        seconds["augment"] = augment_seconds[0]
        seconds["train"] = clock.seconds["train"] - augment_seconds[0]
    row["seconds"] = seconds if timed else {"total": None}
    row["energy_joules"] = energy.joules if timed else None
    row["mfu"] = prepared.flops["train"] / clock.seconds["train"] / prepared.ceiling if timed else None
    row["condition"] = hardware.condition(device)
    if row["status"] == "ok" and cfg.eval.tta != "none":  # decides nothing, so it is off the clock
        row["accuracy"] = experiment.evaluate("test", tta="none").accuracy
    return row


def _clocked(batches: Iterator[trainer.Batch], total: list[float]) -> Iterator[trainer.Batch]:
    """The same batches; the seconds spent making them are added to total[0]."""
    while True:
        began = timing.now("cpu")
        batch = next(batches, None)
        total[0] += timing.now("cpu") - began
        if batch is None:
            return
        yield batch


def run_rival(command: str, seed: int) -> dict[str, Any]:
    """One call of a rival's command: a row of the record.

    Its last line on standard output may be JSON with "seconds" and "accuracy" (share, with its own TTA, if it
    has one); without it the whole call is timed and its accuracy stays unknown.
    """
    began = timing.now("cpu")
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"--versus: {command!r} can't be started: {error.strerror}") from error
    wall = timing.now("cpu") - began
    row: dict[str, Any] = {"seed": seed, "status": "ok", "accuracy": None, "accuracy_tta": None}
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        return row | {
            "status": "failed",
            "message": f"exit {done.returncode}: {said}",
            "seconds": {"total": wall},
        }
    told = _last_json(done.stdout)
    row["accuracy_tta"] = told.get("accuracy")
    row["seconds"] = {"total": float(told.get("seconds", wall))}
    row["condition"] = {"clock": "its own" if "seconds" in told else "the whole call", "wall_seconds": wall}
    return row


def _last_json(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
