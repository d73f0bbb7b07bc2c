"""A data set, described: counts, statistics, images of each class, as stored and as the network gets them.

Reads no files and draws nothing: arrays in, numbers and arrays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastresnet import augment
from fastresnet.augment import Augment


def statistics(images_NHWC: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Number and size of the images, images of each class, and each channel's statistics.

    These are mean, standard deviation, least and greatest value, in 0..255 units, over all pixels (float64).
    """
    counts = np.bincount(labels_N, minlength=len(class_names))
    total = np.zeros((2, 3))
    for start in range(
        0, len(images_NHWC), 1024
    ):  # a part at a time: float64 of everything takes 8 times the room
        part = images_NHWC[start : start + 1024].reshape(-1, 3).astype(np.float64)
        total += part.sum(axis=0), (part * part).sum(axis=0)
    pixels = images_NHWC.size // 3
    mean = total[0] / pixels
    std = np.sqrt(np.maximum(total[1] / pixels - mean**2, 0.0))
    return {
        "images": len(labels_N),
        "height": images_NHWC.shape[1],
        "width": images_NHWC.shape[2],
        "classes": {name: int(count) for name, count in zip(class_names, counts, strict=True)},
        "mean": mean.tolist(),
        "std": std.tolist(),
        "min": images_NHWC.min(axis=(0, 1, 2)).tolist(),
        "max": images_NHWC.max(axis=(0, 1, 2)).tolist(),
    }


def pick(labels_N: np.ndarray, num_classes: int, count: int, seed: int) -> list[np.ndarray]:
    """For each class the indices of `count` random images of it, fewer where it has fewer."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels_N == label) for label in range(num_classes)]
    return [np.sort(rng.choice(some, min(count, len(some)), replace=False)) for some in members]


def augmented(
    images_NHWC: np.ndarray,
    spec: Augment,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int = 0,
    size: int | None = None,
) -> np.ndarray:
    """uint8 (N, h, w, 3): the images after the augmentation of training, put back into the range of pixels.

    mean, std: of the channels in 0..1 units. The network gets the same values normalised by them.
    """
    stored = torch.from_numpy(np.ascontiguousarray(images_NHWC))
    choices = augment.draw(spec, len(stored), (stored.shape[1], stored.shape[2]), seed, epoch)
    batch = augment.apply(stored, torch.arange(len(stored)), choices, mean=mean, std=std, size=size)
    pixels = batch.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()
