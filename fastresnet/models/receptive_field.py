"""Receptive fields, exactly: which input pixels can reach a position of a feature map.

Follows operations, not modules. A field is an interval on each axis; convolutions and pools widen it, sums
take the union (Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks").
Everything here runs on tensors without data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
POOLS = (aten.max_pool2d_with_indices, aten.avg_pool2d)
GLOBAL_POOLS = (aten.mean, aten.amax, aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d)
SUMS = (aten.add, aten.add_)


@dataclass(frozen=True)
class Field:
    """The pixels that reach the first position of a map, on either axis: `low` to `high`, both included.

    Below 0 or beyond the image lies padding. The next position's field starts `stride` pixels further.
    """

    low: int
    high: int
    stride: int

    @property
    def size(self) -> int:
        """Pixels on a side."""
        return self.high - self.low + 1

    @property
    def centre(self) -> float:
        """Centre of the first position's field in pixels; 0 is the middle of the image's first pixel."""
        return (self.low + self.high) / 2

    def through(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Field:
        """The field after a convolution or pool of this geometry."""
        low = self.low - padding * self.stride
        return Field(low, self.high + ((kernel - 1) * dilation - padding) * self.stride, self.stride * stride)

    def __or__(self, other: Field) -> Field:
        assert self.stride == other.stride, "maps that are added have one stride"
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))


class Tracker(TorchDispatchMode):
    """While it is entered, each result of an operation on `image` carries a Field: `field_of(tensor)`.

    on_sum: called whenever two maps that both depend on the image are added (a residual connection)
    Raises ValueError for kernels that aren't square.
    """

    def __init__(self, image: Tensor, on_sum: Callable[[], None] = lambda: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        # the tensors stay alive
        self._fields: dict[int, tuple[Tensor, Field]] = {id(image): (image, Field(0, 0, 1))}
        self._on_sum = on_sum

    def field_of(self, tensor: Tensor) -> Field:
        """The field of a map that came from the image."""
        return self._fields[id(tensor)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and id(x) in self._fields]
        result = func(*args, **kwargs)
        if inputs:
            field = self.field_of(inputs[0])
            for other in inputs[1:]:
                field |= self.field_of(other)
            if func.overloadpacket in SUMS and len(inputs) == 2:
                self._on_sum()
            field = _after(func.overloadpacket, args, field)
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    self._fields[id(output)] = (output, field)
        return result


def _after(operation: Any, args: Any, field: Field) -> Field:
    if operation is aten.convolution:
        stride, padding, dilation = args[3:6]
        return field.through(
            _square(args[1].shape[-2:]), _square(stride), _square(padding), _square(dilation)
        )
    if operation in POOLS:
        kernel = _square(args[1])
        stride = _square(args[2]) if len(args) > 2 and args[2] else kernel
        return field.through(kernel, stride, _square(args[3]) if len(args) > 3 else 0)
    if operation in GLOBAL_POOLS and args[0].ndim == 4:
        return field.through(_square(args[0].shape[-2:]))
    if operation is aten.constant_pad_nd and any(args[1][:4]):
        return replace(
            field, low=field.low - args[1][0] * field.stride, high=field.high - args[1][0] * field.stride
        )
    return field


def _square(sizes: Any) -> int:
    sizes = list(sizes) if not isinstance(sizes, int) else [sizes]
    if len(set(sizes)) != 1:
        raise ValueError(f"receptive fields are computed for square kernels, got {sizes}")
    return int(sizes[0])
