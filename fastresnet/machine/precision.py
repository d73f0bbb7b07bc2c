"""Numeric precision of a run: which dtypes, which autocast, which gradient scaling; decided once."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass
from typing import ContextManager

import torch

PRECISIONS = ("auto", "fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class Precision:
    """A resolved precision.

    name:         one of fp32, tf32, fp16, bf16
    compute:      dtype of images and activations inside autocast
    scales_loss:  whether gradients need dynamic loss scaling (fp16 only: bf16 has the exponent range of fp32)
    reason:       why `auto` chose it, or "as asked"
    """

    name: str
    compute: torch.dtype
    scales_loss: bool
    reason: str

    def autocast(self, device: torch.device) -> ContextManager[object]:
        """The context of the forward pass; parameters stay fp32 and are cast an operation at a time."""
        if self.compute is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.compute)


def cpu_is_fast_at_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-bf16, AMX); else bf16 is 10x slower than fp32."""
    capability: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(
        capability.get("avx512_bf16")
        or capability.get("amx_bf16")
        or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )


def resolve(name: str, device: torch.device) -> Precision:
    """Turn a setting into a Precision for this device.

    Raises ValueError for a name it doesn't know, and for one that the device cannot train in.
    """
    if name not in PRECISIONS:
        raise ValueError(f"train.precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    reason = "as asked"
    if name == "auto":
        name, reason = _fastest(device)
    if name == "fp16" and device.type == "cpu":
        raise ValueError(
            "train.precision=fp16 needs a GPU: CPUs have no fp16 convolutions. Use bf16, fp32 or auto"
        )
    if name == "tf32" and device.type != "cuda":
        raise ValueError(
            f"train.precision=tf32 exists on CUDA GPUs alone, this run is on {device.type}. Use fp32 or auto"
        )
    compute = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    return Precision(name, compute, scales_loss=name == "fp16", reason=reason)


def repeat_exactly(asked: bool) -> None:
    """Allow only algorithms that repeat bit for bit, or all. On a GPU before its first matrix product."""
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it PyTorch refuses products
    if asked != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler, for seconds
        torch.use_deterministic_algorithms(asked)


def apply_globally(precision: Precision, device: torch.device) -> None:
    """Set the process-wide switches: TF32 for tf32 only, and cuDNN's search for the fastest algorithm."""
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high" if precision.name == "tf32" else "highest")
    convolutions_in_tf32(precision.name == "tf32")
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def convolutions_in_tf32(asked: bool | None = None) -> bool:
    """Whether cuDNN may round fp32 to TF32, after setting it where asked.

    Says nothing: PyTorch 2.9 and later advise another interface, which 2.6 lacks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if asked is not None:
            torch.backends.cudnn.allow_tf32 = asked
        return bool(torch.backends.cudnn.allow_tf32)


def _fastest(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip:
            return "bf16", "auto: this GPU has bf16 matrix units"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return "fp16", "auto: this GPU has fp16 matrix units and no bf16"
        return "fp32", "auto: this GPU has no matrix units for half precision"
    if device.type == "cpu" and cpu_is_fast_at_bf16():
        return "bf16", "auto: this CPU multiplies bf16 in hardware"
    return "fp32", f"auto: no fast half precision known on this {device.type}"
