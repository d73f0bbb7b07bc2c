"""Random erasing (Zhong et al. 2017, arXiv:1708.04896): a random rectangle becomes the mean colour."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastresnet.augment.boxes import covered
from fastresnet.augment.counter import Draws

AREA = (0.02, 1 / 3)  # share of the image
RATIO = (0.3, 3.3)  # height through width


def draw(draws: Draws, share: float) -> Tensor:
    """Top, left, bottom and right as shares of the image, float32 (n,4); an empty rectangle for the rest."""
    area = AREA[0] + (AREA[1] - AREA[0]) * draws.uniform("erasing area")
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = (low + (high - low) * draws.uniform("erasing ratio")).exp()
    height, width = ((area * x).sqrt().clamp(max=1) for x in (ratio, 1 / ratio))
    top = draws.uniform("erasing top") * (1 - height)
    left = draws.uniform("erasing left") * (1 - width)
    box = torch.stack([top, left, top + height, left + width], dim=1)
    return box * draws.coin("erasing", share)[:, None]


def apply(images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Zero, which is the mean colour, within the rectangle."""
    return images.masked_fill(covered(drawn, *images.shape[2:])[:, None], 0.0)
