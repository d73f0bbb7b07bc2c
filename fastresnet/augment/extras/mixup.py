"""Mixup (Zhang et al. 2017, arXiv:1710.09412): an image faded into the one before it, alpha 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastresnet.augment.counter import Draws


def draw(draws: Draws, share: float) -> Tensor:
    """How much of itself an image keeps, uniform in [0, 1): float32 (n,); 1 for the rest."""
    return torch.where(draws.coin("mixup", share), draws.uniform("mixup weight"), 1.0)


def apply(images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The weighted mean of an image and its neighbour."""
    own = drawn[:, None, None, None]
    return images * own + images.roll(1, 0) * (1 - own)


def own_share(drawn: Tensor) -> Tensor:
    """The weight of an image's own label: float32 (B,)."""
    return drawn
