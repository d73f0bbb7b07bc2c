"""A set stored so that every crop, mirrored or not, is whole rows of it. Computes no pixel, copies them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastresnet.augment.choices import Augment
from fastresnet.augment.kernels.reference import reflect


@dataclass(frozen=True)
class Padded:
    """Images with their padding, the upright ones and, where any are mirrored, then the mirrored ones.

    pixels:    uint8 (N or 2·N, H+2·padding, W+2·padding, 3), contiguous
    padding:   px on each side; in crop mode `mean` it holds anything
    mirrored:  whether image N + i is the mirror image of image i
    """

    pixels: Tensor
    padding: int
    mirrored: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N,H,W,3) of the images themselves."""
        count, height, width, channels = self.pixels.shape
        around = 2 * self.padding
        return count // (1 + self.mirrored), height - around, width - around, channels

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def __len__(self) -> int:
        return self.shape[0]


def padded_bytes(count: int, height: int, width: int, spec: Augment) -> int:
    """Bytes that so many images take once padded and mirrored."""
    around = 2 * spec.crop_padding_px
    return 3 * count * (1 + (spec.flip != "none")) * (height + around) * (width + around)


def pad(images_NHWC: Tensor, spec: Augment) -> Padded:
    """The images as windows of `spec` need them; no copy where there is neither padding nor mirroring."""
    padding, mirrored = spec.crop_padding_px, spec.flip != "none"
    if not padding and not mirrored:
        return Padded(images_NHWC, 0, False)
    count, height, width, channels = images_NHWC.shape
    spec.check_size(height, width)
    rows, columns = (torch.arange(-padding, n + padding, device=images_NHWC.device) for n in (height, width))
    shape = (count * (1 + mirrored), len(rows), len(columns), channels)
    pixels = torch.zeros(shape, dtype=torch.uint8, device=images_NHWC.device)
    if spec.crop_mode == "reflect":
        wide = images_NHWC.index_select(2, reflect(columns, width))
        torch.index_select(wide, 1, reflect(rows, height), out=pixels[:count])
    else:
        pixels[:count, padding : padding + height, padding : padding + width] = images_NHWC
    if mirrored:
        pixels[count:] = pixels[:count].flip(2)
    return Padded(pixels, padding, mirrored)
