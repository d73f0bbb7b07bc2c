"""One of ten changes, at random strength: most of TrivialAugment (Müller & Hutter 2021, arXiv:2103.10158).

Ranges are RandAugment's (Cubuk et al. 2019, arXiv:1909.13719). Sharpness, auto-contrast and equalisation are
left out: each would cost every image a pass of its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastresnet.augment.counter import Draws
from fastresnet.augment.extras.grayscale import LUMA

SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y, ROTATE, BRIGHTNESS, COLOUR, CONTRAST, POSTERIZE, SOLARIZE = range(1, 11)
# at full strength; SHIFT: of a side
SHEAR, SHIFT, ANGLE, FACTOR, BITS = 0.3, 10 / 32, math.radians(30), 0.9, 4


def draw(draws: Draws, share: float) -> Tensor:
    """Number of the change (0: none) and strength in [-1, 1): float32 (n,2)."""
    number = (1 + draws.below("trivial change", SOLARIZE)) * draws.coin("trivial", share)
    return torch.stack([number.float(), draws.uniform("trivial strength") * 2 - 1], dim=1)


def apply(images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Moved images have the mean colour where they end; colours are changed in 0..1 and stay there."""
    number, strength = drawn[:, :1, None, None], drawn[:, 1:, None, None]
    pixels = torch.stack([one * s + m for one, m, s in zip(images.unbind(1), mean, std)], dim=1)
    coloured = _recoloured(pixels, number, strength).unbind(1)
    changed = torch.stack([(one - m) / s for one, m, s in zip(coloured, mean, std)], dim=1)
    changed = torch.where(number <= ROTATE, _moved(images, *drawn.unbind(1)), changed)
    return torch.where(number == 0, images, changed)


def _moved(images: Tensor, number: Tensor, strength: Tensor) -> Tensor:
    """Sheared, shifted or turned about the centre, bilinear."""
    height, width = images.shape[2:]

    def by(change: int, most: float) -> Tensor:
        return torch.where(number == change, strength * most, 0.0)

    angle = by(ROTATE, ANGLE)
    across = (by(SHEAR_X, SHEAR) - angle.sin()) * (height / width)
    down = (by(SHEAR_Y, SHEAR) + angle.sin()) * (width / height)
    rows = [angle.cos(), across, by(SHIFT_X, 2 * SHIFT), down, angle.cos(), by(SHIFT_Y, 2 * SHIFT)]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def _recoloured(pixels: Tensor, number: Tensor, strength: Tensor) -> Tensor:
    """Pixels in 0..1 (B,3,h,w) after the change of colour that was drawn."""
    luma = torch.stack([w * one for w, one in zip(LUMA, pixels.unbind(1))], dim=1).sum(1, keepdim=True)
    towards = torch.where(number == COLOUR, luma, 0.0)
    towards = torch.where(number == CONTRAST, luma.mean((2, 3), keepdim=True), towards)
    blended = towards + (pixels - towards) * (1 + FACTOR * strength)
    step = 2 ** (BITS * strength.abs()).round()
    coarse = ((pixels * 255).round() / step).floor() * step / 255
    turned = torch.where(pixels >= 1 - strength.abs(), 1 - pixels, pixels)
    result = torch.where(number == POSTERIZE, coarse, blended)
    return torch.where(number == SOLARIZE, turned, result).clamp(0, 1)
