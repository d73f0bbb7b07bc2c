"""Do two loaders make the same batches? Equal pixels where choices can be given, else equal distributions.

Crops and mirrors are read back from images whose colours say where each pixel came from.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fastresnet.bench.contest.contestants import MEAN, SIZE, SPEC, STD, Contestant, Setting
from fastresnet.loading.resident import ResidentLoader


def coordinates(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose red says in which row a pixel was and whose green in which column; labels are numbers."""
    images = np.random.default_rng(0).integers(0, 8, (count, SIZE, SIZE, 3), dtype=np.uint8)
    at = np.arange(SIZE, dtype=np.uint8) * 8
    images[..., 0] += at[:, None]
    images[..., 1] += at[None, :]
    return images, np.arange(count, dtype=np.int64)


def crops_and_mirrors(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each window of `coordinates` was cut, dy and dx in ±padding, and whether it was mirrored."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    source = ((images.float().cpu() * std + mean) * 255 / 8).floor()
    at = torch.arange(SIZE)
    dy = (source[:, 0] - at[:, None]).flatten(1).median(1).values
    straight, mirrored = ((source[:, 1] - line).flatten(1) for line in (at, SIZE - 1 - at))
    middle, other = straight.median(1).values, mirrored.median(1).values
    flipped = (mirrored == other[:, None]).sum(1) > (straight == middle[:, None]).sum(1)
    return dy.long(), torch.where(flipped, other, middle).long(), flipped


def unlikely(dy: Tensor, dx: Tensor, flipped: Tensor) -> str | None:
    """Why crops and mirrors can't be uniform (chi-square and binomial at p below 0.0001), or None."""
    pad, count = SPEC.crop_padding_px, len(dy)
    for name, values in (("rows", dy), ("columns", dx)):
        if int(values.abs().max()) > pad:
            return f"{name} are shifted by {int(values.abs().max())} px, at most {pad} were asked for"
        counts, expected = torch.bincount(values + pad, minlength=2 * pad + 1).double(), count / (2 * pad + 1)
        statistic = float(((counts - expected) ** 2 / expected).sum())
        if statistic > 32:  # 8 degrees of freedom: p = 0.0001
            return f"shifts of {name} are not uniform: chi-square {statistic:.0f} with {2 * pad} degrees"
    share = float(flipped.double().mean())
    if abs(share - 0.5) > 3.9 * 0.5 / math.sqrt(count):
        return f"{share:.3f} of the images are mirrored"
    return None


def check(contestant: Contestant, setting: Setting, first: tuple[Tensor, Tensor]) -> None:
    """ValueError where a contestant's batches aren't what the others make."""
    images, labels = first
    if images.shape != (setting.batch_size, 3, SIZE, SIZE) or images.dtype != setting.dtype:
        raise ValueError(f"its batches are {images.dtype} {tuple(images.shape)}")
    if contestant.exact:
        asked = replace(setting.batching(), device="cpu", kernel="reference")
        same, same_labels = next(ResidentLoader(setting.images, setting.labels, asked).epoch(0))
        off = (images.float().cpu() - same.float()).abs().max()
        allowed = 1e-4 if setting.dtype == torch.float32 else 0.04
        if not torch.equal(labels.cpu(), same_labels) or off > allowed:
            raise ValueError(f"its first batch differs from the reference by {float(off):.2g}")
    needed = max(1, 4000 // setting.batch_size)
    batches = contestant.take(max(1, min(needed, len(setting.labels) // setting.batch_size - 1)))
    if setting.dtype == torch.float32:  # lower precision can't hold the coordinates
        found = crops_and_mirrors(torch.cat([x for x, _ in batches]))
        if why := unlikely(*found):
            raise ValueError(why)
