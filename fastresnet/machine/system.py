"""What the operating system tells of the machine: CPU, cores, memory, container. Knows neither torch's
devices nor GPUs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def cpu_model() -> str:
    """The CPU's model name, as the system gives it."""
    if sys.platform == "darwin":
        return (
            output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()
        )
    for line in lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def in_container() -> bool:
    """Whether the usual marks of a container are there."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    named = any(
        word in line
        for line in lines(Path("/proc/1/cgroup"))
        for word in ("docker", "kubepods", "containerd")
    )
    return any(mark.exists() for mark in marks) or named or "container" in os.environ


def in_virtual_machine() -> bool | None:
    """Whether the CPU says that a hypervisor runs it; None where it can't be seen."""
    flags = [line for line in lines(Path("/proc/cpuinfo")) if line.startswith("flags")]
    return " hypervisor" in flags[0] if flags else None


def cpu_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def lines(path: Path) -> list[str]:
    """The lines of a small system file; none where it can't be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def output(*command: str) -> str:
    """What a command prints; nothing where there is no such command or it takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
