"""A trained network held to a split of data, through the same loader that a run evaluates with."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

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


def logits(network: Trained, part: Split, *, tta: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """Logits, fp32 (N, K), and labels, int64 (N,), of a split held in memory or streamed; `tta` as eval.tta.

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
            loader.epoch(0),
            precision=network.precision,
            device=network.device,
            tta=tta,
            tta_share=cfg.eval.tta_share,
        )
    finally:
        loader.close()
    return found.numpy(), labels.numpy()


def judge(network: Trained, part: Split) -> Judged:
    """metrics.evaluation without test-time augmentation, and what flips and crops add to it."""
    plain, labels = logits(network, part)
    result = metrics.evaluation(plain, labels, network.class_names)
    gains: dict[str, Gain] = {}
    for tta in ("flip", "crops"):
        accuracy = float((logits(network, part, tta=tta)[0].argmax(axis=1) == labels).mean())
        gains[tta] = {"top1": accuracy, "gain": accuracy - result["top1"]}
    return {**result, "precision": network.precision.name, "tta": gains}
