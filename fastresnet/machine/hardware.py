"""What machine is this, and what does a run take from it: names, limits, memory, energy, the matrix-multiply
ceiling.

Refuses to note who or which exactly: no host name, no user, no serial number, no UUID. Figures that can't be
had are None.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastresnet.base.cores import cores_usable
from fastresnet.machine import memory, nvml, system, timing
from fastresnet.machine.devices import mps_available

PACKAGES = ("torch", "torchvision", "triton", "numpy", "ffcv", "fastargs", "pillow", "pyarrow")
RAPL = Path("/sys/class/powercap")


# ---- names --------------------------------------------------------------------------------


def describe() -> dict[str, Any]:
    """The machine: `gpus` (empty list without), `gpu` (the first one's name or None), `cpu`, `memory_bytes`,
    `system`."""
    gpus = (
        [_describe_gpu(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    if not gpus and mps_available():
        gpus = [{"kind": "mps", "name": f"{system.cpu_model()} GPU", "memory_bytes": memory.total_bytes()}]
    return {
        "gpu": gpus[0]["name"] if gpus else None,
        "gpus": gpus,
        "driver": nvml.driver_version(),
        "cpu": {
            "model": system.cpu_model(),
            "cores": os.cpu_count(),
            "cores_usable": cores_usable(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "bf16": system.cpu_bf16(),
        },
        "memory_bytes": memory.total_bytes(),
        "system": {
            "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
            "machine": platform.machine(),
            "container": system.in_container(),
            "virtual_machine": system.in_virtual_machine(),
        },
    }


def short_name(hardware: dict[str, Any]) -> str:
    """The machine in a few words, from what `describe` gave: `1x NVIDIA H200` or `2 cores AMD EPYC`."""
    gpus = hardware.get("gpus") or []
    if gpus:
        return f"{len(gpus)}x {gpus[0]['name']}"
    cpu = hardware.get("cpu") or {}
    return f"{cpu.get('cores_usable') or cpu.get('cores') or '?'} cores {cpu.get('model') or 'unknown CPU'}"


def _describe_gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    facts: dict[str, Any] = {
        "kind": "rocm" if torch.version.hip else "cuda",
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "architecture": getattr(properties, "gcnArchName", None),
    }
    card = _card(index)
    if card is not None:
        facts |= {
            "clock_max_mhz": card.max_clock_mhz(),
            "memory_clock_max_mhz": card.max_clock_mhz(nvml.MEMORY),
            "power_limit_watts": card.power_limit_watts(),
            **card.link(),
        }
    return facts


@cache
def _card(index: int) -> nvml.Gpu | None:
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return nvml.find(str(uuid)) if uuid else None


def _card_of(device: torch.device | str) -> nvml.Gpu | None:
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return _card(torch.cuda.current_device() if device.index is None else device.index)


def software() -> dict[str, str | None]:
    """Versions of what the speed depends on; None for what isn't installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return versions | {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": str(cudnn) if cudnn else None,
    }


def speed_settings() -> dict[str, Any]:
    """PyTorch's switches that change speed, as they stand now."""
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }


def git_state(path: str | Path = ".") -> dict[str, Any]:
    """`commit` (full hash) and `dirty` of the work tree at `path`; both None outside one, or without git."""
    commit = system.output("git", "-C", str(path), "rev-parse", "HEAD")
    status = system.output("git", "-C", str(path), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": bool(status) if commit else None}


# ---- meters -------------------------------------------------------------------------------


class EnergyMeter:
    """Joules between entering and leaving: of the GPU by NVML, of the CPU packages by RAPL where it may be
    read.

    `joules` is None where neither is there; `source` says which it was ("nvml", "rapl" or None).
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._card = _card_of(self.device)
        self._domains = [] if self.device.type == "cuda" else rapl_domains(RAPL)
        self.source = (
            "nvml"
            if self._card and self._card.energy_joules() is not None
            else "rapl"
            if self._domains
            else None
        )
        self.joules: float | None = None

    def __enter__(self) -> EnergyMeter:
        timing.synchronize(self.device)
        self._before = self._read()
        return self

    def __exit__(self, *exc_info: object) -> None:
        timing.synchronize(self.device)
        self.joules = self._difference(self._read())

    def _read(self) -> list[float]:
        if self.source == "nvml":
            assert self._card is not None
            value = self._card.energy_joules()
            return [] if value is None else [value]
        return (
            [int(system.lines(domain / "energy_uj")[0]) / 1e6 for domain in self._domains]
            if self.source
            else []
        )

    def _difference(self, after: list[float]) -> float | None:
        if not after or len(after) != len(self._before):
            return None
        total = 0.0
        for index, (first, last) in enumerate(zip(self._before, after)):
            if last < first:  # RAPL's counter wraps around
                last += (
                    int(system.lines(self._domains[index] / "max_energy_range_uj")[0]) / 1e6
                    if self._domains
                    else 0.0
                )
            total += last - first
        return total


def rapl_domains(root: Path) -> list[Path]:
    """Package-level RAPL domains under `root` whose counters this process may read."""
    return [path for path in sorted(root.glob("intel-rapl:[0-9]")) if system.lines(path / "energy_uj")]


def throttle_reasons(device: torch.device | str = "cuda") -> list[str] | None:
    """What holds the GPU's clock down now (empty: nothing), or None where it can't be known."""
    card = _card_of(device)
    return card.throttle_reasons() if card else None


def condition(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state that explains a slow sample: temperature, clock, power and throttling of a GPU; the load of
    the machine."""
    card = _card_of(device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if card is None:
        return {"load_1min": load}
    return {
        "load_1min": load,
        "temperature_celsius": card.temperature_celsius(),
        "clock_mhz": card.clock_mhz(),
        "power_watts": card.power_watts(),
        "throttle": card.throttle_reasons(),
    }


def matmul_ceiling(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    tf32: bool = False,
    seconds: float = 0.3,
    sizes: tuple[int, ...] = (),
) -> float:
    """The best rate, FLOP/s, of a large square matrix product on `device` in `dtype`, measured for about
    `seconds`.

    The fastest of several samples over two sizes (or those given): a ceiling is what the machine can do, not
    what it does on average.
    """
    device = torch.device(device)
    sizes = sizes or ((4096, 8192) if device.type == "cuda" else (1024, 2048))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        return max(_matmul_rate(device, dtype, size, seconds / len(sizes)) for size in sizes)
    finally:
        torch.set_float32_matmul_precision(before)


def _matmul_rate(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    once = min(timing.time_calls(lambda: torch.mm(left, right, out=out), 2, device))
    count = max(3, min(50, int(seconds / max(once, 1e-6))))
    return float(2 * size**3 / min(timing.time_calls(lambda: torch.mm(left, right, out=out), count, device)))


def mfu(flops_per_image: float, images_per_second: float, ceiling: float) -> float:
    """Model FLOPs utilisation of training: three forward passes' worth of arithmetic an image (backward is
    about two), as a share of the measured matrix-multiply `ceiling` (FLOP/s) of the training dtype."""
    return 3 * flops_per_image * images_per_second / ceiling
