"""A trained network held to a split of data, through the same loader that a run evaluates with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypedDict

import numpy as np
from torch import Tensor

from fastresnet.data import Split
from fastresnet.inference.trained import Trained
from fastresnet.loading import Batching, choose
from fastresnet.loading.choice import open_loader
from fastresnet.reports import metrics
from fastresnet.reports.metrics import Evaluation
from fastresnet.training import evaluation


class Gain(TypedDict):
    """Top-1 accuracy with test-time augmentation, and what it adds to that without; shares."""

    top1: float
    gain: float


class Judged(Evaluation):
    """precision: what the network computed in; tta: by its name"""

    precision: str
    tta: dict[str, Gain]


def logits(
    network: Trained, part: Split, *, tta: str = "none", told: Callable[[str], None] = lambda line: None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, fp32 (N, K), and labels, int64 (N,), of a split held in memory or streamed; `tta` as eval.tta.

    told:  called before each batch with where it stands, in words
    Raises ValueError where the split can't be served as data.loader says.
    """
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
    loader = open_loader(name, cfg.data, part, asked)
    try:
        found, labels = evaluation.predict(
            network.model,
            _told_of(loader.epoch(0), f"evaluating, TTA {tta}", len(part), told),
            precision=network.precision,
            device=network.device,
            tta=tta,
            tta_share=cfg.eval.tta_share,
        )
    finally:
        loader.close()
    return found.numpy(), labels.numpy()


def _told_of(
    batches: Iterable[tuple[Tensor, Tensor]], what: str, images: int, told: Callable[[str], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for batch in batches:
        told(f"{what}: {done:,} of {images:,} images")
        done += len(batch[1])
        yield batch


def judge(network: Trained, part: Split, told: Callable[[str], None] = lambda line: None) -> Judged:
    """metrics.evaluation without test-time augmentation, and what flips and crops add to it."""
    plain, labels = logits(network, part, told=told)
    result = metrics.evaluation(plain, labels, network.class_names)
    gains: dict[str, Gain] = {}
    for tta in ("flip", "crops"):
        accuracy = float((logits(network, part, tta=tta, told=told)[0].argmax(axis=1) == labels).mean())
        gains[tta] = {"top1": accuracy, "gain": accuracy - result["top1"]}
    return {**result, "precision": network.precision.name, "tta": gains}
