"""The loaders as training uses them: images a second, and the wait for the first batch.

On a GPU the resident loader is timed on the device alone, behind a pause in which the host queues its
launches: the host runs ahead in training too. An epoch as one batch shows what the kernel reaches without any
launch between.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping
from functools import partial

from fastresnet.base.statistics import quantiles
from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, NotAvailable, sample
from fastresnet.bench.measuring.queued import sample_queued
from fastresnet.loading import Batch, Loader
from fastresnet.machine import timing
from fastresnet.training.experiment import Experiment

PART = "loader"
PLAIN = {"train.crop_padding_px": 0, "train.flip": "none", "train.cutout_px": 0}
USUAL = {"train.crop_padding_px": 4, "train.flip": "random", "train.cutout_px": 0}
ALL = USUAL | {"train.cutout_px": 8, "train.brightness": 0.1, "train.contrast": 0.1}
# whose batch size training uses, on a GPU and on a CPU
RECIPES = {True: "speed94.yaml", False: "cpu.yaml"}


def cases(context: Context) -> list[Case]:
    """The resident loader with no, the usual and all augmentations; the streaming ones with the usual."""
    batch = int(context.config(RECIPES[context.on_gpu]).train.batch_size)
    more = context.suite != "quick" or context.tiny
    kinds = [("crop+flip", USUAL), *([("plain", PLAIN), ("everything", ALL)] if more else [])]
    everything = len(context.splits().train)  # found or converted here, before any case's time
    found = [_case(context, "resident", name, batch, changes) for name, changes in kinds]
    if context.on_gpu or context.tiny:
        found.append(_case(context, "resident", "crop+flip/epoch at once", everything, USUAL))
    return found + [_case(context, kind, "crop+flip", batch, USUAL) for kind in ("ffcv", "torchvision")]


def _case(context: Context, kind: str, name: str, batch: int, augmentation: Mapping[str, object]) -> Case:
    changes = {**augmentation, "data.loader": kind, "train.batch_size": batch, "train.compile": "off"}
    return Case(PART, f"{kind}/{name}", changes, partial(_measure, context, kind, changes), weight=0.7)


def _measure(context: Context, kind: str, changes: Mapping[str, object], seconds: float) -> Measured:
    cfg = context.config("rn18.yaml", {"train.epochs": 1000.0, **changes})
    try:
        with experiments.opened(cfg, context.splits()) as experiment:
            return _of_loader(experiment, kind, seconds)
    except (ImportError, ValueError) as error:  # no ffcv, no beton, no torchvision here
        raise NotAvailable(" ".join(str(error).split())) from error


def _of_loader(experiment: Experiment, kind: str, seconds: float) -> Measured:
    if experiment.loaders.name != kind:
        raise NotAvailable(f"training took the {experiment.loaders.name} loader instead")
    loader, device = experiment.train_loader, experiment.device
    batches = _endless(loader)
    began = timing.now(device)
    next(batches)
    first = timing.now(device) - began
    queued = kind == "resident" and device.type == "cuda"
    on_device = sample_queued(lambda: next(batches), device, seconds) if queued else []
    samples = on_device or sample(lambda: next(batches), device, seconds)
    batches.close()
    return Measured(
        samples,
        {
            "images_per_second": loader.batch_size / quantiles(samples)["median"],
            "first_batch_seconds": first,
            "kernel": loader.kernel,
            "timed_on_device": bool(on_device),
        },
    )


def _endless(loader: Loader) -> Generator[Batch, None, None]:
    """Batch after batch, epoch after epoch."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)
