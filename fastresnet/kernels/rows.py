"""The augmentation kernel for a CPU: the same as `reference`, by copying whole rows of bytes instead of gathering pixels.

Each row of a batch is laid out once as a strip that holds the row, its mirror image and the padding between them, so that
every crop, mirrored or not, is one window of the strip: a memcpy of 3·W bytes. Work goes in chunks that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.kernels import Choices
from fastresnet.kernels.reference import affine, reflect

CHUNK_BYTES = 1 << 20  # of uint8 images; their float32 is four times that and still in the last-level cache


def augment(
    images_NHWC: Tensor,
    indices: Tensor,
    choices: Choices,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None,
    out_NHWC: Tensor,
) -> Tensor:
    """Write finished images into `out_NHWC`, (B,h,w,3) of any strides and float dtype; arguments as in `reference.augment`.

    `images_NHWC` must be contiguous; everything lies on the CPU. Returns `out_NHWC`.
    """
    count, height, width, channels = images_NHWC.shape
    step = max(1, CHUNK_BYTES // max(1, height * width * channels))
    resized = size is not None and tuple(size) != (height, width)
    direct = out_NHWC.dtype == torch.float32 and out_NHWC.is_contiguous() and not resized
    for start in range(0, len(indices), step):
        some, chosen = indices[start : start + step], choices.slice(start, start + step)
        crops = crop_and_flip(images_NHWC, some, chosen).view(len(some), height, width * channels)
        target = out_NHWC[start : start + step]
        work = target.view(crops.shape) if direct else torch.empty(crops.shape)
        normalise(crops, chosen, mean, std, width, work)
        erase(work, chosen, height, width, channels)
        if not direct:
            finished = work.view(len(some), height, width, channels)
            if resized:
                finished = F.interpolate(
                    finished.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
                ).permute(0, 2, 3, 1)
            target.copy_(finished)
    return out_NHWC


def crop_and_flip(images_NHWC: Tensor, indices: Tensor, choices: Choices) -> Tensor:
    """The windows as uint8 (B·H, W·3), padding included (black for `zero`; for `mean`, whatever: `erase` clears it)."""
    count, height, width, channels = images_NHWC.shape
    batch = len(indices)
    rows = images_NHWC.view(count * height, width * channels)
    if choices.dy is None or choices.dx is None:
        if choices.flip is None:
            return images_NHWC.index_select(0, indices).view(batch * height, -1)
        pad, dx = 0, torch.zeros((), dtype=torch.int64)
        row_index = indices[:, None] * height + torch.arange(height)
        black = None
    else:
        pad, dx = choices.spec.crop_padding_px, choices.dx.long()
        at = torch.arange(height) + choices.dy.long()[:, None] - pad
        black = (at < 0) | (at >= height) if choices.spec.crop_mode == "zero" else None
        row_index = indices[:, None] * height + reflect(at, height)
    source = rows.index_select(0, row_index.view(-1))
    if black is not None:
        source[black.view(-1)] = 0
    reflected = choices.spec.crop_mode == "reflect" and pad > 0
    strip, mirror_at = _strip(source.view(-1, width, channels), pad, reflected, choices.flip is not None)
    start = dx if choices.flip is None else torch.where(choices.flip, mirror_at + 2 * pad - dx, dx)
    length = strip.shape[1] * channels
    first = (
        torch.arange(batch * height).view(batch, height) * length + (start * channels).expand(batch)[:, None]
    )
    windows = strip.as_strided((strip.numel() - width * channels + 1, width * channels), (1, 1))
    return windows.index_select(0, first.view(-1))


def _strip(rows: Tensor, pad: int, reflected: bool, mirrored: bool) -> tuple[Tensor, int]:
    """Rows (n,W,3) laid out as padding, row, padding, mirror image, padding; and where the padded mirror image begins.

    With reflection the edge pixel that a row shares with its mirror image is kept once, and each is the other's padding:
    …F F F F [R R … R] [F F … F] R R R R…
    """
    count, width, channels = rows.shape
    flipped = rows.flip(1) if mirrored or reflected else rows
    if reflected:
        strip = torch.empty(
            (count, width + (width - 1 if mirrored else pad) + pad * (2 if mirrored else 1), channels),
            dtype=rows.dtype,
        )
        strip[:, :pad] = flipped[:, width - 1 - pad : width - 1]
        strip[:, pad : pad + width] = rows
        if not mirrored:
            strip[:, pad + width :] = flipped[:, 1 : 1 + pad]
        else:
            strip[:, pad + width : pad + 2 * width - 1] = flipped[:, 1:]
            strip[:, pad + 2 * width - 1 :] = rows[:, 1 : 1 + pad]
        return strip, width - 1
    strip = torch.zeros((count, (width + pad) * (2 if mirrored else 1) + pad, channels), dtype=rows.dtype)
    strip[:, pad : pad + width] = rows
    if mirrored:
        strip[:, 2 * pad + width : 2 * (pad + width)] = flipped
    return strip, width + pad


def normalise(
    crops: Tensor, choices: Choices, mean: Sequence[float], std: Sequence[float], width: int, out: Tensor
) -> None:
    """out = crops·scale + offset, (B,H,W·3): one scale and offset a channel, laid out along the whole row to be contiguous."""
    scale, offset = (value.repeat(1, width)[:, None, :] for value in affine(choices, mean, std, crops.device))
    if len(scale) == 1:  # the same for every image: along the whole image, which makes the loops long
        height = crops.shape[1]
        scale, offset = (value.expand(1, height, -1).reshape(1, -1) for value in (scale, offset))
        crops, out = crops.flatten(1), out.flatten(1)
    out.copy_(crops)
    torch.addcmul(offset, out, scale, out=out)


def erase(out: Tensor, choices: Choices, height: int, width: int, channels: int) -> None:
    """Zero what cutout covers and, in crop mode `mean`, what lies outside the stored image; `out` is (B,H,W·3) float32."""
    if choices.cut_y is not None and choices.cut_x is not None:
        side = choices.spec.cutout_px
        _keep_outside(
            out,
            _between(choices.cut_y - side // 2, side, height),
            _between(choices.cut_x - side // 2, side, width),
            channels,
        )
    if choices.spec.crop_mode == "mean" and choices.dy is not None and choices.dx is not None:
        pad = choices.spec.crop_padding_px
        dx = (
            choices.dx
            if choices.flip is None
            else torch.where(choices.flip, 2 * pad - choices.dx, choices.dx)
        )
        out.mul_(_between(pad - choices.dy, height, height)[:, :, None])
        out.mul_(_between(pad - dx, width, width).repeat_interleave(channels, 1)[:, None, :])


def _between(start: Tensor, length: int, extent: int) -> Tensor:
    """1.0 at the positions start … start+length-1 of 0 … extent-1, else 0.0: (B, extent)."""
    at = torch.arange(extent)
    return ((at >= start[:, None]) & (at < start[:, None] + length)).float()


def _keep_outside(out: Tensor, rows: Tensor, cols: Tensor, channels: int) -> None:
    keep = torch.addcmul(
        torch.ones(()), rows[:, :, None], cols.repeat_interleave(channels, 1)[:, None, :], value=-1.0
    )
    out.mul_(keep)
