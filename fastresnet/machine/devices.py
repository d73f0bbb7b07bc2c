"""Which device is meant: auto, cpu, cuda, cuda:1, mps, and whether it is there."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from fastresnet.base.system import lines
from fastresnet.machine.distributed import ALONE, World

BOOT = Path("/proc/sys/kernel/random/boot_id")  # one for all containers of a host


def mps_available() -> bool:
    """Whether this PyTorch computes on an Apple GPU here."""
    return torch.backends.mps.is_available()


def make_current(device: torch.device) -> None:
    """Make `cuda` without a number mean this device: kernels, events and captures go to the current GPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def choose_device(name: str, place: World = ALONE, *, option: str = "run.device") -> torch.device:
    """The device that `name` means; auto: a CUDA (ROCm) GPU, else an Apple GPU, else the CPU.

    `cuda` is the GPU of this process on its host (`place`), or the one numbered.
    Raises ValueError, naming `option`, where there is no such device or several processes would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"{option}={name}: use auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda" and number and place.size > 1:
        raise ValueError(f"{option}={name}: {place.size} processes can't share one GPU, take cuda")
    index = int(number or place.local_rank)
    if kind == "cuda" and index >= torch.cuda.device_count():
        there = f"{torch.cuda.device_count() or 'no'} CUDA GPU"
        raise ValueError(f"{option}={name}: PyTorch sees {there} here: check the driver, or take auto")
    if kind == "mps" and not mps_available():
        raise ValueError(f"{option}=mps: PyTorch sees no Apple GPU here: take auto")
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def identity(device: torch.device) -> str:
    """What tells a device from all others, on this host or another. For comparing, never for a record."""
    host = lines(BOOT) or [platform.node()]
    own = (
        getattr(torch.cuda.get_device_properties(device), "uuid", device) if device.type == "cuda" else device
    )
    return f"{host[0]} {own}"
