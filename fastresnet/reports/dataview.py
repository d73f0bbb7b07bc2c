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
from fastresnet.data import conversion


def statistics(images_NHWC: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Number and size of the images, images of each class, and each channel's statistics.

    These are mean, standard deviation, least and greatest value, in 0..255 units, over all pixels.
    """
    counts = np.bincount(labels_N, minlength=len(class_names))
    mean, std = conversion.statistics(images_NHWC)
    return {
        "images": len(labels_N),
        "height": images_NHWC.shape[1],
        "width": images_NHWC.shape[2],
        "classes": {name: int(count) for name, count in zip(class_names, counts, strict=True)},
        "mean": [255 * value for value in mean],
        "std": [255 * value for value in std],
        "min": images_NHWC.min(axis=(0, 1, 2)).tolist(),
        "max": images_NHWC.max(axis=(0, 1, 2)).tolist(),
    }


def pick(labels_N: np.ndarray, num_classes: int, count: int, seed: int) -> list[np.ndarray]:
    """For each class the indices of `count` random images of it, fewer where it has fewer."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels_N == label) for label in range(num_classes)]
    return [np.sort(rng.choice(some, min(count, len(some)), replace=False)) for some in members]


def augmented(
    images_NHWC: np.ndarray, spec: Augment, *, mean: Sequence[float], std: Sequence[float], seed: int
) -> np.ndarray:
    """uint8 (N, h, w, 3): the images after a first epoch's augmentation, put back into the range of pixels.

    mean, std: of the channels in 0..1 units. The network gets the same values normalised by them.
    """
    stored = torch.from_numpy(np.ascontiguousarray(images_NHWC))
    choices = augment.draw(spec, len(stored), (stored.shape[1], stored.shape[2]), seed, 0)
    batch = augment.apply(stored, torch.arange(len(stored)), choices, mean=mean, std=std)
    pixels = batch.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()
