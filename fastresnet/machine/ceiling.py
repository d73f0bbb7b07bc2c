"""The ceiling: the best rate of a matrix product that this device reaches, measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fastresnet.machine import timing
from fastresnet.machine.precision import convolutions_in_tf32

SIZES = {"cuda": (4096, 8192)}  # rows and columns of the square factors, where a device wants larger ones
USUAL_SIZES = (1024, 2048)


def matmul_ceiling(
    device: torch.device | str, dtype: torch.dtype, *, tf32: bool = False, seconds: float = 0.3
) -> float:
    """The best rate, FLOP/s, of a large square matrix product on `device` in `dtype`.

    The fastest of the samples that two sizes yield in about `seconds`: a ceiling is what the machine can do,
    not what it does on average.
    """
    device = torch.device(device)
    sizes = SIZES.get(device.type, USUAL_SIZES)
    with tf32_where_asked("tf32" if tf32 else "fp32"):
        return max(_rate(device, dtype, size, seconds / len(sizes)) for size in sizes)


@contextlib.contextmanager
def tf32_where_asked(name: str) -> Iterator[None]:
    """Products and convolutions of fp32 round to TF32 where `name` says tf32 alone; put back afterwards.

    PyTorch's own default lets convolutions do so in fp32 too.
    """
    before = torch.get_float32_matmul_precision(), convolutions_in_tf32()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    convolutions_in_tf32(name == "tf32")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        convolutions_in_tf32(before[1])


def _rate(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    once = min(timing.time_calls(lambda: torch.mm(left, right, out=out), 2, device))
    count = max(3, min(50, int(seconds / max(once, 1e-6))))
    fastest = min(timing.time_calls(lambda: torch.mm(left, right, out=out), count, device))
    return 2.0 * size**3 / fastest
