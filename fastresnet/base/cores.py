"""How many cores this process may use: what the system has is not what it grants."""

from __future__ import annotations

import os
from pathlib import Path

from fastresnet.base.system import lines

CGROUP = Path("/sys/fs/cgroup")


def cores_usable() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group, rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup_quota(CGROUP)
    return max(1, min(cores, -int(-quota // 1))) if quota else cores


def cgroup_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group under `root` (version 2, then 1) grants; None: no limit."""
    both = _words(root / "cpu.max")
    if not both:
        both = _words(root / "cpu/cpu.cfs_quota_us") + _words(root / "cpu/cpu.cfs_period_us")
    if not both or both[0] in ("max", "-1"):
        return None
    return int(both[0]) / int(both[1] if len(both) > 1 else 100_000)


def _words(path: Path) -> list[str]:
    return " ".join(lines(path)).split()
