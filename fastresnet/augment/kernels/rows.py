"""The augmentation kernel for a CPU without numba: copies rows of bytes instead of gathering pixels.

Each stored row is laid out once with its padding and, where images are mirrored, its mirror image. Every row
of every crop is then one window of that layout: a memcpy of 3·W bytes. Work goes in chunks that stay in the
cache, through buffers that are kept, because fresh memory costs more page faults than the arithmetic costs
time.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.augment.choices import Choices
from fastresnet.augment.kernels.reference import affine, reflect

CHUNK_BYTES = 3 << 18  # of uint8 images (256 of 32x32); all buffers together take about ten times that


def augment(
    images_NHWC: Tensor,
    indices: Tensor,
    choices: Choices,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None,
    out_NHWC: Tensor,
) -> None:
    """Write finished images into `out_NHWC`, (B,h,w,3) of any strides and float dtype.

    `images_NHWC` is contiguous, everything lies on the CPU; arguments otherwise as in `reference.augment`.
    """
    _, height, width, channels = images_NHWC.shape
    step = max(1, CHUNK_BYTES // (height * width * channels))
    resized = size is not None and tuple(size) != (height, width)
    direct = out_NHWC.dtype == torch.float32 and out_NHWC.is_contiguous() and not resized
    for start in range(0, len(indices), step):
        some, chosen = indices[start : start + step], choices.slice(start, start + step)
        crops = crop_and_flip(images_NHWC, some, chosen)
        target = out_NHWC[start : start + step]
        work = target if direct else _buffer("finished", crops.shape, torch.float32)
        normalise(crops, chosen, mean, std, work)
        erase(work, chosen)
        if resized:
            work = F.interpolate(work.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
            work = work.permute(0, 2, 3, 1)
        if not direct:
            target.copy_(work)


def crop_and_flip(images_NHWC: Tensor, indices: Tensor, choices: Choices) -> Tensor:
    """The windows, uint8 (B,H,W,3), in a buffer that the next call writes again.

    Padding is filled in for `reflect` and `zero`; for `mean` it holds anything, `erase` clears it.
    """
    stored = _buffer("stored", (len(indices), *images_NHWC.shape[1:]), torch.uint8)
    torch.index_select(images_NHWC, 0, indices, out=stored)
    if choices.dy is None and choices.flip is None:
        return stored
    batch, height, width, channels = stored.shape
    pad = choices.spec.crop_padding_px if choices.dy is not None else 0
    dx = torch.zeros(batch, dtype=torch.int64) if choices.dx is None else choices.dx.long()
    if choices.flip is not None:
        dx = torch.where(choices.flip, 2 * pad - dx, dx)  # of the mirror image, mirrored windows start here
    if pad and choices.spec.crop_mode == "reflect":
        layout, image_row, column = _doubled(stored, pad, choices.flip, dx)
    else:
        layout, image_row, column = _padded(stored, pad, choices.flip, dx)
    at = torch.arange(height)
    if choices.dy is not None:
        at = at + choices.dy.long()[:, None] - pad
    rows_BH = image_row[:, None] + reflect(at, height)
    if pad and choices.spec.crop_mode == "zero":
        rows_BH = torch.where((at >= 0) & (at < height), rows_BH, 0)  # row 0 of the layout is black
    first_byte = rows_BH * (layout.shape[1] * channels) + column[:, None] * channels
    windows = layout.as_strided((layout.numel() - width * channels + 1, width * channels), (1, 1))
    crops = _buffer("crops", (batch * height, width * channels), torch.uint8)
    torch.index_select(windows, 0, first_byte.view(-1), out=crops)
    return crops.view(stored.shape)


def _doubled(stored: Tensor, pad: int, flip: Tensor | None, dx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For `reflect`: each row R and its mirror image F side by side, each the other's padding:

        F F F F [R R R … R] F F F … F R R R R     (F's window begins within R: the edge pixel belongs to both)

    Returns the layout (rows,pixels,3), the first row of each image and the first column of each window.
    """
    batch, height, width, channels = stored.shape
    last = pad + 2 * width - 1 if flip is not None else 2 * pad + width
    length = last + (pad if flip is not None else 0)
    layout = _buffer("doubled", (batch * height, length, channels), torch.uint8)
    rows = stored.view(-1, width, channels)
    mirrored = rows.flip(1)
    layout[:, :pad] = mirrored[:, width - 1 - pad : width - 1]
    layout[:, pad : pad + width] = rows
    layout[:, pad + width : last] = mirrored[:, 1 : 1 + last - pad - width]
    layout[:, last:] = rows[:, 1 : 1 + length - last]
    column = dx if flip is None else torch.where(flip, width - 1 + dx, dx)
    return layout, torch.arange(batch) * height, column


