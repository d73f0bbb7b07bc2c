"""What shows how much a machine does: a large matrix product, a 3x3 convolution, a copy."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastresnet.bench.measuring.harness import NotAvailable
from fastresnet.machine import precision

FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_format(device: torch.device, name: str) -> None:
    """Raise NotAvailable where `device` has no arithmetic in this format."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if name == "tf32" and capability < (8, 0):
        raise NotAvailable("tf32 needs an NVIDIA GPU of the Ampere generation or later")
    if name == "fp8" and (capability < (8, 9) or torch.version.hip):
        raise NotAvailable("fp8 needs an NVIDIA GPU of the Ada or Hopper generation or later")
    if name == "fp16" and device.type == "cpu":
        raise NotAvailable("training in fp16 needs a GPU")
    if name == "bf16" and device.type == "cpu" and not precision.cpu_is_fast_at_bf16():
        raise NotAvailable("this CPU has no bf16 instructions")


def product(device: torch.device, name: str, size: int) -> tuple[float, Callable[[], object]]:
    """(FLOPs, call) of a square matrix product; tf32 is told from fp32 by `tf32_where_asked` alone."""
    if name == "fp8":
        return 2.0 * size**3, _fp8_product(device, size)
    left, right = (torch.randn(size, size, device=device).to(DTYPES[name]) for _ in range(2))
    out = torch.empty_like(left)
    return 2.0 * size**3, lambda: torch.mm(left, right, out=out)


def _fp8_product(device: torch.device, size: int) -> Callable[[], object]:
    left, right = (torch.randn(size, size, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    by_column, one = right.t(), torch.ones((), device=device)
    return lambda: torch._scaled_mm(left, by_column, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def convolution(device: torch.device, name: str, images: int) -> tuple[float, Callable[[], object]]:
    """(FLOPs, call) of ResNet-18's typical layer: 3x3, 256 channels on 8x8 px, channels last."""
    shape = (images, 256, 8, 8)
    x = torch.randn(shape, device=device).to(DTYPES[name], memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=DTYPES[name])
    layer = layer.to(memory_format=torch.channels_last).requires_grad_(False)
    return 2.0 * 9 * 256 * 256 * 64 * images, lambda: layer(x)


def copying(device: torch.device, megabytes: int) -> tuple[float, Callable[[], object]]:
    """(bytes read and written, call) of a copy of so many MiB."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    return 2.0 * megabytes * 2**20, lambda: target.copy_(source)
