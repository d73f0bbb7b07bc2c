"""The augmentation kernel as one Triton pass: uint8 in, finished batch out, nothing in between in memory.

A program makes BLOCK neighbouring values of one image. All that depends on the run alone (sizes, padding,
which options are on) is a compile-time constant, so that what is off costs nothing. `reference` says what is
meant.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastresnet.augment.kernels import Choices

BLOCK = 1024  # values a program writes; benchmarks/loader.py --tune measures the alternatives
WARPS = 4
MODES = {"none": 0, "reflect": 1, "zero": 2, "mean": 3}


@triton.jit
def _reflected(position, LENGTH: tl.constexpr):
    last = LENGTH - 1
    return last - tl.abs(last - tl.abs(position))


@triton.jit
def _pixel(
    image,
    y,
    x,
    c,
    dy,
    dx,
    mirrored,
    scale,
    offset,
    cut_y,
    cut_x,
    live,
    H: tl.constexpr,
    W: tl.constexpr,
    PAD: tl.constexpr,
    MODE: tl.constexpr,
    FLIP: tl.constexpr,
    CUT: tl.constexpr,
):
    """The finished value of channel c at row y, column x of the window, before downsampling."""
    row, column = y, x
    if FLIP:
        column = tl.where(mirrored, W - 1 - x, x)
    if MODE != 0:
        row = row + dy - PAD
        column = column + dx - PAD
        outside = (row < 0) | (row >= H) | (column < 0) | (column >= W)
        row = _reflected(row, H)
        column = _reflected(column, W)
    value = tl.load(image + (row * W + column) * 3 + c, mask=live, other=0).to(tl.float32)
    if MODE == 2:
        value = tl.where(outside, 0.0, value)
    value = value * scale + offset
    if MODE == 3:
        value = tl.where(outside, 0.0, value)
    if CUT > 0:
        top = cut_y - CUT // 2
        left = cut_x - CUT // 2
        value = tl.where((y >= top) & (y < top + CUT) & (x >= left) & (x < left + CUT), 0.0, value)
    return value


@triton.jit
def _kernel(
    images,
    indices,
    dys,
    dxs,
    flips,
    cut_ys,
    cut_xs,
    brightness,
    contrast,
    out,
    unit_r,
    unit_g,
    unit_b,
    centre_r,
    centre_g,
    centre_b,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    PAD: tl.constexpr,
    MODE: tl.constexpr,
    FLIP: tl.constexpr,
    CUT: tl.constexpr,
    BRIGHTNESS: tl.constexpr,
    CONTRAST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch_row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # along the image as it will lie in memory
    live = at < h * w * 3
    if CHANNELS_LAST:
        c, pixel = at % 3, at // 3
    else:
        c, pixel = at // (h * w), at % (h * w)
    y, x = pixel // w, pixel % w

    image = images + tl.load(indices + batch_row).to(tl.int64) * (H * W * 3)
    dy, dx, mirrored, cut_y, cut_x = 0, 0, False, 0, 0
    if MODE != 0:
        dy = tl.load(dys + batch_row)
        dx = tl.load(dxs + batch_row)
    if FLIP:
        mirrored = tl.load(flips + batch_row) != 0
    if CUT > 0:
        cut_y = tl.load(cut_ys + batch_row)
        cut_x = tl.load(cut_xs + batch_row)
    gain, shift = 1.0, 0.0
    if CONTRAST:
        gain = 1.0 + tl.load(contrast + batch_row)
    if BRIGHTNESS:
        shift = tl.load(brightness + batch_row)
    unit = tl.where(c == 0, unit_r, tl.where(c == 1, unit_g, unit_b))  # 1/std
    centre = tl.where(c == 0, centre_r, tl.where(c == 1, centre_g, centre_b))  # mean/std
    scale = unit * (gain / 255.0)
    offset = shift * unit - centre * gain

    if (h == H) & (w == W):
        value = _pixel(
            image, y, x, c, dy, dx, mirrored, scale, offset, cut_y, cut_x, live, H, W, PAD, MODE, FLIP, CUT
        )
    else:  # bilinear with half-pixel centres, as F.interpolate has it without antialiasing
        source_y = tl.maximum((y.to(tl.float32) + 0.5) * (H / h) - 0.5, 0.0)
        source_x = tl.maximum((x.to(tl.float32) + 0.5) * (W / w) - 0.5, 0.0)
        y0 = tl.minimum(source_y.to(tl.int32), H - 1)
        x0 = tl.minimum(source_x.to(tl.int32), W - 1)
        y1 = tl.minimum(y0 + 1, H - 1)
        x1 = tl.minimum(x0 + 1, W - 1)
        below = source_y - y0.to(tl.float32)
        right = source_x - x0.to(tl.float32)
        a = _pixel(
            image, y0, x0, c, dy, dx, mirrored, scale, offset, cut_y, cut_x, live, H, W, PAD, MODE, FLIP, CUT
        )
        b = _pixel(
            image, y0, x1, c, dy, dx, mirrored, scale, offset, cut_y, cut_x, live, H, W, PAD, MODE, FLIP, CUT
        )
        d = _pixel(
            image, y1, x0, c, dy, dx, mirrored, scale, offset, cut_y, cut_x, live, H, W, PAD, MODE, FLIP, CUT
        )
        e = _pixel(
            image, y1, x1, c, dy, dx, mirrored, scale, offset, cut_y, cut_x, live, H, W, PAD, MODE, FLIP, CUT
        )
        value = (a * (1 - right) + b * right) * (1 - below) + (d * (1 - right) + e * right) * below
    tl.store(out + batch_row * (h * w * 3) + at, value.to(out.dtype.element_ty), mask=live)


def augment(
    images_NHWC: Tensor,
    indices: Tensor,
    choices: Choices,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int],
    out_NHWC: Tensor,
    block: int = BLOCK,
    warps: int = WARPS,
) -> None:
    """Write finished images into `out_NHWC`, (B,h,w,3), whose memory runs as NHWC or as NCHW without gaps.

    `images_NHWC` is contiguous, all tensors lie on one GPU; arguments otherwise as in `reference.augment`.
    Launches one kernel and never waits.
    """
    if not len(indices):
        return
    channels_last = out_NHWC.is_contiguous()
    assert images_NHWC.is_contiguous() and images_NHWC.shape[3] == 3
    assert channels_last or out_NHWC.permute(0, 3, 1, 2).is_contiguous(), (
        "out must lie in memory without gaps"
    )
    spec, held = choices.spec, indices  # a pointer for what is off: never read
    flips = held if choices.flip is None else choices.flip.view(torch.uint8)
    grid = (len(indices), triton.cdiv(size[0] * size[1] * 3, block))
    _kernel[grid](
        images_NHWC,
        indices,
        *(held if x is None else x for x in (choices.dy, choices.dx)),
        flips,
        *(
            held if x is None else x
            for x in (choices.cut_y, choices.cut_x, choices.brightness, choices.contrast)
        ),
        out_NHWC,
        *(1 / s for s in std),
        *(m / s for m, s in zip(mean, std)),
        H=images_NHWC.shape[1],
        W=images_NHWC.shape[2],
        h=size[0],
        w=size[1],
        PAD=spec.crop_padding_px,
        MODE=MODES["none" if choices.dy is None else spec.crop_mode],
        FLIP=choices.flip is not None,
        CUT=spec.cutout_px if choices.cut_y is not None else 0,
        BRIGHTNESS=choices.brightness is not None,
        CONTRAST=choices.contrast is not None,
        CHANNELS_LAST=channels_last,
        BLOCK=block,
        num_warps=warps,
        enable_fp_fusion=True,
    )
