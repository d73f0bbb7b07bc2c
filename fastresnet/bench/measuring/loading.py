"""The loaders as training uses them: images a second with the recipes' augmentations, and the wait for the
first batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, NotAvailable, sample
from fastresnet.training.experiment import Experiment

PART = "loader"
PLAIN = {"train.crop_padding_px": 0, "train.flip": "none", "train.cutout_px": 0}
USUAL = {"train.crop_padding_px": 4, "train.flip": "random", "train.cutout_px": 0}
ALL = {
    "train.crop_padding_px": 4,
    "train.flip": "random",
    "train.cutout_px": 8,
    "train.brightness": 0.1,
    "train.contrast": 0.1,
}


def cases(context: Context) -> list[Case]:
    """The resident loader with no, the usual and all augmentations; the streaming ones with the usual."""
    found = [_case(context, "resident", "crop+flip", USUAL)]
    if context.suite != "quick" or context.tiny:
        found += [_case(context, "resident", "plain", PLAIN), _case(context, "resident", "everything", ALL)]
    found += [_case(context, kind, "crop+flip", USUAL) for kind in ("ffcv", "torchvision")]
    return found


def _case(context: Context, kind: str, name: str, augmentation: dict[str, Any]) -> Case:
    batch = 64 if context.tiny else 512
    changes = {**augmentation, "data.loader": kind, "train.batch_size": batch, "train.compile": "off"}
    return Case(PART, f"{kind}/{name}", changes, _measure(context, kind, changes), weight=0.7)


def _measure(context: Context, kind: str, changes: dict[str, Any]) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        try:
            experiment = Experiment(
                context.config("rn18.yaml", {"train.epochs": 1000.0, **changes}), splits=context.splits()
            )
        except (ImportError, ValueError) as error:  # no ffcv, no beton, no torchvision here
            raise NotAvailable(" ".join(str(error).split())) from error
        try:
            loader = experiment.train_loader
            if experiment.loader_name != kind:
                raise NotAvailable(f"training took the {experiment.loader_name} loader instead")
            batches = _endless(loader)
            began = time.perf_counter()
            next(batches)
            first = time.perf_counter() - began
            samples = sample(lambda: next(batches), context.device, seconds)
            batches.close()
        finally:
            experiment.close()
        rate = loader.batch_size / (sorted(samples)[len(samples) // 2])
        return Measured(
            samples,
            {
                "images_per_second": rate,
                "first_batch_seconds": first,
                "kernel": getattr(loader, "kernel", None),
            },
        )

    return measure


def _endless(loader: Any) -> Generator[Any, None, None]:
    """Batch after batch, epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1
