"""The Triton kernel's block sizes and numbers of warps, each timed on the device alone."""

from __future__ import annotations

from collections.abc import Callable
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
        _timed(_launch(stored, which, dtype, block, warps), dtype, batch_size, block, warps)
        for dtype in DTYPES.values()
        for block in BLOCKS
        for warps in WARPS
    ]
    return sorted(found, key=lambda row: -row["images_per_second"])


def _launch(
    stored: Stored, which: torch.Tensor, dtype: torch.dtype, block: int, warps: int
) -> Callable[[], None]:
    from fastresnet.augment.kernels import triton_augment

    choices = augment.draw(SPEC, len(which), (SIZE, SIZE), 0, 0, stored.device)
    out = torch.empty((len(which), SIZE, SIZE, 3), dtype=dtype, device=stored.device)

    def call() -> None:
        triton_augment.augment(
            stored,
            which,
            choices,
            mean=MEAN,
            std=STD,
            size=(SIZE, SIZE),
            out_NHWC=out,
            block=block,
            warps=warps,
        )

    call()  # compiles
    return call


def _timed(call: Callable[[], None], dtype: torch.dtype, batch: int, block: int, warps: int) -> Tuned:
    samples = timing.time_calls(call, 20, "cuda", repeats=20)
    seconds = quantiles(samples)["median"]
    moved = batch * SIZE * SIZE * 3 * (1 + dtype.itemsize)
    return {
        "dtype": str(dtype),
        "block": block,
        "warps": warps,
        "images_per_second": batch / seconds,
        "bytes_per_second": moved / seconds,
    }
