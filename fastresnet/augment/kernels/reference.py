"""What the augmentation kernel means, written to be read: plain PyTorch on any device.

It is also what the kernel `compiled` is compiled from. One image at a time, in this order: crop from the
padded image, mirror, brightness and contrast, cutout, downsample, normalise, cast. Arithmetic is float32
whatever the output. Values are not clipped after brightness and contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.augment.choices import Choices


def augment(
    images_NHWC: Tensor,
    indices: Tensor,
    choices: Choices,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Finished images (B,h,w,3) float32.

    images_NHWC:  uint8 (N,H,W,3), the dataset
    indices:      int64 (B,), which images
    choices:      one row an image of the batch
    mean, std:    of the channels, in units of 0..1
    size:         (h,w) to downsample to, bilinear with half-pixel centres as F.interpolate has it; None keeps
                  (H,W)
    """
    height, width = images_NHWC.shape[1:3]
    rows_BH, cols_BW, outside_BHW = window(choices, len(indices), height, width, images_NHWC.device)
    places = indices[:, None, None], rows_BH[:, :, None], cols_BW[:, None, :]
    pixels = images_NHWC[places].float()  # (B,H,W,3)
    if outside_BHW is not None and choices.spec.crop_mode == "zero":
        pixels = pixels * ~outside_BHW[..., None]
    scale, offset = affine(choices, mean, std, images_NHWC.device)
    out = pixels * scale[:, None, None, :] + offset[:, None, None, :]
    if outside_BHW is not None and choices.spec.crop_mode == "mean":
        out = out * ~outside_BHW[..., None]
    if choices.cut_y is not None:
        out = out * ~cut_square(choices, height, width)[..., None]
    if size is not None and tuple(size) != (height, width):
        out = F.interpolate(out.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
        out = out.permute(0, 2, 3, 1)
    return out


def window(
    choices: Choices, count: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Which row and column of the stored image each pixel of the window shows, and which lie outside it.

    Rows and columns are int64 (B,H) and (B,W), reflected into the image; outside is bool (B,H,W), or None
    without a crop.
    """
    rows = torch.arange(height, device=device).expand(count, height)
    cols = torch.arange(width, device=device).expand(count, width)
    if choices.flip is not None:
        cols = torch.where(choices.flip[:, None], width - 1 - cols, cols)
    if choices.dy is None or choices.dx is None:
        return rows, cols, None
    rows = rows + choices.dy[:, None] - choices.spec.crop_padding_px
    cols = cols + choices.dx[:, None] - choices.spec.crop_padding_px
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((cols < 0) | (cols >= width))[:, None, :]
    return reflect(rows, height), reflect(cols, width), outside


def reflect(positions: Tensor, length: int) -> Tensor:
    """Positions mirrored at the first and last element: -1 is 1, `length` is length-2."""
    last = length - 1
    return last - (last - positions.abs()).abs()


def affine(
    choices: Choices, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Brightness, contrast and normalising as one scale and offset, float32 (B,3) or (1,3) for all images.

    ((x/255 - mean)·(1+c) + b) / std  =  x·(1+c)/(255·std) + (b - mean·(1+c))/std
    """
    mean_3, std_3 = (torch.tensor(list(v), dtype=torch.float32, device=device) for v in (mean, std))
    gain = 1.0 if choices.contrast is None else (1.0 + choices.contrast)[:, None]
    shift = 0.0 if choices.brightness is None else choices.brightness[:, None]
    scale = gain / (255.0 * std_3)
    offset = (shift - mean_3 * gain) / std_3
    scale, offset = torch.broadcast_tensors(torch.atleast_2d(scale), torch.atleast_2d(offset))
    return scale, offset


def cut_square(choices: Choices, height: int, width: int) -> Tensor:
    """The pixels that cutout erases, centre - s//2 … centre - s//2 + s - 1 each way: bool (B,H,W)."""
    assert choices.cut_y is not None and choices.cut_x is not None

    def inside(centre: Tensor, length: int) -> Tensor:
        side = choices.spec.cutout_px
        start = centre[:, None] - side // 2
        at = torch.arange(length, device=centre.device)
        return (at >= start) & (at < start + side)

    return inside(choices.cut_y, height)[:, :, None] & inside(choices.cut_x, width)[:, None, :]
