"""The Triton kernel's block sizes and numbers of warps, each timed on the device alone."""

from __future__ import annotations

import functools
from typing import TypedDict

import torch

from fastresnet import augment
from fastresnet.augment.dispatch import Stored
from fastresnet.base.statistics import quantiles
from fastresnet.bench.contest.checks import coordinates
from fastresnet.bench.contest.contestants import DTYPES, MEAN, SIZE, SPEC, STD
from fastresnet.machine import timing

BLOCKS, WARPS = (512, 1024, 2048, 4096, 8192), (1, 2, 4, 8)


class Tuned(TypedDict):
    """One way to launch the kernel, and how fast it is."""

    dtype: str
    block: int
    warps: int
    images_per_second: float
    bytes_per_second: float


def tune(device: torch.device, images: int, batch_size: int) -> list[Tuned]:
    """Each block size and number of warps, the fastest first. Raises ValueError without a GPU."""
    if device.type != "cuda":
        raise ValueError("--tune times the Triton kernel, which needs a CUDA GPU")
    stored = augment.stored_for(torch.from_numpy(coordinates(images)[0]).to(device), SPEC, "triton")
    which = torch.randint(0, images, (batch_size,), device=device)
    found = [
        _timed(stored, which, dtype, block, warps)
        for dtype in DTYPES.values()
        for block in BLOCKS
        for warps in WARPS
    ]
    return sorted(found, key=lambda row: -row["images_per_second"])


def _timed(stored: Stored, which: torch.Tensor, dtype: torch.dtype, block: int, warps: int) -> Tuned:
    from fastresnet.augment.kernels import triton_augment

    batch, size = len(which), (SIZE, SIZE)
    choices = augment.draw(SPEC, batch, size, 0, 0, stored.device)
    out = torch.empty((batch, *size, 3), dtype=dtype, device=stored.device)
    launch = functools.partial(triton_augment.augment, mean=MEAN, std=STD, size=size, out_NHWC=out)
    call = functools.partial(launch, stored, which, choices, block=block, warps=warps)
    call()  # compiles
    seconds = quantiles(timing.time_calls(call, 20, "cuda", repeats=20))["median"]
    return {
        "dtype": str(dtype),
        "block": block,
        "warps": warps,
        "images_per_second": batch / seconds,
        "bytes_per_second": out.numel() * (1 + dtype.itemsize) / seconds,
    }
