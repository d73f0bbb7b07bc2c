"""Some images without colour: all three channels hold the luma of ITU-R BT.601."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastresnet.augment.counter import Draws

LUMA = (0.299, 0.587, 0.114)


def draw(draws: Draws, share: float) -> Tensor:
    """Which images lose their colour: bool (n,)."""
    return draws.coin("grayscale", share)


def apply(images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The luma of the pixels before they were normalised, normalised for each channel."""
    channels = zip(LUMA, images.unbind(1), mean, std)
    luma = torch.stack([w * (pixels * s + m) for w, pixels, m, s in channels]).sum(0)
    grey = torch.stack([(luma - m) / s for m, s in zip(mean, std)], dim=1)
    return torch.where(drawn[:, None, None, None], grey, images)
