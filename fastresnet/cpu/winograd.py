"""A 3x3 convolution by fewer products: a tile's 4x4 results take 36 instead of 144.

Tiles of images and filters are transformed, multiplied place by place, and transformed back: after Lavin and
Gray 2016 (arXiv 1509.09308), by the method of Toom and Cook. The products of all tiles at one place are one
product of matrices, which is PyTorch's. In bf16 results are off by 1.9 % of their norm (tiles of 4), 1.7 %
(3) or 0.5 % (2) where a direct convolution rounds them by 0.2 %; in fp32 by 1e-6.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from fastresnet.cpu.arrays import array

LANES = 16  # channels are transformed so many at a time
PAGE, LINE = 4096, 64  # bytes after which a first-level cache's sets begin anew, and of one line
# Where polynomials are taken; those for tiles of 4 keep bf16's digits best, of all small fractions
POINTS: dict[int, tuple[float, ...]] = {2: (0, 1, -1), 3: (0, 1, -1, 2), 4: (0, 1, -1, 2, -0.5)}


@lru_cache
def matrices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (n,size), G (n,3) and B (n,n) for n = size + 2: a tile's results are A'((G g G') * (B d B'))A."""
    points = POINTS[size]
    others = [[q for q in points if q != p] for p in points]
    scale = np.array([np.prod([p - q for q in rest]) for p, rest in zip(points, others)])
    results, filters = (np.vander(points, count, increasing=True) for count in (size, 3))
    images = [[*np.poly(rest)[::-1], 0] for rest in others]
    return (
        np.vstack([results, np.eye(1, size, size - 1)]),
        np.vstack([filters / scale[:, None], np.eye(1, 3, 2)]),
        np.vstack([*images, np.poly(points)[::-1]]),
    )


def tile_of(inputs: int, outputs: int, height: int, width: int) -> int:
    """The size of tiles that takes the fewest products for such channels and images; 0 where none pays."""
    if inputs % LANES or outputs % LANES:
        return 0
    best = min(POINTS, key=lambda size: places(size, height, width))
    # What products and transforms cost beside a direct convolution, as measured with 32 to 384 channels
    fewer = 1.25 + 50 / inputs + 50 / outputs
    return best if 9 * height * width >= fewer * places(best, height, width) else 0