def _padded(stored: Tensor, pad: int, flip: Tensor | None, dx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For black padding or none: a black row, each row between black pixels, the mirrored images likewise.

    Returns the layout (rows,pixels,3), the first row of each image and the first column of each window.
    """
    batch, height, width, channels = stored.shape
    layout = _buffer(f"padded{pad}", (2 * batch * height + 1, width + 2 * pad, channels), torch.uint8)
    inner = layout[:, pad : pad + width]
    inner[1 : 1 + batch * height] = stored.view(-1, width, channels)
    place = torch.arange(batch)
    if flip is not None:
        which = flip.nonzero().view(-1)
        mirrored = stored.index_select(0, which).flip(2)
        first = 1 + batch * height
        inner[first : first + len(which) * height] = mirrored.view(-1, width, channels)
        place[which] = torch.arange(batch, batch + len(which))
    return layout, place * height + 1, dx


def normalise(
    crops: Tensor, choices: Choices, mean: Sequence[float], std: Sequence[float], out: Tensor
) -> None:
    """out = crops·scale + offset, (B,H,W,3) each, with brightness and contrast in scale and offset."""
    batch, height, width, _ = crops.shape
    if choices.brightness is None and choices.contrast is None:
        scale, offset = _same_for_all(tuple(mean), tuple(std), height * width)
        out, crops = out.view(batch, -1), crops.view(batch, -1)
    else:  # one a channel, repeated along the row: the innermost loop then runs over contiguous memory
        scale, offset = (x.repeat(1, width)[:, None] for x in affine(choices, mean, std, crops.device))
        out, crops = out.view(batch, height, -1), crops.view(batch, height, -1)
    out.copy_(crops)
    torch.addcmul(offset, out, scale, out=out)


@functools.lru_cache
def _same_for_all(mean: tuple[float, ...], std: tuple[float, ...], pixels: int) -> tuple[Tensor, Tensor]:
    nothing = Choices(count=0)
    scale, offset = affine(nothing, mean, std, torch.device("cpu"))
    return scale.repeat(1, pixels), offset.repeat(1, pixels)


def erase(out: Tensor, choices: Choices) -> None:
    """Zero what cutout covers and, in crop mode `mean`, what lies outside the stored image.

    out is float32 (B,H,W,3). Each row is multiplied by one of few masks, which come from a table.
    """
    _, height, width, channels = out.shape
    at = torch.arange(height)
    if choices.cut_y is not None and choices.cut_x is not None:
        side = choices.spec.cutout_px
        start = choices.cut_y[:, None] - side // 2
        covered = (at >= start) & (at < start + side)
        table = _cutout_masks(side, width, channels)
        _mask_rows(out, table, torch.where(covered, choices.cut_x[:, None], width))
    if choices.dy is not None and choices.dx is not None and choices.spec.crop_mode == "mean":
        pad = choices.spec.crop_padding_px
        dx = choices.dx
        if choices.flip is not None:
            dx = torch.where(choices.flip, 2 * pad - dx, dx)
        start = pad - choices.dy[:, None]
        inside = (at >= start) & (at < start + height)
        table = _crop_masks(pad, width, channels)
        _mask_rows(out, table, torch.where(inside, dx[:, None], 2 * pad + 1))


def _mask_rows(out: Tensor, table: Tensor, which_BH: Tensor) -> None:
    mask = _buffer("mask", (which_BH.numel(), table.shape[1]), torch.float32)
    torch.index_select(table, 0, which_BH.reshape(-1), out=mask)
    out.view(mask.shape).mul_(mask)


@functools.lru_cache
def _cutout_masks(side: int, width: int, channels: int) -> Tensor:
    """Row masks for each centre 0 … W-1, and last the one that keeps everything: (W+1, W·3)."""
    at, start = torch.arange(width), torch.arange(width)[:, None] - side // 2
    keep = ((at < start) | (at >= start + side)).float()
    return torch.cat([keep, torch.ones(1, width)]).repeat_interleave(channels, 1)


@functools.lru_cache
def _crop_masks(pad: int, width: int, channels: int) -> Tensor:
    """Row masks for each dx 0 … 2·pad, and last the one that erases everything: (2·pad+2, W·3)."""
    at, start = torch.arange(width), pad - torch.arange(2 * pad + 1)[:, None]
    keep = ((at >= start) & (at < start + width)).float()
    return torch.cat([keep, torch.zeros(1, width)]).repeat_interleave(channels, 1)


class _Kept(threading.local):
    """Each thread's buffers: one thread's chunk must not land in another's."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[object, ...], Tensor] = {}


_kept = _Kept()


def _buffer(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of this shape that lies where the last one of that name lay; zeros when it is new.

    The black margins of `padded` stay black: all its users of one row length write the same places.
    """
    key, size = (name, dtype, *shape[1:]), math.prod(shape)
    held = _kept.tensors.get(key)
    if held is None or held.numel() < size:
        held = _kept.tensors[key] = torch.zeros(size, dtype=dtype)
    return held[:size].view(*shape)
