"""Device ceilings: the most that a machine can do, against which everything else is judged.

Matrix products in each number format, a 3x3 convolution, memory bandwidth, host-to-device copies, the cost of
one launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastresnet.bench.measuring.harness import Case, Measured, NotAvailable, sample
from fastresnet.machine import precision

PART = "ceilings"
FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cases(device: torch.device, *, tiny: bool = False) -> list[Case]:
    """The ceilings of one device."""
    size = 256 if tiny else {"cuda": 8192, "mps": 4096}.get(device.type, 1536)
    megabytes = 4 if tiny else {"cuda": 1024}.get(device.type, 128)
    where = device.type if device.index in (None, 0) else f"{device.type}{device.index}"
    found = [
        _case(where, f"matmul-{name}", {"size": size}, "FLOP/s", _matmul(device, name, size))
        for name in FORMATS
    ]
    found += [
        _case(
            where,
            f"conv3x3-{name}",
            {"channels": 256},
            "FLOP/s",
            _convolution(device, name, 8 if tiny else 64),
        )
        for name in ("fp32", "bf16")
    ]
    found.append(_case(where, "memory-copy", {"megabytes": megabytes}, "B/s", _memory(device, megabytes)))
    found.append(_case(where, "host-to-device", {"megabytes": megabytes}, "B/s", _upload(device, megabytes)))
    found.append(_case(where, "launch", {"operation": "add to 1 number"}, "s", _launch(device)))
    return found


def _case(
    where: str, name: str, settings: dict[str, Any], unit: str, measure: Callable[[float], Measured]
) -> Case:
    return Case(PART, f"{where}/{name}", settings, measure, unit, weight=0.3)


def _rates(work: float, function: Callable[[], Any], device: torch.device, seconds: float) -> Measured:
    return Measured([work / t for t in sample(function, device, seconds)])


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


def _matmul(device: torch.device, name: str, size: int) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        check_format(device, name)
        if name == "fp8":
            return _rates(2 * size**3, _fp8_product(device, size), device, seconds)
        left, right = (torch.randn(size, size, device=device).to(DTYPES[name]) for _ in range(2))
        out = torch.empty_like(left)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        try:
            return _rates(2 * size**3, lambda: torch.mm(left, right, out=out), device, seconds)
        finally:
            torch.set_float32_matmul_precision(before)

    return measure


def _fp8_product(device: torch.device, size: int) -> Callable[[], Any]:
    left = torch.randn(size, size, device=device).to(torch.float8_e4m3fn)
    right = (
        torch.randn(size, size, device=device).to(torch.float8_e4m3fn).t()
    )  # the product wants it column-major
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _convolution(device: torch.device, name: str, batch: int) -> Callable[[float], Measured]:
    """ResNet-18's typical layer: 3x3, 256 channels on 8x8 px, channels last."""

    def measure(seconds: float) -> Measured:
        check_format(device, name)
        images = batch * (8 if device.type == "cuda" else 1)
        x = torch.randn(images, 256, 8, 8, device=device).to(DTYPES[name], memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=DTYPES[name])
        layer = layer.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            return _rates(2 * 9 * 256 * 256 * 64 * images, lambda: layer(x), device, seconds)

    return measure


def _memory(device: torch.device, megabytes: int) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        source = torch.ones(megabytes * 2**18, device=device)
        target = torch.empty_like(source)
        return _rates(
            2 * megabytes * 2**20, lambda: target.copy_(source), device, seconds
        )  # read and written

    return measure


def _upload(device: torch.device, megabytes: int) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        if device.type == "cpu":
            raise NotAvailable("a CPU's data is in its memory already")
        source = torch.ones(megabytes * 2**18, pin_memory=device.type == "cuda")
        target = torch.empty_like(source, device=device)
        return _rates(megabytes * 2**20, lambda: target.copy_(source, non_blocking=True), device, seconds)

    return measure


def _launch(device: torch.device) -> Callable[[float], Measured]:
    """Seconds of one small operation among many: what the host needs to queue it, or a CPU to dispatch it."""

    def measure(seconds: float) -> Measured:
        x = torch.zeros(1, device=device)
        return Measured(sample(lambda: x.add_(1), device, seconds))

    return measure