def places(size: int, height: int, width: int) -> int:
    """How many products an image takes of each input channel with each output channel."""
    return -(-height // size) * -(-width // size) * (size + 2) ** 2


@lru_cache
def rows_of(tiles: int, inputs: int, outputs: int, size: int, bytes: int) -> int:
    """So many rows, or a few more, that planes of `inputs` and `outputs` fall on other sets of a cache.

    A tile goes to one place in each plane. Whole pages apart, these would all be in the same set of a
    first-level cache, which holds 8 to 12 lines: none would stay there until its other half is written.
    """

    def crowd(rows: int) -> int:
        apart = [channels * bytes * rows for channels in (inputs, outputs)]
        sets = [Counter(k * step % PAGE // LINE for k in range((size + 2) ** 2)) for step in apart]
        return sum(max(one.values()) for one in sets)

    return min(range(tiles + tiles % 2, tiles + 16, 2), key=crowd)


def by_tiles(x: Tensor, weight: Tensor, size: int) -> Tensor:
    """The convolution of x (N,I,h,w), bf16 or fp32, with the weight (O,I,3,3) fp32 -> (N,O,h,w), like x.

    size:  of the tiles, see `tile_of`
    """
    y: Tensor = _Convolution.apply(x, weight, size)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, size: int) -> Tensor:
        y, seen, filters = _forward(x, weight, size)
        ctx.save_for_backward(seen, filters)
        ctx.rest = list(x.shape), size, *ctx.needs_input_grad[:2]
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        seen, filters = ctx.saved_tensors
        shape, size, by_image, by_weight = ctx.rest
        gx, spread = _by_input(gy.to(seen.dtype), filters, shape, size, by_image)
        return gx if by_image else None, _by_weight(spread, seen, size) if by_weight else None, None


# Who sums up a profile finds convolutions by such names.
@torch.library.custom_op("fastresnet::winograd_convolution", mutates_args=(), device_types="cpu")
def _forward(x: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> y, and the images (K,T,I) and filters (K,O,I) at the K places of the T tiles."""
    tiles = _passes()
    seen = _gather(x, tiles.IMAGES, size, x.dtype, len(weight))
    filters = _gather(weight, tiles.FILTERS, size, x.dtype)
    shape = len(x), len(weight), *x.shape[2:]
    y = _scatter(torch.bmm(seen, filters.mT), tiles.GRADIENTS, size, shape, x.dtype)
    return y, seen, filters


@torch.library.custom_op("fastresnet::winograd_convolution_by_input", mutates_args=(), device_types="cpu")
def _by_input(gy: Tensor, filters: Tensor, shape: list[int], size: int, asked: bool) -> tuple[Tensor, Tensor]:
    """-> the gradient of images of that shape, if `asked`, and gy (K,T,O) at the tiles' places."""
    tiles = _passes()
    spread = _gather(gy, tiles.GRADIENTS, size, gy.dtype, filters.shape[2])
    if not asked:
        return gy.new_empty(0), spread
    return _scatter(torch.bmm(spread, filters), tiles.IMAGES, size, shape, gy.dtype), spread


@torch.library.custom_op("fastresnet::winograd_convolution_by_weight", mutates_args=(), device_types="cpu")
def _by_weight(spread: Tensor, seen: Tensor, size: int) -> Tensor:
    """The gradient of the weight (O,I,3,3), fp32."""
    filters, outputs, inputs = _passes().FILTERS, spread.shape[2], seen.shape[2]
    if outputs <= inputs:
        return _scatter(torch.bmm(spread.mT, seen), filters, size, (outputs, inputs, 3, 3), torch.float32)
    # The product turns its left operand round first: the smaller one
    turned = _scatter(torch.bmm(seen.mT, spread), filters, size, (inputs, outputs, 3, 3), torch.float32)
    return turned.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _gather(
    x: Tensor, which: tuple[int, ...], size: int, dtype: torch.dtype, others: int | None = None
) -> Tensor:
    """(N,C,h,w) -> (K,T,C) in that dtype, and zeros: `rows_of` these and of planes of `others` channels."""
    images, channels, *sides = x.shape
    count = rows = images
    if others is not None:
        count = images * int(np.prod([-(-side // size) for side in sides]))
        rows = rows_of(count, channels, others, size, dtype.itemsize)
    places = torch.empty((size + 2) ** 2, rows, channels, dtype=dtype)
    places[:, count:] = 0
    dense = array(x.contiguous(memory_format=torch.channels_last))
    _passes().gather(dense, which, (0,) * size, _bits(places), torch.get_num_threads())
    return places


def _scatter(
    places: Tensor, which: tuple[int, ...], size: int, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """(K,T,C) -> images of that shape and dtype."""
    images = torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)
    _passes().scatter(_bits(places), which, (0,) * size, array(images), torch.get_num_threads())
    return images


def _bits(places: Tensor) -> np.ndarray:
    return (places.view(torch.uint16) if places.dtype == torch.bfloat16 else places).numpy()


def _passes() -> ModuleType:
    return importlib.import_module("fastresnet.cpu.tiles")  # late: numba takes a second to import


@register_flop_formula(torch.ops.fastresnet.winograd_convolution)
def _forward_flops(x: torch.Size, weight: torch.Size, size: int, **_: Any) -> int:
    return 2 * x[0] * places(size, *x[2:]) * weight[0] * weight[1]


@register_flop_formula(torch.ops.fastresnet.winograd_convolution_by_input)
def _by_input_flops(gy: torch.Size, filters: torch.Size, _: Any, size: int, asked: bool, **__: Any) -> int:
    return 2 * gy[0] * places(size, *gy[2:]) * filters[1] * filters[2] * asked


@register_flop_formula(torch.ops.fastresnet.winograd_convolution_by_weight)
def _by_weight_flops(spread: torch.Size, seen: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * seen[0] * seen[1] * seen[2] * spread[2]
