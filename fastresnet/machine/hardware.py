"""What machine this is: processors, memory, system, in the words of a record.

Refuses to note which one exactly: no host name, user, serial number or UUID. What can't be had is None.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from fastresnet.base.system import cores_usable, lines, output
from fastresnet.machine import memory, nvml, software
from fastresnet.machine.devices import mps_available
from fastresnet.machine.precision import cpu_is_fast_at_bf16
from fastresnet.machine.software import GitState

CPUINFO = Path("/proc/cpuinfo")


class Cpu(TypedDict):
    """bf16: whether it multiplies that in hardware"""

    model: str
    cores: int | None
    cores_usable: int
    instructions: str
    bf16: bool


class NamedGpu(TypedDict):
    """What is known of every GPU. kind: cuda, rocm or mps"""

    kind: str
    name: str
    memory_bytes: int | None


class Gpu(NamedGpu, total=False):
    """What more is known of some. The link's fields are at their best, not as they are now."""

    multiprocessors: int
    capability: str
    l2_bytes: int | None
    architecture: str | None
    clock_max_mhz: int | None
    memory_clock_max_mhz: int | None
    power_limit_watts: float | None
    pcie_generation: int | None
    pcie_lanes: int | None
    nvlinks: int


class System(TypedDict):
    """virtual_machine: None where it can't be seen"""

    os: str
    machine: str
    container: bool
    virtual_machine: bool | None


class Hardware(TypedDict):
    """gpu: the name of the first of `gpus`, None without any"""

    gpu: str | None
    gpus: list[Gpu]
    driver: str | None
    cpu: Cpu
    memory_bytes: int | None
    system: System


def describe() -> Hardware:
    """The machine as it is now."""
    gpus = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    if not gpus and mps_available():
        gpus = [{"kind": "mps", "name": f"{cpu_model()} GPU", "memory_bytes": memory.total_bytes()}]
    return {
        "gpu": gpus[0]["name"] if gpus else None,
        "gpus": gpus,
        "driver": nvml.driver_version(),
        "cpu": {
            "model": cpu_model(),
            "cores": os.cpu_count(),
            "cores_usable": cores_usable(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "bf16": cpu_is_fast_at_bf16(),
        },
        "memory_bytes": memory.total_bytes(),
        "system": {
            "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
            "machine": platform.machine(),
            "container": in_container(),
            "virtual_machine": in_virtual_machine(),
        },
    }


class Circumstances(TypedDict):
    """On what, and with what code, something was measured."""

    hardware: Hardware
    software: dict[str, str | None]
    git: GitState


def circumstances() -> Circumstances:
    """Those of this process."""
    return {"hardware": describe(), "software": software.versions(), "git": software.git_state()}


def short_name(hardware: Hardware | Mapping[str, Any]) -> str:
    """The machine in a few words, from what `describe` gave, now or in a file: `1x NVIDIA H200`."""
    gpus = hardware.get("gpus") or []
    if gpus:
        return f"{len(gpus)}x {gpus[0]['name']}"
    cpu = hardware.get("cpu") or {}
    return f"{cpu.get('cores_usable') or cpu.get('cores') or '?'} cores {cpu.get('model') or 'unknown CPU'}"


def used_name(made: Mapping[str, Any]) -> str:
    """What the figures of a file are of, in a few words: its machine without what stood idle.

    made:  a result, record or benchmark, whose `device` and `world_size` say so; older ones say neither
    """
    machine, used = made["hardware"], made.get("world_size")
    if made.get("device") == "cpu":
        return short_name({**machine, "gpus": []})
    count = len(machine.get("gpus") or [])
    if made.get("device") != "cuda" or used in (None, count) or not count:
        return short_name(machine)
    return f"{used}x {machine['gpus'][0]['name']}" + (f" of {count}" if used < count else "")


def _describe_gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    facts: Gpu = {
        "kind": "rocm" if torch.version.hip else "cuda",
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "architecture": getattr(properties, "gcnArchName", None),
    }
    card = nvml.card_of(torch.device("cuda", index))
    if card is not None:
        facts["clock_max_mhz"] = card.max_clock_mhz()
        facts["memory_clock_max_mhz"] = card.max_clock_mhz(nvml.MEMORY)
        facts["power_limit_watts"] = card.power_limit_watts()
        facts["pcie_generation"], facts["pcie_lanes"] = card.pcie()
        facts["nvlinks"] = card.nvlinks()
    return facts


def cpu_model() -> str:
    """The CPU's model name, as the system gives it; family and model too where a hypervisor hides which.

    "AMD EPYC" alone may be of any generation: no two of them compare.
    """
    if sys.platform == "darwin":
        name = output("sysctl", "-n", "machdep.cpu.brand_string")
        return name or platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines(CPUINFO):
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = next((facts[key] for key in ("model name", "Model", "cpu model") if facts.get(key)), "")
    if name and not any(map(str.isdigit, name)) and "cpu family" in facts and "model" in facts:
        return f"{name} family {facts['cpu family']} model {facts['model']}"
    return name or platform.processor() or platform.machine()


def in_container() -> bool:
    """Whether the usual marks of a container are there."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    named = " ".join(lines(Path("/proc/1/cgroup")))
    words = ("docker", "kubepods", "containerd")
    return "container" in os.environ or any(p.exists() for p in marks) or any(w in named for w in words)


def in_virtual_machine() -> bool | None:
    """Whether the CPU says that a hypervisor runs it; None where it can't be seen."""
    flags = [line for line in lines(CPUINFO) if line.startswith("flags")]
    return " hypervisor" in flags[0] if flags else None
