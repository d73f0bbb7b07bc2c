"""The passes of `norms`, compiled by numba: images channels last, in bf16 (as its 16 bits) or fp32.

Arithmetic is fp32; sums are fp32 within a chunk of lines (rows of an image's pixels) and fp64 beyond. Chunks
follow from the images alone and are added up in their order, so that any number of threads gives the same.
Loops over channels are innermost: they become vector instructions.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.compiler import Compiler

from fastresnet.cpu.brain import FLOAT, WORD, intrinsic, narrow, wide
from fastresnet.cpu.threads import team

RELU, SILU, GELU = (0,), (0, 0), (0, 0, 0)  # told apart by their types: each compiles when first used
CHUNK = 256  # pixels, about
f32 = np.float32
ZERO, HALF, ONE, LOG2_E, LOWEST = map(f32, (0, 0.5, 1, 1.4426950408889634, -126))
WHOLE = f32(1.5 * 2**23)  # added to a small number it leaves the nearest whole one in the last bits
# 2^f on [-0.5, 0.5]: least squares at Chebyshev's nodes, off by 2.3e-7 of the value at most
P5, P4, P3, P2, P1 = map(f32, (1.32669704e-3, 9.67545975e-3, 5.55074262e-2, 2.40221218e-1, 6.93146949e-1))
# erf, Abramowitz & Stegun 1964, 7.1.26: off by 1.5e-7 at most
E5, E4, E3, E2, E1 = map(f32, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
ERF_RATE, NORMAL = f32(0.3275911 * 0.5**0.5), f32(0.3989422804014327)  # the latter 1/sqrt(2 pi)

_inline: Any = numba.njit(inline="always", error_model="numpy")
# The compiled code is kept on the disk until this file changes; so what is inlined from elsewhere must not.
_pass: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


class _Apart(Compiler):
    """Compiles for arrays that share no memory: without checks for it, which stop LLVM from using vectors."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags.noalias = True


_share: Any = numba.njit(
    nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, pipeline_class=_Apart
)


