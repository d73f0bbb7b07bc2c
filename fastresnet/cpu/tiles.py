"""Tiles of images to the places where a convolution is a product of matrices, and back, compiled by numba.

A tile's transform is written out for sixteen channels at a time, its matrix as constants in the instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from fastresnet.cpu.brain import BFloat
from fastresnet.cpu.threads import team
from fastresnet.cpu.winograd import LANES, matrices

# What is transformed; told apart by their types, as sizes of tiles are
IMAGES, GRADIENTS, FILTERS = (0,), (0, 0), (0, 0, 0)
MOST = 36  # pixels of a tile
LONG, HALF, WORD = ir.IntType(64), ir.IntType(16), ir.IntType(32)
FLOATS, WORDS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(WORD, LANES)
HALVES, BRAIN = ir.VectorType(HALF, LANES), ir.VectorType(BFloat(), LANES)
Address = Callable[[int], Any]
intrinsic: Any = extending.intrinsic
# The compiled code is kept on the disk until this file changes; so what it takes from others must not.
_pass: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


# ---- one tile, sixteen channels ----------------------------------------------------------------------------


@intrinsic
def to_places(
    _: Any, which: Any, size: Any, pixels: Any, table: Any, offset: Any, places: Any, first: Any, plane: Any
) -> Any:
    """Pixels at the table's addresses, `offset` bytes on -> places from `first` on, `plane` bytes apart."""

    def generate(_: Any, builder: Any, __: Any, values: Any) -> None:
        pixel, place = _addresses(builder, values)
        results = _transformed(builder, _matrix(which, size), pixels, pixel)
        for k, value in enumerate(results):
            _store(builder, places, value, place(k))

    return _signature(which, size, pixels, places), generate


@intrinsic
def to_pixels(
    _: Any, which: Any, size: Any, pixels: Any, table: Any, offset: Any, places: Any, first: Any, plane: Any
) -> Any:
    """The transpose of `to_places`; where tiles overlap it adds to the pixels."""

    def generate(_: Any, builder: Any, __: Any, values: Any) -> None:
        pixel, place = _addresses(builder, values)
        results = _transformed(builder, _matrix(which, size).T, places, place)
        for k, value in enumerate(results):
            if len(which) == len(IMAGES):
                value = builder.fadd(value, _load(builder, pixels, pixel(k)))
            _store(builder, pixels, value, pixel(k))

    return _signature(which, size, pixels, places), generate


def _signature(which: Any, size: Any, pixels: Any, places: Any) -> Any:
    """Of both directions: what moves, where a tile's pixels are and where its places."""
    return types.void(which, size, pixels, types.intp, types.intp, places, types.intp, types.intp)


