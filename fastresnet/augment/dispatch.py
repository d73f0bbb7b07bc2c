"""The one call that turns stored images into a finished batch, by whichever kernel suits the device.

Refuses to draw anything, and to know files, models and loaders.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastresnet.augment.choices import Augment, Choices
from fastresnet.augment.extras import EXTRAS, MIXING
from fastresnet.augment.kernels import reference
from fastresnet.augment.padding import Padded, pad

KERNELS = ("auto", "triton", "compiled", "fused", "rows", "reference")
Stored = Tensor | Padded  # uint8 (N,H,W,3), as it is or as `stored_for` keeps it


def stored_for(images_NHWC: Tensor, spec: Augment, kernel: str) -> Stored:
    """The images as `kernel` (by its own name) reads them fastest: for Triton padded and mirrored once."""
    return pad(images_NHWC, spec) if kernel == "triton" else images_NHWC


@torch.inference_mode(False)  # buffers and tables are kept: they must not become inference tensors
@torch.no_grad()
def apply(
    stored: Stored,
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
    """Gather, crop, mirror, jitter, cut out, downsample, normalise and cast: finished images (B,3,h,w).

    stored:     uint8 (N,H,W,3), contiguous, or what `stored_for` made of it
    indices:    int64 (B,) on the same device, which of them
    choices:    B rows on the same device, see `draw` and `no_choices`
    mean, std:  of the channels, in units of 0..1
    dtype:      float32, float16 or bfloat16; arithmetic is float32 in any case
    size:       height and width to downsample to (bilinear, half-pixel centres); None keeps the stored size
    out:        written in place where given: a captured CUDA graph finds its batch at the same address
    """
    assert choices.count == len(indices), f"{len(indices)} images and choices for {choices.count}"
    height, width, channels = stored.shape[1:]
    h, w = (height, width) if size is None else (size, size) if isinstance(size, int) else size
    memory = torch.channels_last if channels_last else torch.contiguous_format
    shape, mean, std = (len(indices), channels, h, w), tuple(mean), tuple(std)
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=stored.device, memory_format=memory)
    assert (out.shape, out.dtype) == (shape, dtype), (out.shape, out.dtype)
    done = torch.empty_like(out, dtype=torch.float32) if choices.extras else out
    call = _call(_kernel(kernel, stored.device)[0])
    call(stored, indices, choices, mean, std, (h, w), done.permute(0, 2, 3, 1))
    return out.copy_(finish(done, choices, mean, std)) if choices.extras else out


def finish(images: Tensor, choices: Choices, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What follows a kernel: the extras, on float32 images (B,3,h,w)."""
    for name, drawn in choices.extras.items():
        images = EXTRAS[name].apply(images, drawn, mean, std)
    return images


def mixed(labels: Tensor, choices: Choices, classes: int) -> Tensor:
    """A finished batch's labels: int64 (B,) as they are, or float32 (B,classes) where images are mixed."""
    mixing = {name: drawn for name, drawn in choices.extras.items() if name in MIXING}
    if not mixing:
        return labels
    soft = torch.nn.functional.one_hot(labels, classes).float()
    for name, drawn in mixing.items():
        own = MIXING[name].own_share(drawn)[:, None]
        soft = soft * own + soft.roll(1, 0) * (1 - own)
    return soft


def kernel_for(name: str, device: torch.device, spec: Augment | None = None) -> tuple[str, str]:
    """Which kernel `name` (data.kernel) means on `device`, and why; what it leaves to PyTorch is said.

    Raises ValueError where it can't run there.
    """
    kernel, reason = _kernel(name, device)
    extras = " and ".join(extra for extra, _ in spec.extras) if spec else ""
    return kernel, f"{reason}; then {extras} in plain PyTorch" if extras else reason


@functools.lru_cache
def _kernel(name: str, device: torch.device) -> tuple[str, str]:
    if name not in KERNELS:
        raise ValueError(f"data.kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    if name == "auto":
        return _best(device)
    if name == "compiled" and device.type == "cuda" and not _has("triton"):
        return "reference", "plain PyTorch: torch.compile needs Triton on a GPU, which isn't installed"
    if why := _impossible(name, device):
        raise ValueError(f"data.kernel={name} {why}: use data.kernel=auto")
    return name, "asked for"


def _best(device: torch.device) -> tuple[str, str]:
    if device.type == "cpu" and _has("numba"):
        return "fused", "one pass over each image, compiled by numba"
    if device.type == "cpu":
        return "rows", "copies of rows: numba, which the faster kernel needs, isn't installed"
    if device.type == "cuda" and _has("triton"):
        return "triton", "one fused pass on the GPU"
    return "reference", f"plain PyTorch: no Triton for {device.type} here"


def _impossible(name: str, device: torch.device) -> str:
    """Why a kernel can't run there, in words; empty where it can."""
    if name == "triton" and not _has("triton"):
        return f"needs Triton and a GPU, this run is on {device.type} and triton isn't installed"
    if name == "triton" and device.type != "cuda" and not _interpreted():
        return f"needs Triton and a GPU, this run is on {device.type}"
    if name in ("rows", "fused") and device.type != "cpu":
        return f"is for a CPU, this run is on {device.type}"
    return "needs numba, which isn't installed" if name == "fused" and not _has("numba") else ""


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


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
def _call(kernel: str) -> Callable[..., None]:
    """What computes it, imported when first asked for: numba or Triton may not be there."""
    if kernel == "reference":
        return _reference
    if kernel == "compiled":
        return torch.compile(_reference, dynamic=False)
    module = {"triton": "triton_augment"}.get(kernel, kernel)
    call: Callable[..., None] = importlib.import_module(f"fastresnet.augment.kernels.{module}").augment
    return call
