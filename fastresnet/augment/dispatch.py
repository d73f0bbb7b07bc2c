"""Random choices, drawn for a whole epoch at once, and the one call that turns stored images into a finished
batch.

Choices are drawn on the host's generator, so a CPU and a GPU see the same ones. Refuses to know files, models
and loaders.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastresnet.augment.kernels import Augment, Choices, reference

__all__ = ["Augment", "Choices", "apply", "draw", "generator", "kernel_for", "no_choices", "order"]

KERNELS = ("auto", "triton", "compiled", "fused", "rows", "reference")


def generator(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """A generator on the host for one purpose of one epoch; numpy's SeedSequence keeps all of them
    independent."""
    state = np.random.SeedSequence([seed, epoch, purpose]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) | int(state[1]) << 32)


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0 … count-1, int64, a pure function of (seed, epoch)."""
    return torch.randperm(count, generator=generator(seed, epoch, 0))


def draw(
    spec: Augment,
    count: int,
    size_hw: tuple[int, int],
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
    *,
    samples: Tensor | None = None,
) -> Choices:
    """All random choices of one epoch, a pure function of (seed, epoch).

    count:    images that the epoch shows
    size_hw:  height and width of the stored images
    samples:  int64 (count,), which stored image each one is (None: 0 … count-1); alternating flips go by it
    Raises ValueError where the padding can't be reflected from so small an image.
    """
    height, width = size_hw
    if spec.crop_mode == "reflect" and spec.crop_padding_px >= min(size_hw):
        raise ValueError(
            f"crop_padding_px={spec.crop_padding_px} can't be reflected from images of "
            f"{height}x{width} px: it must be at most {min(size_hw) - 1} (or crop_mode zero or mean)"
        )

    def whole(purpose: int, end: int) -> Tensor:
        return torch.randint(0, end, (count,), generator=generator(seed, epoch, purpose), dtype=torch.int32)

    def uniform(purpose: int, limit: float) -> Tensor:
        return (torch.rand(count, generator=generator(seed, epoch, purpose)) * 2 - 1) * limit

    flip = None
    if spec.flip == "random":
        flip = torch.rand(count, generator=generator(seed, epoch, 3)) < 0.5
    elif spec.flip == "alternating":
        flip = (_coin(torch.arange(count) if samples is None else samples.cpu(), seed) + epoch) % 2 == 1
    places = 2 * spec.crop_padding_px + 1
    return Choices(
        count,
        spec,
        dy=whole(1, places) if spec.crop_padding_px else None,
        dx=whole(2, places) if spec.crop_padding_px else None,
        flip=flip,
        cut_y=whole(4, height) if spec.cutout_px else None,
        cut_x=whole(5, width) if spec.cutout_px else None,
        brightness=uniform(6, spec.brightness) if spec.brightness else None,
        contrast=uniform(7, spec.contrast) if spec.contrast else None,
    ).to(device)


def no_choices(count: int) -> Choices:
    """What evaluation applies: nothing but normalising."""
    return Choices(count)


def _coin(samples: Tensor, seed: int) -> Tensor:
    """0 or 1 for each sample number: splitmix64's finaliser (Steele, Lea & Flood 2014) on number and seed."""
    with np.errstate(over="ignore"):
        state = samples.numpy().astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy(((state ^ (state >> np.uint64(31))) & np.uint64(1)).astype(np.int64))


