"""How many cores this process may use, and work spread over them: not all there are may be granted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fastresnet.base.system import lines

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def on_threads(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> list[Result]:
    """work(item) for every item on `workers` threads (0: one a core), results in the items' order.

    What is not begun when an item fails is never begun; the first error is raised.
    """
    workers = workers or cores_usable()
    if workers == 1:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
