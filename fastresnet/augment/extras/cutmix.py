"""CutMix (Yun et al. 2019, arXiv:1905.04899, alpha 1): a square of the image before it in the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastresnet.augment.boxes import covered
from fastresnet.augment.counter import Draws


def draw(draws: Draws, share: float) -> Tensor:
    """Top, left, bottom and right as shares of the image, float32 (n,4), of uniform area; empty for the rest.

    It lies within the image, where the paper clips it, so that the labels' weights are its area.
    """
    side = draws.uniform("cutmix area").sqrt()
    top, left = (draws.uniform(f"cutmix {name}") * (1 - side) for name in ("top", "left"))
    box = torch.stack([top, left, top + side, left + side], dim=1)
    return box * draws.coin("cutmix", share)[:, None]


def apply(images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The neighbour's pixels within the square."""
    return torch.where(covered(drawn, *images.shape[2:])[:, None], images.roll(1, 0), images)


def own_share(drawn: Tensor) -> Tensor:
    """The weight of an image's own label: float32 (B,)."""
    top, left, bottom, right = drawn.unbind(1)
    return 1 - (bottom - top) * (right - left)