@torch.inference_mode(False)  # buffers and tables are kept: they must not become inference tensors
@torch.no_grad()
def apply(
    images_NHWC: Tensor,
    indices: Tensor,
    choices: Choices,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    size: int | tuple[int, int] | None = None,
    channels_last: bool = True,
    kernel: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Gather, crop, mirror, jitter, cut out, downsample, normalise and cast in one call: finished images
    (B,3,h,w).

    images_NHWC:  uint8 (N,H,W,3), contiguous, the stored images
    indices:      int64 (B,) on the same device, which of them
    choices:      B rows on the same device, see `draw` and `no_choices`
    mean, std:    of the channels, in units of 0..1
    dtype:        float32, float16 or bfloat16; arithmetic is float32 in any case
    size:         height and width to downsample to (bilinear, half-pixel centres); None keeps the stored size
    out:          written in place where given, so that a captured CUDA graph finds its batch at the same
                  address
    """
    assert choices.count == len(indices), f"{len(indices)} images and choices for {choices.count}"
    height, width, channels = images_NHWC.shape[1:]
    h, w = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    if out is None:
        shape = (len(indices), h, w, channels) if channels_last else (len(indices), channels, h, w)
        out = torch.empty(shape, dtype=dtype, device=images_NHWC.device)
        out = out.permute(0, 3, 1, 2) if channels_last else out
    assert (out.shape, out.dtype) == ((len(indices), channels, h, w), dtype), (out.shape, out.dtype)
    call = KERNEL_CALLS[kernel_for(kernel, images_NHWC.device)[0]]
    call(images_NHWC, indices, choices, tuple(mean), tuple(std), (h, w), out.permute(0, 2, 3, 1))
    return out


@functools.lru_cache
def kernel_for(name: str, device: torch.device) -> tuple[str, str]:
    """Which kernel `name` (data.kernel) means on `device`, and why. Raises ValueError where it can't run
    there."""
    if name not in KERNELS:
        raise ValueError(f"data.kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    has_triton = importlib.util.find_spec("triton") is not None
    has_numba = importlib.util.find_spec("numba") is not None
    if name == "auto":
        if device.type == "cpu" and has_numba:
            return "fused", "one pass over each image, compiled by numba"
        if device.type == "cpu":
            return "rows", "copies of rows: numba, which the faster kernel needs, isn't installed"
        if device.type == "cuda" and has_triton:
            return "triton", "one fused pass on the GPU"
        return "reference", f"plain PyTorch: no Triton for {device.type} here"
    if name == "triton" and not (has_triton and (device.type == "cuda" or _interpreted())):
        raise ValueError(
            f"data.kernel=triton needs Triton and a GPU, this run is on {device.type}"
            + ("" if has_triton else " and triton isn't installed")
            + ": use data.kernel=auto"
        )
    if name in ("rows", "fused") and device.type != "cpu":
        raise ValueError(
            f"data.kernel={name} is for a CPU, this run is on {device.type}: use data.kernel=auto"
        )
    if name == "fused" and not has_numba:
        raise ValueError("data.kernel=fused needs numba, which isn't installed: use data.kernel=auto")
    if name == "compiled" and device.type == "cuda" and not has_triton:
        return "reference", "plain PyTorch: torch.compile needs Triton on a GPU, which isn't installed"
    return name, "asked for"


def _interpreted() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)


def _reference(
    images: Tensor,
    indices: Tensor,
    choices: Choices,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int],
    out_NHWC: Tensor,
) -> None:
    out_NHWC.copy_(reference.augment(images, indices, choices, mean=mean, std=std, size=size))


@functools.lru_cache
def _compile() -> Callable[..., None]:
    return torch.compile(_reference, dynamic=False)


def _compiled(*arguments: object) -> None:
    _compile()(*arguments)


def _kernel(module: str) -> Callable[..., None]:
    """The kernel in kernels/<module>.py, imported when first called: numba or Triton may not be there."""

    def call(
        images: Tensor,
        indices: Tensor,
        choices: Choices,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: tuple[int, int],
        out_NHWC: Tensor,
    ) -> None:
        kernel = importlib.import_module(f"fastresnet.augment.kernels.{module}")
        kernel.augment(images, indices, choices, mean=mean, std=std, size=size, out_NHWC=out_NHWC)

    return call


KERNEL_CALLS: dict[str, Callable[..., None]] = {
    "fused": _kernel("fused"),
    "rows": _kernel("rows"),
    "triton": _kernel("triton_augment"),
    "reference": _reference,
    "compiled": _compiled,
}
