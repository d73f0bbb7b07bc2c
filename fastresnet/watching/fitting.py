"""What fits into memory: into how many parts a batch must be cut, found by steps that are really done.

Cutting leaves the recipe as it is: one optimizer step a batch, the same gradient, rates and decay. Batch norm
alone notices: it normalises over a part. Refuses to change the batch size, on which rates and decay hang.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastresnet.base import words
from fastresnet.data import Splits
from fastresnet.machine import memory
from fastresnet.machine.devices import choose_device
from fastresnet.models import summary
from fastresnet.settings.config import Config
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import NOTHING, Own

FITTED = 0  # train.accumulate: as few parts as fit
SMALLEST = 2  # images a part: what normalises over images needs two
SHARE = 0.8  # of a CPU's free memory that a step may be predicted to take: it is the whole machine's
KEPT_FREE = 0.05  # of a GPU's memory while steps are tried: averages and evaluation come later
ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)  # in PyTorch's words


class OutOfMemory(RuntimeError):
    """Memory ran out in a run; the message says what was tried and what fits."""


def parts_that_fit(cfg: Config, splits: Splits, own: Own = NOTHING) -> int | None:
    """The fewest parts of a batch, a power of two, with which its heaviest step can be done on this device.

    A GPU is tried from one part on. Of a CPU, which has no limit that one could run into unharmed, two small
    steps are measured first. None where not even parts of SMALLEST images fit.
    """
    device = choose_device(cfg.run.device)
    memory.give_back(device)  # what a run that failed left behind
    try:
        parts = _predicted(cfg, splits, own) if device.type == "cpu" else 1
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        return None
    while parts <= max(1, cfg.train.batch_size // SMALLEST):
        if _trains(cfg, parts, splits, own, device):
            return parts
        parts *= 2
    return None


def _trains(cfg: Config, parts: int, splits: Splits, own: Own, device: torch.device) -> bool:
    memory.give_back(device)  # of the trial before
    try:
        spared = int(KEPT_FREE * (memory.total_bytes(device) or 0)) if device.type == "cuda" else 0
        ballast = torch.empty(spared, dtype=torch.uint8, device=device)
        with _built(cfg, parts, splits, own) as experiment:
            experiment.rehearse(heaviest_step(experiment))
        del ballast
        return True
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        return False


def _predicted(cfg: Config, splits: Splits, own: Own) -> int:
    """The fewest parts, a power of two, that should take no more than SHARE of the memory that is free."""
    batch, parts = cfg.train.batch_size, 1
    few = max(SMALLEST, batch // 16)
    with _built(cfg, 1, splits, own) as experiment:
        step = heaviest_step(experiment)
        experiment.rehearse(step, few)  # what is loaded and allocated once
        first, second = (_taken(experiment, step, count) for count in (few, 2 * few))
    an_image = max(second.kept - first.kept, second.resident - first.resident) / few
    while batch / parts * an_image > SHARE * memory.free_bytes() and 2 * parts <= batch:
        parts *= 2
    return parts


@dataclass(frozen=True)
class Taken:
    """Bytes of a step: what it kept for its backward pass, and all that was ever resident of the process.

    Neither is the whole: the second is blind where memory is used again, the first to what lives shortly.
    """

    kept: int
    resident: int


def _taken(experiment: Experiment, step: int, count: int) -> Taken:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    memory.reset_peak()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        experiment.rehearse(step, count)
    return Taken(sum(kept.values()), memory.peak_bytes())


@contextmanager
def _built(cfg: Config, parts: int, splits: Splits, own: Own) -> Iterator[Experiment]:
    experiment = Experiment(cfg.replace({"train.accumulate": parts}), splits=splits, own=own)
    try:
        yield experiment
    finally:
        experiment.close()


def heaviest_step(experiment: Experiment) -> int:
    """A step (from 0) with the largest images, and among these with most of them."""
    if not experiment.cfg.train.resolutions:
        return 0
    return max(range(experiment.total_steps), key=lambda step: experiment.batch_of(step)[::-1])


def warning(experiment: Experiment) -> str:
    """What to say before a run on a CPU whose steps need more than is free, else nothing.

    Where memory runs out there, the system may kill the process, or another one, without a word.
    """
    if experiment.device.type != "cpu":
        return ""
    count, size = experiment.batch_of(heaviest_step(experiment))
    part = -(-count // experiment.trainer.options.accumulate)
    free, processes = memory.free_bytes(), experiment.place.local_size
    try:
        needed = processes * summary.memory_of_step(experiment.model, size, part).total
    except Exception:  # a network of the caller's own that can't be followed without data
        return ""
    if needed <= free:
        return ""
    which, way = "a step", "--train.accumulate=0 finds parts that fit"
    if processes > 1:
        which, way = f"a step in {processes} processes, each", "a larger train.accumulate takes less"
    return (
        f"{which} on {part} images of {size} px needs about {words.size(needed)} and {words.size(free)} are "
        f"free: the system may kill this run without a word; {way}"
    )


def tried(cfg: Config, error: BaseException) -> str:
    """The size and the memory that a run ran out of, in words; to be asked while the run still holds it."""
    device = choose_device(cfg.run.device)
    parts, total = max(1, cfg.train.accumulate), memory.total_bytes(device)
    whole = f" of {words.size(total)}" if total else ""
    asked = ASKED.search(str(error))
    more = f", {asked[1]} more were asked for" if asked else ""
    return (
        f"out of memory on {device} with train.batch_size={cfg.train.batch_size}, train.accumulate={parts} "
        f"and eval.batch_size={cfg.eval.batch_size}: {words.size(memory.peak_bytes(device))}{whole} were "
        f"taken{more}"
    )


def advice(cfg: Config, fits: int | None) -> str:
    """What to change, in words, where so many parts fit."""
    if fits is None:
        return f"not even parts of {SMALLEST} images fit: a smaller model or train.resolutions might"
    if fits <= max(1, cfg.train.accumulate):
        return "a training step alone fits: a smaller eval.batch_size or data.loader=ffcv leaves more room"
    return f"--train.accumulate={fits} fits: the same batch in {fits} parts"