def _addresses(builder: Any, values: Any) -> tuple[Address, Address]:
    """Where a tile's k-th pixel is, and its k-th place."""
    _, _, _, table, offset, _, first, plane = values

    def pixel(k: int) -> Any:
        entry = builder.inttoptr(builder.add(table, LONG(k * LONG.width // 8)), LONG.as_pointer())
        return builder.add(builder.load(entry), offset)

    return pixel, lambda k: builder.add(first, builder.mul(plane, LONG(k)))


def _transformed(builder: Any, matrix: np.ndarray, array: Any, address: Address) -> list[Any]:
    """The array's tile times the matrix on both sides, row by row."""
    side = matrix.shape[1]
    tile = [[_load(builder, array, address(i * side + j)) for j in range(side)] for i in range(side)]
    half = [[_sum(builder, row, column) for column in zip(*tile)] for row in matrix]
    return [_sum(builder, row, line) for line in half for row in matrix]


def _matrix(which: Any, size: Any) -> np.ndarray:
    """What a tile is multiplied by on both sides."""
    gradients, filters, images = matrices(len(size))
    return {len(IMAGES): images, len(GRADIENTS): gradients, len(FILTERS): filters}[len(which)]


def _sum(builder: Any, factors: np.ndarray, vectors: Any) -> Any:
    """Of constants times vectors, those times one first."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    terms = [(float(factor), vector) for factor, vector in zip(factors, vectors) if factor]
    (factor, vector), *rest = sorted(terms, key=lambda term: term[0] != 1)
    total = vector if factor == 1 else builder.fmul(_constant(factor), vector)
    for factor, vector in rest:
        total = builder.call(fma, [_constant(factor), vector, total])
    return total


def _constant(value: float) -> Any:
    return ir.Constant(FLOATS, [value] * LANES)


def _load(builder: Any, array: Any, address: Any) -> Any:
    """Sixteen of the array's numbers there, as fp32."""
    if array.dtype == types.float32:
        return builder.load(builder.inttoptr(address, FLOATS.as_pointer()), align=4)
    bits = builder.zext(builder.load(builder.inttoptr(address, HALVES.as_pointer()), align=2), WORDS)
    return builder.bitcast(builder.shl(bits, ir.Constant(WORDS, [16] * LANES)), FLOATS)


def _store(builder: Any, array: Any, value: Any, address: Any) -> None:
    """Sixteen numbers in fp32 as the array keeps them."""
    if array.dtype != types.float32:
        value = builder.fptrunc(value, BRAIN)
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=2)


# ---- all tiles ---------------------------------------------------------------------------------------------


@_pass
def gather(pixels: Any, which: Any, size: Any, places: Any, threads: int) -> None:
    """pixels (N,h,w,C) -> places (K,T,C), image by image and tile by tile; fp32 or bf16 as its bits.

    which:  IMAGES, GRADIENTS or FILTERS; size: a tuple as long as the side of a tile of results
    """
    team(_gather, threads, (pixels, which, size, places))


@_pass
def scatter(places: Any, which: Any, size: Any, pixels: Any, threads: int) -> None:
    """The transpose of `gather`: places (K,T,C) -> pixels (N,h,w,C), sums where tiles overlap."""
    team(_scatter, threads, (places, which, size, pixels))


@_pass
def _gather(pixels: Any, which: Any, size: Any, places: Any, thread: int, threads: int) -> None:
    images, height, width, channels = pixels.shape
    down, across, first = _grid(which, size, height), _grid(which, size, width), places.ctypes.data
    table, outside = np.empty(MOST, np.int64), np.zeros(channels, pixels.dtype)
    plane = places.shape[1] * channels * places.itemsize
    tiles = images * down * across
    for tile in range(tiles * thread // threads, tiles * (thread + 1) // threads):
        rest = tile % (down * across)
        image = pixels[tile // (down * across)]
        _look_up(image, which, size, rest // across, rest % across, outside, table)
        for c in range(tile * channels, (tile + 1) * channels, LANES):
            offset = (c - tile * channels) * pixels.itemsize
            to_places(
                which, size, pixels, table.ctypes.data, offset, places, first + c * places.itemsize, plane
            )


@_pass
def _scatter(places: Any, which: Any, size: Any, pixels: Any, thread: int, threads: int) -> None:
    images, height, width, channels = pixels.shape
    down, across, first = _grid(which, size, height), _grid(which, size, width), places.ctypes.data
    table, outside = np.empty(MOST, np.int64), np.empty(channels, np.float32)
    plane = places.shape[1] * channels * places.itemsize
    sums = np.empty((height, width, channels), np.float32)
    for n in range(images * thread // threads, images * (thread + 1) // threads):
        sums[:] = np.float32(0)
        for tile in range(down * across):
            _look_up(sums, which, size, tile // across, tile % across, outside, table)
            at = (n * down * across + tile) * channels
            for c in range(0, channels, LANES):
                to_pixels(
                    which,
                    size,
                    sums,
                    table.ctypes.data,
                    c * sums.itemsize,
                    places,
                    first + (at + c) * places.itemsize,
                    plane,
                )
        _round(sums, pixels[n])


@_pass
def _grid(which: Any, size: Any, pixels: int) -> int:
    """How many tiles stand in a row of so many pixels."""
    return 1 if len(which) == len(FILTERS) else (pixels + len(size) - 1) // len(size)


@_pass
def _look_up(image: Any, which: Any, size: Any, down: int, across: int, outside: Any, table: Any) -> None:
    """The addresses of a tile's pixels; those beyond the border all lie `outside`."""
    height, width, channels = image.shape
    side = 3 if len(which) == len(FILTERS) else len(size) + 2 if len(which) == len(IMAGES) else len(size)
    before = 1 if len(which) == len(IMAGES) else 0
    for k in range(side * side):
        y, z = down * len(size) - before + k // side, across * len(size) - before + k % side
        there = 0 <= y < height and 0 <= z < width
        place = image.ctypes.data + (y * width + z) * channels * image.itemsize
        table[k] = place if there else outside.ctypes.data


@intrinsic
def copy_lanes(_: Any, sums: Any, at: Any, pixels: Any, to: Any) -> Any:
    """Sixteen numbers from one array's address to the other's."""

    def generate(_: Any, builder: Any, __: Any, values: Any) -> None:
        _store(builder, pixels, _load(builder, sums, values[1]), values[3])

    return types.void(sums, types.intp, pixels, types.intp), generate


@_pass
def _round(sums: Any, pixels: Any) -> None:
    at, to = sums.ctypes.data, pixels.ctypes.data
    for k in range(0, sums.size, LANES):
        copy_lanes(sums, at + k * sums.itemsize, pixels, to + k * pixels.itemsize)
