"""Memory of the host and of devices in bytes: what there is, what is free, what was taken at most.

Refuses to allocate; it may only tell the C library to keep what a run allocates again and again.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from pathlib import Path

import torch

from fastresnet.base.system import cgroups, lines, output

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)
# The last one is oneDNN's, where there is no room left for a kernel's code.
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "could not create a primitive",
)
# of a control group, of version 2 and then of 1: above memory.high a process is slowed until it gives back
LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
USES = ("memory.current", "memory.usage_in_bytes")


def total_bytes(device: torch.device | str = "cpu") -> int | None:
    """Memory of a CUDA GPU, else main memory or a control group's lower limit; None where nobody says."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    if sys.platform == "darwin":
        text = output("sysctl", "-n", "hw.memsize")
        return int(text) if text else None
    limits = [_proc("meminfo", "MemTotal"), *map(_limit, cgroups("memory"))]
    return min((limit for limit in limits if limit is not None), default=None)


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that could still be taken on `device`; control groups' limits count for the CPU, no swap."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    available = _proc("meminfo", "MemAvailable")
    if available is None:  # macOS tells no more
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    granted = [free for group in cgroups("memory") if (free := cgroup_free(group)) is not None]
    return max(0, min([available, *granted]))


def cgroup_free(group: Path) -> int | None:
    """What one control group still grants; its idle file cache is free. None: no limit."""
    limit, used = _limit(group), [use for name in USES if (use := _number(group / name)) is not None]
    if limit is None or not used:
        return None
    cache = [line.split()[1] for line in lines(group / "memory.stat") if "inactive_file " in line]
    return limit - used[0] + int(cache[-1] if cache else 0)


def _limit(group: Path) -> int | None:
    limits = [limit for name in LIMITS if (limit := _number(group / name)) is not None]
    return min(limits, default=None)


def peak_bytes(device: torch.device | str = "cpu") -> int:
    """Most memory in use since the process began or `reset_peak`: torch's on a GPU, resident on a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())  # no high-water mark there: what is held now
    resident = _proc("self/status", "VmHWM")
    if resident is not None:
        return resident
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def reset_peak(device: torch.device | str = "cpu") -> bool:
    """Start the high-water mark anew. False where the system has no way to."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to the current resident size
    except OSError:
        return False
    return True


def give_back(device: torch.device) -> None:
    """Collect what nobody holds any more, and hand back what PyTorch keeps of it on `device`."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's has its own class, the CPU's only words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def keep_large_buffers() -> bool:
    """From now on the C library's heap serves buffers of every size and never shrinks.

    By default glibc maps every buffer above 32 MiB afresh and unmaps it when it is freed, so that each step
    of a training run touches its activations for the first time again: a page fault every 4 KiB.
    Where there is no glibc nothing changes, and the result is False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def _proc(name: str, field: str) -> int | None:
    """A field of /proc/<name>, which gives kB, in bytes."""
    found = [line for line in lines(Path("/proc", name)) if line.startswith(f"{field}:")]
    return int(found[0].split()[1]) * 1024 if found else None


def _number(path: Path) -> int | None:
    text = "".join(lines(path)[:1])
    return int(text) if text.isdigit() else None
