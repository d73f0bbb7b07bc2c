"""The gradient of a 3x3 convolution's weights, compiled by numba for AVX512-BF16.

Two images lie in one another, value by value, as the instruction wants its pairs; so any shift of the filter
is another address and nothing is copied for it, and what a filter sees beyond the border is left out. The
innermost loop has 8 x 32 sums in registers: an instruction adds, in each of 16 places, two products of bf16
numbers to a sum in fp32.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from fastresnet.cpu.brain import BFloat
from fastresnet.cpu.convolution import COLUMNS, ROWS
from fastresnet.cpu.threads import team

PIXELS = 200  # at least so many between loading a tile's sums and storing them
LANES = 16
BYTES = 4  # of a pair of bf16 numbers, and of a sum
VECTORS = COLUMNS // LANES
WORD, LONG = ir.IntType(32), ir.IntType(64)
SUMS, WORDS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(WORD, LANES)
# The compiled code is kept on the disk until this file changes; so what it takes from others must not.
_pass: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
intrinsic: Any = extending.intrinsic
PAIRS = ir.VectorType(BFloat(), 2 * LANES)


@intrinsic
def add_products(
    _: Any, x: Any, gy: Any, sums: Any, images: Any, height: Any, width: Any,
    x_image: Any, x_row: Any, gy_image: Any, gy_row: Any, sums_row: Any,
) -> Any:  # fmt: skip
    """sums[i, o] += x[n, y, z, i] gy[n, y, z, o] over n, y, z and the two numbers of each pair.

    x, gy, sums:             addresses of pairs (images,height,width,8), pairs (…,32) and fp32 (8,32)
    x_image, x_row, …:       bytes from one image, or row, to the next; pixels lie side by side
    """

    def generate(_: Any, builder: Any, __: Any, values: Any) -> None:
        x, gy, sums, images, height, width, x_image, x_row, gy_image, gy_row, sums_row = values
        places = [
            (builder.add(sums, builder.mul(sums_row, LONG(i))), LONG(o * LANES * BYTES))
            for i in range(ROWS)
            for o in range(VECTORS)
        ]
        kept = [cgutils.alloca_once(builder, SUMS) for _ in places]  # LLVM makes registers of these
        for place, sum_ in zip(places, kept):
            builder.store(_load(builder, *place, SUMS), sum_)
        with cgutils.for_range(builder, images) as image, cgutils.for_range(builder, height) as row:
            x_at = _at(builder, x, (image.index, x_image), (row.index, x_row))
            gy_at = _at(builder, gy, (image.index, gy_image), (row.index, gy_row))
            with cgutils.for_range(builder, width) as pixel:
                _add_pixel(
                    builder,
                    _at(builder, x_at, (pixel.index, LONG(ROWS * BYTES))),
                    _at(builder, gy_at, (pixel.index, LONG(COLUMNS * BYTES))),
                    kept,
                )
        for place, sum_ in zip(places, kept):
            builder.store(builder.load(sum_), _pointer(builder, *place, SUMS), align=BYTES)

    return types.void(*[types.intp] * 11), generate


def _add_pixel(builder: Any, x: Any, gy: Any, kept: list[Any]) -> None:
    kind = ir.FunctionType(SUMS, [SUMS, PAIRS, PAIRS])
    product = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
    columns = [
        builder.bitcast(_load(builder, gy, LONG(o * LANES * BYTES), WORDS), PAIRS) for o in range(VECTORS)
    ]
    nothing = ir.Constant(WORDS, ir.Undefined)
    for i in range(ROWS):
        one = builder.insert_element(nothing, _load(builder, x, LONG(i * BYTES), WORD), WORD(0))
        row = builder.bitcast(builder.shuffle_vector(one, nothing, ir.Constant(WORDS, [0] * LANES)), PAIRS)
        for o, column in enumerate(columns):
            sum_ = kept[i * VECTORS + o]
            builder.store(builder.call(product, [builder.load(sum_), row, column]), sum_)


def _at(builder: Any, address: Any, *steps: tuple[Any, Any]) -> Any:
    """The address so many steps of so many bytes further."""
    for count, size in steps:
        address = builder.add(address, builder.mul(count, size))
    return address


def _pointer(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _load(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, offset, kind), align=BYTES)


# ---- all tiles ---------------------------------------------------------------------------------------------


@_pass
def weight_gradient(x: Any, gy: Any, sums: Any, threads: int) -> None:
    """Adds the gradient to sums (threads,9,I,O) fp32, a part by each thread: x (N,h,w,I), gy (N,h,w,O).

    x and gy hold bf16 numbers as their bits; I is a multiple of 8, O of 32.
    """
    team(_part, threads, (x, gy, sums))


@_pass
def _part(x: Any, gy: Any, sums: Any, thread: int, threads: int) -> None:
    images, height, width, inputs = x.shape
    outputs, pairs = gy.shape[3], (images + 1) // 2
    some = (PIXELS + height * width - 1) // (height * width)
    x_pairs = np.empty((some, inputs // ROWS, height, width, ROWS), np.uint32)
    gy_pairs = np.empty((some, outputs // COLUMNS, height, width, COLUMNS), np.uint32)
    last = pairs * (thread + 1) // threads
    for first in range(pairs * thread // threads, last, some):
        count = min(some, last - first)
        _interleave(x, first, count, x_pairs)
        _interleave(gy, first, count, gy_pairs)
        _add(x_pairs, gy_pairs, count, sums[thread])


@_pass
def _interleave(images: Any, first: int, count: int, pairs: Any) -> None:
    """Images 2k and 2k + 1 as the halves of words, channels in blocks: (N,h,w,C) -> (n,C/B,h,w,B)."""
    height, width = images.shape[1:3]
    blocks, size = pairs.shape[1], pairs.shape[4]
    for k in range(count):
        even = 2 * (first + k)
        odd = even + 1
        alone = np.uint32(0 if odd == len(images) else 0xFFFF)
        odd = min(odd, len(images) - 1)
        for y in range(height):
            for z in range(width):
                for block in range(blocks):
                    for c in range(size):
                        low = np.uint32(images[even, y, z, block * size + c])
                        high = np.uint32(images[odd, y, z, block * size + c]) & alone
                        pairs[k, block, y, z, c] = low | (high << np.uint32(16))


@_pass
def _add(x: Any, gy: Any, count: int, sums: Any) -> None:
    """The products of these pairs of images, for each of the filter's nine places."""
    inner, height, width = x.shape[1:4]
    outer, outputs = gy.shape[1], sums.shape[2]
    x_row, gy_row = width * ROWS * BYTES, width * COLUMNS * BYTES
    x_block, gy_block = height * x_row, height * gy_row
    for place in range(9):
        down, right = place // 3 - 1, place % 3 - 1  # where x is seen from the gradient's pixel
        y, z = max(0, -down), max(0, -right)
        x_at = x.ctypes.data + (y + down) * x_row + (z + right) * ROWS * BYTES
        gy_at = gy.ctypes.data + y * gy_row + z * COLUMNS * BYTES
        for o in range(outer):
            for i in range(inner):
                add_products(
                    x_at + i * x_block,
                    gy_at + o * gy_block,
                    sums.ctypes.data + ((place * inner + i) * ROWS * outputs + o * COLUMNS) * BYTES,
                    count,
                    height - abs(down),
                    width - abs(right),
                    inner * x_block,
                    x_row,
                    outer * gy_block,
                    gy_row,
                    outputs * BYTES,
                )
