"""Parts of an image: boxes for a random resized crop and for a centre crop. Touches no pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ATTEMPTS = 10  # as torchvision's RandomResizedCrop has it, then the centre


def random_boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    seed: int,
    epoch: int,
    *,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Boxes of random area and aspect ratio (Szegedy et al. 2014): int64 (n,4) top, left, height, width, px.

    scale:  share of the image's area, uniform (0.08 to 1 in the paper; FFCV's and later recipes for short
            training begin at 0.25 or above)
    ratio:  width through height, uniform in its logarithm

    A function of (seed, epoch) and the sizes alone. Where no attempt fits: the largest centred box of a ratio
    allowed.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch, 8]))
    count = len(heights)
    boxes = _largest(heights, widths, ratio)
    todo: np.ndarray = np.ones(count, dtype=bool)
    for _ in range(ATTEMPTS):
        area = heights * widths * random.uniform(scale[0], scale[1], count)
        shape = np.exp(random.uniform(np.log(ratio[0]), np.log(ratio[1]), count))
        h, w = (np.rint(np.sqrt(x)).astype(np.int64) for x in (area / shape, area * shape))
        top, left = random.random(count), random.random(count)
        fits = todo & (h > 0) & (w > 0) & (h <= heights) & (w <= widths)
        found = np.stack([top * (heights - h + 1), left * (widths - w + 1), h, w], axis=1).astype(np.int64)
        boxes[fits] = found[fits]
        todo &= ~fits
    return boxes


def _largest(heights: np.ndarray, widths: np.ndarray, ratio: tuple[float, float]) -> np.ndarray:
    h = np.minimum(heights, np.rint(widths / ratio[0])).astype(np.int64)
    w = np.minimum(widths, np.rint(heights * ratio[1])).astype(np.int64)
    return np.stack([(heights - h) // 2, (widths - w) // 2, h, w], axis=1)


def centre_boxes(heights: np.ndarray, widths: np.ndarray, share: float = 224 / 256) -> np.ndarray:
    """The centred square whose side is `share` of the shorter edge: resize to 256, cut 224. int64 (n,4)."""
    side = np.maximum(1, (share * np.minimum(heights, widths)).astype(np.int64))
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)


def covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels have their centres within a box: bool (n,height,width).

    boxes:  float32 (n,4), top, left, bottom and right as shares of the image
    """
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    y, x = ((torch.arange(n, device=boxes.device) + 0.5) / n for n in (height, width))
    rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
    return rows[:, :, None] & columns[:, None, :]
