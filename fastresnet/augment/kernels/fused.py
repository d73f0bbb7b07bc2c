"""The augmentation kernel for a CPU with numba: each image is read once, row by row, and written finished.

A row is cropped, mirrored and padded as 3·W bytes in the first-level cache, then scaled, erased and cast
there. Threads take pieces of the batch; they hold no lock and share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.augment.choices import CROP_MODES, Choices
from fastresnet.augment.kernels.reference import affine

REFLECT, ZERO, MEAN = range(len(CROP_MODES))
NO_CHOICE = np.zeros(0, dtype=np.int32)
NOT_WRITTEN = {torch.float32: np.zeros((0, 0, 0), np.float32), torch.bfloat16: np.zeros((0, 0, 0), np.uint16)}


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
    batch, (height, width) = len(indices), images_NHWC.shape[1:3]
    resized = size is not None and tuple(size) != (height, width)
    direct = out_NHWC.is_contiguous() and out_NHWC.dtype in NOT_WRITTEN and not resized
    work = out_NHWC if direct else torch.empty((batch, height, width, 3), dtype=torch.float32)
    _finish(images_NHWC, indices, choices, mean, std, work)
    if resized:
        work = F.interpolate(work.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
        work = work.permute(0, 2, 3, 1)
    if not direct:
        out_NHWC.copy_(work)


def _finish(
    images: Tensor,
    indices: Tensor,
    choices: Choices,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    """Full-size images into `out`, contiguous (B,H,W,3), fp32 or bf16, on PyTorch's number of threads."""
    batch, height = len(indices), out.shape[1]
    outs = dict(NOT_WRITTEN)
    if out.dtype == torch.bfloat16:
        outs[torch.bfloat16] = out.view(torch.int16).view(batch, height, -1).numpy().view(np.uint16)
    else:
        outs[torch.float32] = out.view(batch, height, -1).numpy()
    spec = choices.spec
    scale, offset = (x.contiguous().numpy() for x in affine(choices, mean, std, torch.device("cpu")))
    arguments: tuple[Any, ...] = (
        images.numpy(), indices.numpy(), *map(_numbers, (choices.dy, choices.dx, choices.flip)),
        *map(_numbers, (choices.cut_y, choices.cut_x)), scale, offset,
        spec.crop_padding_px if choices.dy is not None else 0, CROP_MODES.index(spec.crop_mode),
        spec.cutout_px, outs[torch.float32], outs[torch.bfloat16],
    )  # fmt: skip
    threads = min(torch.get_num_threads(), max(1, batch // 64))
    if threads == 1:
        _fill(*arguments, 0, batch)
        return
    cuts = [batch * k // threads for k in range(threads + 1)]
    pieces = [_pool(threads).submit(_fill, *arguments, *cut) for cut in zip(cuts, cuts[1:])]
    for piece in pieces:
        piece.result()


def _numbers(values: Tensor | None) -> np.ndarray:
    return NO_CHOICE if values is None else values.to(torch.int32).contiguous().numpy()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")


def _rows(
    images: Any, indices: Any, dy: Any, dx: Any, flip: Any, cut_y: Any, cut_x: Any, scale: Any, offset: Any,
    pad: Any, mode: Any, cut: Any, out32: Any, out16: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Images `first` to `last` of the batch.

    An empty array stands for a choice that isn't made, or an output that isn't wanted; scale and offset have
    a row an image, or one for all.
    """
    height, width = images.shape[1], images.shape[2]
    row = np.empty(3 * width, np.uint8)
    line = np.empty(3 * width, np.float32)
    bits = line.view(np.uint32)
    gain, shift = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
    for b in range(first, last):
        image = images[indices[b]].reshape(height, 3 * width)
        if b == first or len(scale) > 1:
            own = b if len(scale) > 1 else 0
            for k in range(3 * width):
                gain[k], shift[k] = scale[own, k % 3], offset[own, k % 3]
        up = dy[b] - pad if len(dy) else 0
        left = dx[b] - pad if len(dx) else 0
        mirrored = len(flip) > 0 and flip[b] != 0
        inner, outer = max(0, -left), min(width, width - left)  # columns of the window that lie in the image
        hole_y, hole_x = (cut_y[b] - cut // 2, cut_x[b] - cut // 2) if len(cut_y) else (height, width)
        for y in range(height):
            source = y + up
            inside = 0 <= source < height
            if not inside and mode == REFLECT:
                source = abs(source)
                source = height - 1 - abs(height - 1 - source)
                inside = True
            if inside:
                stored = image[source]
                if mirrored:
                    for x in range(inner, outer):
                        for c in range(3):
                            row[3 * (width - 1 - x) + c] = stored[3 * (x + left) + c]
                else:
                    for k in range(3 * inner, 3 * outer):
                        row[k] = stored[k + 3 * left]
                for side in range(2):
                    for x in range(0 if side == 0 else outer, inner if side == 0 else width):
                        place = width - 1 - x if mirrored else x
                        column = abs(x + left)
                        column = width - 1 - abs(width - 1 - column)
                        for c in range(3):
                            row[3 * place + c] = stored[3 * column + c] if mode == REFLECT else 0
            else:
                row[:] = 0
            for k in range(3 * width):
                line[k] = np.float32(row[k]) * gain[k] + shift[k]
            if mode == MEAN:
                if not inside:
                    line[:] = 0.0
                for x in range(width):
                    if x < inner or x >= outer:
                        place = width - 1 - x if mirrored else x
                        line[3 * place : 3 * place + 3] = 0.0
            if hole_y <= y < hole_y + cut:
                line[3 * max(0, hole_x) : 3 * max(0, min(width, hole_x + cut))] = 0.0
            if len(out32):
                target = out32[b, y]
                for k in range(3 * width):
                    target[k] = line[k]
            else:
                half = out16[b, y]
                for k in range(3 * width):  # round to nearest, ties to even; finite numbers only
                    odd = (bits[k] >> np.uint32(16)) & np.uint32(1)
                    half[k] = (bits[k] + np.uint32(0x7FFF) + odd) >> np.uint32(16)


_fill: Any = numba.njit(nogil=True, cache=True)(_rows)  # without the interpreter's lock, kept on the disk
