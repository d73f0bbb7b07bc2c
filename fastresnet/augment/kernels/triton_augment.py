"""The augmentation kernel as one Triton pass: uint8 in, finished batch out, nothing in between in memory.

The set is stored padded and mirrored (`padding`), so a window is rows of it as they lie, and where the batch
is rows too (channels last, not downsampled), four bytes are read as a word and four values stored at once.
What depends on the run alone is a compile-time constant: what is off costs nothing. `reference` says what is
meant.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastresnet.augment.choices import Choices
from fastresnet.augment.padding import Padded, pad

BLOCK, WARPS = 1024, 4  # values that a program writes one by one; benchmarks/loader.py --tune tries others
WORD_BLOCK, WORD_WARPS = 4096, 2  # the same, lanes beyond a row's end included, where it goes by words
# Slices of an epoch begin anywhere: without this, each alignment would be compiled apart, mid-epoch.
ANYWHERE = ["indices", "dys", "dxs", "flips", "cut_ys", "cut_xs", "brightness", "contrast"]


@triton.jit
def _of(c, red, green, blue):
    return tl.where(c == 0, red, tl.where(c == 1, green, blue))


@triton.jit
def _finished(
    byte,
    y,
    x,
    c,
    dy,
    dx,
    gain,
    shift,
    cut_y,
    cut_x,
    unit_r,
    unit_g,
    unit_b,
    centre_r,
    centre_g,
    centre_b,
    H: tl.constexpr,
    W: tl.constexpr,
    PAD: tl.constexpr,
    ERASE: tl.constexpr,
    CUT: tl.constexpr,
):
    """The value in the batch of a byte that was read for channel c at row y, column x of the window."""
    unit = _of(c, unit_r, unit_g, unit_b)  # 1/(255·std)
    centre = _of(c, centre_r, centre_g, centre_b)  # mean/std
    scale, offset = unit * gain, unit * (shift * 255.0) - centre * gain
    row, column = y + dy - PAD, x + dx - PAD
    if ERASE:  # by columns here and by rows below, so that each is decided once for all of the other
        outside = (column < 0) | (column >= W)
        scale, offset = tl.where(outside, 0.0, scale), tl.where(outside, 0.0, offset)
    if CUT > 0:
        below, right = y - cut_y + CUT // 2, x - cut_x + CUT // 2
        rows, columns = (below >= 0) & (below < CUT), (right >= 0) & (right < CUT)
        scale = tl.where(rows, tl.where(columns, 0.0, scale), scale)
        offset = tl.where(rows, tl.where(columns, 0.0, offset), offset)
    value = byte.to(tl.float32) * scale + offset
    if ERASE:
        value = tl.where((row < 0) | (row >= H), 0.0, value)
    return value


@triton.jit(do_not_specialize=["mirror_images"], do_not_specialize_on_alignment=ANYWHERE)
def _kernel(
    stored,
    words,
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
    mirror_images,
    H: tl.constexpr,
    W: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    PAD: tl.constexpr,
    CROP: tl.constexpr,
    FLIP: tl.constexpr,
    ERASE: tl.constexpr,
    CUT: tl.constexpr,
    BRIGHTNESS: tl.constexpr,
    CONTRAST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WORDS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch_row = tl.program_id(0).to(tl.int64)
    pitch: tl.constexpr = (W + 2 * PAD) * 3  # bytes from row to row
    image = tl.load(indices + batch_row).to(tl.int64)
    dy, dx, cut_y, cut_x, gain, shift = PAD, PAD, 0, 0, 1.0, 0.0
    if CROP:
        dy = tl.load(dys + batch_row)
        dx = tl.load(dxs + batch_row)
    if FLIP:
        mirrored = tl.load(flips + batch_row).to(tl.int32)
        image += mirrored * mirror_images
        dx = tl.where(mirrored != 0, 2 * PAD - dx, dx)
    if CUT > 0:
        cut_y = tl.load(cut_ys + batch_row)
        cut_x = tl.load(cut_xs + batch_row)
    if CONTRAST:
        gain += tl.load(contrast + batch_row)
    if BRIGHTNESS:
        shift += tl.load(brightness + batch_row)
    window = image * ((H + 2 * PAD) * pitch) + dy * pitch + dx * 3  # its first byte

    first = tl.program_id(1) * (BLOCK // (4 * LANES) if WORDS else BLOCK)  # row or value
    if WORDS:  # words, row after row, x their four bytes: neighbouring threads take neighbouring words
        word, k = tl.arange(0, BLOCK // 4)[:, None], tl.arange(0, 4)[None, :]
        y, left = first + word // LANES, 4 * (word % LANES)
        place = window + left
        skipped = ((place & 3) * 8).to(tl.uint32)  # bits of the first word that belong to values before ours
        live = (y < H) & (left < W * 3)
        pair = words + ((place >> 2) + y * (pitch // 4))
        low = tl.load(pair, mask=live, other=0).to(tl.uint32, bitcast=True)
        high = tl.load(pair + 1, mask=live & (skipped != 0), other=0).to(tl.uint32, bitcast=True)
        four = (low >> skipped) | ((high << 1) << (31 - skipped))
        at = y * (W * 3) + left + k
        value = _finished(
            (four >> (8 * k).to(tl.uint32)) & 255, y, (left + k) // 3, (left + k) % 3, dy, dx, gain, shift,
            cut_y, cut_x, unit_r, unit_g, unit_b, centre_r, centre_g, centre_b, H, W, PAD, ERASE, CUT,
        )  # fmt: skip
    else:
        at = first + tl.arange(0, BLOCK)  # along the image as it will lie in memory
        if CHANNELS_LAST:
            c, pixel = at % 3, at // 3
        else:
            c, pixel = at // (h * w), at % (h * w)
        live = at < h * w * 3
        # Bilinear with half-pixel centres, as F.interpolate has it without antialiasing.
        source_y = tl.maximum(((pixel // w).to(tl.float32) + 0.5) * (H / h) - 0.5, 0.0)
        source_x = tl.maximum(((pixel % w).to(tl.float32) + 0.5) * (W / w) - 0.5, 0.0)
        y = tl.minimum(source_y.to(tl.int32), H - 1)
        x = tl.minimum(source_x.to(tl.int32), W - 1)
        below, right = source_y - y.to(tl.float32), source_x - x.to(tl.float32)
        value = tl.full([BLOCK], 0.0, tl.float32)
        for corner in tl.static_range(1 if (h == H) & (w == W) else 4):
            row, column = tl.minimum(y + corner // 2, H - 1), tl.minimum(x + corner % 2, W - 1)
            byte = tl.load(stored + window + (row * pitch + column * 3 + c), mask=live, other=0)
            one = _finished(
                byte, row, column, c, dy, dx, gain, shift, cut_y, cut_x,
                unit_r, unit_g, unit_b, centre_r, centre_g, centre_b, H, W, PAD, ERASE, CUT,
            )  # fmt: skip
            share = (below if corner // 2 else 1 - below) * (right if corner % 2 else 1 - right)
            value += one * share
    tl.store(out + batch_row * (h * w * 3) + at, value.to(out.dtype.element_ty), mask=live)


def augment(
    stored: Tensor | Padded,
    indices: Tensor,
    choices: Choices,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int],
    out_NHWC: Tensor,
    block: int = 0,
    warps: int = 0,
) -> None:
    """Write finished images into `out_NHWC`, (B,h,w,3), whose memory runs as NHWC or as NCHW without gaps.

    stored:        contiguous; a set that isn't padded yet is padded for this batch
    block, warps:  values and warps of a program (0: BLOCK and WARPS, or for words WORD_BLOCK and WORD_WARPS)

    All tensors lie on one GPU; arguments otherwise as in `reference.augment`. Never waits.
    """
    if not len(indices):
        return
    if isinstance(stored, Tensor):
        stored = pad(stored.index_select(0, indices), choices.spec)
        indices = torch.arange(len(indices), device=indices.device)
    _check(stored, choices, out_NHWC)
    height, width = stored.shape[1:3]
    by_words = out_NHWC.is_contiguous() and size == (height, width) and _in_words(stored.pixels, width)
    lanes = triton.next_power_of_2(width * 3 // 4)
    block = block or (max(WORD_BLOCK, 4 * lanes) if by_words else BLOCK)
    parts = triton.cdiv(height * lanes * 4 if by_words else size[0] * size[1] * 3, block)
    _kernel[len(indices), parts](
        stored.pixels,
        stored.pixels.view(-1).view(torch.int32) if by_words else indices,
        indices,
        *(indices if x is None else x for x in _drawn(choices)),  # a pointer for what is off: never read
        out_NHWC,
        *(1 / (255 * s) for s in std),
        *(m / s for m, s in zip(mean, std)),
        len(stored),
        H=height,
        W=width,
        h=size[0],
        w=size[1],
        PAD=stored.padding,
        **_switches(choices),
        CHANNELS_LAST=out_NHWC.is_contiguous(),
        WORDS=by_words,
        LANES=lanes,
        BLOCK=block,
        num_warps=warps or (WORD_WARPS if by_words else WARPS),
        enable_fp_fusion=True,
    )


def _check(stored: Padded, choices: Choices, out_NHWC: Tensor) -> None:
    gaps = not (out_NHWC.is_contiguous() or out_NHWC.permute(0, 3, 1, 2).is_contiguous())
    assert not gaps, "out must lie in memory without gaps"
    assert stored.pixels.is_contiguous() and stored.shape[3] == 3
    assert choices.dy is None or stored.padding == choices.spec.crop_padding_px
    assert choices.flip is None or stored.mirrored


def _drawn(choices: Choices) -> tuple[Tensor | None, ...]:
    """The choices in the kernel's order."""
    flips = None if choices.flip is None else choices.flip.view(torch.uint8)
    cut = (choices.cut_y, choices.cut_x)
    return (choices.dy, choices.dx, flips, *cut, choices.brightness, choices.contrast)


def _switches(choices: Choices) -> dict[str, int]:
    """What is on, as constants for the compiler."""
    return dict(
        CROP=choices.dy is not None,
        FLIP=choices.flip is not None,
        ERASE=choices.dy is not None and choices.spec.crop_mode == "mean",
        CUT=choices.spec.cutout_px if choices.cut_y is not None else 0,
        BRIGHTNESS=choices.brightness is not None,
        CONTRAST=choices.contrast is not None,
    )


def _in_words(pixels: Tensor, width: int) -> bool:
    """Whether the stored rows, a window's rows and the whole are words without a rest."""
    return not any(n % 4 for n in (width, pixels.shape[2], pixels.numel(), pixels.storage_offset()))