@intrinsic
def times_power(_: Any, value: Any, marked: Any) -> Any:
    """value 2^n, where marked is WHOLE + n; both fp32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits, power = (builder.bitcast(one, WORD) for one in values)
        return builder.bitcast(builder.add(bits, builder.shl(power, WORD(23))), FLOAT)

    return types.float32(types.float32, types.float32), generate


@_inline
def exp(x: Any) -> Any:
    """Of x <= 0."""
    exponent = max(x * LOG2_E, LOWEST)
    marked = exponent + WHOLE
    f = exponent - (marked - WHOLE)
    return times_power(((((P5 * f + P4) * f + P3) * f + P2) * f + P1) * f + ONE, marked)


@_inline
def activation(kind: Any, z: Any, slope: Any) -> Any:
    """The activation of z, or its derivative there."""
    if len(kind) == 1:
        return (ONE if z > ZERO else ZERO) if slope else max(z, ZERO)
    if len(kind) == 2:
        e = exp(-abs(z))
        share = (ONE if z > ZERO else e) / (ONE + e)
        return share * (ONE + z * (ONE - share)) if slope else z * share
    e = exp(-HALF * z * z)
    t = ONE / (ONE + ERF_RATE * abs(z))
    tail = HALF * ((((E5 * t + E4) * t + E3) * t + E2) * t + E1) * t * e
    share = ONE - tail if z > ZERO else tail
    return share + z * NORMAL * e if slope else z * share


# ---- a thread's share of each pass -------------------------------------------------------------------------


@_inline
def _size(x: Any) -> Any:
    """How many lines of x (L,W,C) make a chunk."""
    return max(1, CHUNK // x.shape[1])


@_inline
def _sums(x: Any) -> Any:
    """Room for two numbers a channel of each chunk."""
    return np.empty(((len(x) - 1) // _size(x) + 1, 2, x.shape[2]), f32)


@_inline
def _chunk(k: Any, x: Any) -> Any:
    return range(k * _size(x), min((k + 1) * _size(x), x.shape[0]))


@_inline
def _mine(count: Any, thread: Any, threads: Any) -> Any:
    return range(count * thread // threads, count * (thread + 1) // threads)


@_inline
def _beats(later: Any, earlier: Any) -> Any:
    """Whether it is the greater one, or not a number."""
    return (later > earlier) | (later != later)


@_share
def _pool(x: Any, origin: Any, pooled: Any, which: Any, sums: Any, thread: int, threads: int) -> None:
    height, (_, width, channels) = x.shape[1] // 2, pooled.shape
    for k in _mine(len(sums), thread, threads):
        sums[k] = ZERO
        for line in _chunk(k, pooled):
            n, i = line // height, line % height
            for j in range(width):
                for c in range(channels):
                    a, b = wide(x[n, 2 * i, 2 * j, c]), wide(x[n, 2 * i, 2 * j + 1, c])
                    d, e = wide(x[n, 2 * i + 1, 2 * j, c]), wide(x[n, 2 * i + 1, 2 * j + 1, c])
                    right, below_right = _beats(b, a), _beats(e, d)
                    upper, lower = b if right else a, e if below_right else d
                    below = _beats(lower, upper)
                    v = lower if below else upper
                    which[line, j, c] = (3 if below_right else 2) if below else (1 if right else 0)
                    pooled[line, j, c] = narrow(v, x[n, i, j, c])
                    v -= origin[c]
                    sums[k, 0, c] += v
                    sums[k, 1, c] += v * v


@_share
def _moments(x: Any, origin: Any, sums: Any, thread: int, threads: int) -> None:
    for k in _mine(len(sums), thread, threads):
        sums[k] = ZERO
        for line in _chunk(k, x):
            for j in range(x.shape[1]):
                for c in range(x.shape[2]):
                    v = wide(x[line, j, c]) - origin[c]
                    sums[k, 0, c] += v
                    sums[k, 1, c] += v * v


@_share
def _activate(
    x: Any, skip: Any, kind: Any, scale: Any, shift: Any, y: Any, thread: int, threads: int
) -> None:
    for line in _mine(len(x), thread, threads):
        for j in range(x.shape[1]):
            for c in range(x.shape[2]):
                z = scale[c] * wide(x[line, j, c]) + shift[c]
                if skip is not None:
                    z += wide(skip[line, j, c])
                y[line, j, c] = narrow(activation(kind, z, False), x[line, j, c])


@_share
def _through_activation(
    x: Any,
    skip: Any,
    gy: Any,
    kind: Any,
    scale: Any,
    shift: Any,
    gz: Any,
    sums: Any,
    thread: int,
    threads: int,
) -> None:
    for k in _mine(len(sums), thread, threads):
        sums[k] = ZERO
        for line in _chunk(k, x):
            for j in range(x.shape[1]):
                for c in range(x.shape[2]):
                    v = wide(x[line, j, c])
                    z = scale[c] * v + shift[c]
                    if skip is not None:
                        z += wide(skip[line, j, c])
                    g = wide(gy[line, j, c]) * activation(kind, z, True)
                    gz[line, j, c] = narrow(g, x[line, j, c])
                    sums[k, 0, c] += g
                    sums[k, 1, c] += g * v


@_share
def _through_norm(
    x: Any, gz: Any, scale: Any, constant: Any, slope: Any, gx: Any, thread: int, threads: int
) -> None:
    for line in _mine(len(x), thread, threads):
        for j in range(x.shape[1]):
            for c in range(x.shape[2]):
                g = scale[c] * wide(gz[line, j, c]) + constant[c] + slope[c] * wide(x[line, j, c])
                gx[line, j, c] = narrow(g, x[line, j, c])


@_share
def _through_pool(
    x: Any, gz: Any, which: Any, scale: Any, constant: Any, slope: Any, gx: Any, thread: int, threads: int
) -> None:
    height, (_, width, channels) = gx.shape[1] // 2, x.shape
    for line in _mine(len(x), thread, threads):
        n, i = line // height, line % height
        for j in range(width):
            for c in range(channels):
                g = scale[c] * wide(gz[line, j, c]) + constant[c] + slope[c] * wide(x[line, j, c])
                most, place = narrow(g, x[line, j, c]), which[line, j, c]
                gx[n, 2 * i, 2 * j, c] = most if place == 0 else 0
                gx[n, 2 * i, 2 * j + 1, c] = most if place == 1 else 0
                gx[n, 2 * i + 1, 2 * j, c] = most if place == 2 else 0
                gx[n, 2 * i + 1, 2 * j + 1, c] = most if place == 3 else 0
        gx[n, 2 * i : 2 * i + 2, 2 * width :] = 0
        if i == height - 1:
            gx[n, 2 * height :] = 0


# ---- forward and backward ----------------------------------------------------------------------------------


@_inline
def _line(statistics: Any, bias: Any, eps: Any) -> Any:
    """Norm and bias as scale x + shift, fp32 a channel."""
    scale, shift = np.empty(len(bias), f32), np.empty(len(bias), f32)
    for c in range(len(bias)):
        factor = 1 / np.sqrt(statistics[1, c] + eps)
        scale[c], shift[c] = factor, bias[c] - statistics[0, c] * factor
    return scale, shift


@_inline
def _total(sums: Any) -> Any:
    """(chunks,2,C) fp32 -> (2,C) fp64."""
    total = np.zeros(sums.shape[1:])
    for part in sums:
        total += part
    return total


@_pass
def forward(
    threads: int, x: Any, pooled: Any, which: Any, skip: Any, kind: Any, bias: Any, eps: float,
    statistics: Any, y: Any,
) -> None:  # fmt: skip
    """x (N,H,W,C) -> y (N h,w,C), and mean and variance, statistics (2,C) fp64.

    pooled, which:  maxima of 2x2 pixels and which of the four they were (N h,w,C), written, too; without a
                    pool the images themselves, and None
    skip:           what is added before the activation (N h,w,C), or None
    """
    sums, origin = _sums(y), np.empty(len(bias), f32)
    for c in range(len(bias)):
        origin[c] = wide(x[0, 0, 0, c])  # near the mean, so that squares stay small
    if which is None:
        team(_moments, threads, (pooled, origin, sums))
    else:
        team(_pool, threads, (x, origin, pooled, which, sums))
    total = _total(sums) / (y.shape[0] * y.shape[1])
    for c in range(len(bias)):
        statistics[0, c] = total[0, c] + origin[c]
        statistics[1, c] = max(total[1, c] - total[0, c] ** 2, 0)
    scale, shift = _line(statistics, bias, eps)
    team(_activate, threads, (pooled, skip, kind, scale, shift, y))


@_pass
def backward(
    threads: int, pooled: Any, which: Any, skip: Any, kind: Any, bias: Any, eps: float, statistics: Any,
    gy: Any, gz: Any, gx: Any, gbias: Any,
) -> None:  # fmt: skip
    """gy (N h,w,C) -> gx (N,H,W,C), or (N h,w,C) without a pool; gz (N h,w,C), skip's too; and gbias (C).

    With u = scale (x - mean) and means over the batch gx is scale (gz - mean(gz) - u mean(gz u)).
    """
    scale, shift = _line(statistics, bias, eps)
    sums = _sums(gy)
    team(_through_activation, threads, (pooled, skip, gy, kind, scale, shift, gz, sums))
    total, count = _total(sums), gy.shape[0] * gy.shape[1]
    constant, slope = np.empty(len(bias), f32), np.empty(len(bias), f32)
    for c in range(len(bias)):
        gbias[c] = total[0, c]
        steep = -(np.float64(scale[c]) ** 3) * (total[1, c] - statistics[0, c] * total[0, c]) / count
        slope[c], constant[c] = steep, -scale[c] * total[0, c] / count - steep * statistics[0, c]
    if which is None:
        team(_through_norm, threads, (pooled, gz, scale, constant, slope, gx))
    else:
        team(_through_pool, threads, (pooled, gz, which, scale, constant, slope, gx))
