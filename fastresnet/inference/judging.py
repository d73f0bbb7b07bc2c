"""A trained network held to a split of data, through the same loader that a run evaluates with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypedDict

from fastresnet.data import Split
from fastresnet.inference.trained import Trained
from fastresnet.loading import Batch, Batching, Loader, choose
from fastresnet.loading.choice import open_loader
from fastresnet.reports import metrics
from fastresnet.reports.metrics import Evaluation


class Gain(TypedDict):
    """Top-1 accuracy with test-time augmentation, and what it adds to that without; shares."""

    top1: float
    gain: float


class Judged(Evaluation):
    """precision: what the network computed in; tta: by its name"""

    precision: str
    tta: dict[str, Gain]


def judge(network: Trained, part: Split, told: Callable[[str], None] = lambda line: None) -> Judged:
    """metrics.evaluation without test-time augmentation, and what flips and crops add to it.

    part:  held in memory or streamed
    told:  called before each batch with where it stands, in words
    Raises ValueError where the split can't be served as data.loader says.
    """
    with closing(_loader(network, part)) as loader:
        plain, labels = network.answers(_told_of(loader, "none", told))
        result = metrics.evaluation(plain, labels, network.class_names)
        gains: dict[str, Gain] = {}
        for tta in ("flip", "crops"):
            better, _ = network.answers(_told_of(loader, tta, told), tta)
            accuracy = float((better.argmax(axis=1) == labels).mean())
            gains[tta] = {"top1": accuracy, "gain": accuracy - result["top1"]}
    return {**result, "precision": network.precision.name, "tta": gains}


def _loader(network: Trained, part: Split) -> Loader:
    cfg, dtype = network.cfg, network.precision.compute
    asked = Batching(
        cfg.eval.batch_size,
        network.mean,
        network.std,
        network.device,
        dtype,
        channels_last=cfg.train.channels_last,
        kernel=cfg.data.kernel,
    )
    batch_bytes = cfg.eval.batch_size * 3 * network.image_size**2 * dtype.itemsize
    name, _ = choose(cfg.data, part, network.device, batch_bytes)
    return open_loader(name, cfg.data, part, asked)


def _told_of(loader: Loader, tta: str, told: Callable[[str], None]) -> Iterator[Batch]:
    done = 0
    for batch in loader.epoch(0):
        told(f"evaluating, TTA {tta}: {done:,} of {loader.num_samples:,} images")
        done += len(batch[1])
        yield batch
