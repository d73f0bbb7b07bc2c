"""What the operating system tells in files and through commands, how many cores it grants, and their use."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CGROUP, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores_usable() -> int:
    """Cores that this process may use: its affinity, and the quotas of its control groups, rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for group in cgroups("cpu") if (quota := cgroup_quota(group))]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def cgroups(controller: str) -> list[Path]:
    """Folders of the control groups that bind this process: its own and all above, of version 2 and 1.

    In a container its own is mounted as the root, whatever it is called: what isn't there binds nobody.
    """
    found = list[Path]()
    for line in lines(OWN_CGROUPS):
        controllers, path = line.split(":", 2)[1:]
        if not controllers or controller in controllers.split(","):
            root, inside = CGROUP / controller if controllers else CGROUP, PurePosixPath(path.lstrip("/"))
            found += [root / group for group in (inside, *inside.parents)]
    return list(dict.fromkeys(found)) or [CGROUP, CGROUP / controller]


def cgroup_quota(group: Path) -> float | None:
    """Cores' worth of time that one control group (version 2, or 1) grants; None: no limit."""
    both = " ".join(lines(group / "cpu.max")).split()
    if not both:
        both = lines(group / "cpu.cfs_quota_us")[:1] + lines(group / "cpu.cfs_period_us")[:1]
    if not both or both[0] in ("max", "-1"):
        return None
    return int(both[0]) / int(both[1] if len(both) > 1 else 100_000)


def lines(path: Path) -> list[str]:
    """The lines of a small system file; none where it can't be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def children() -> list[str]:
    """Processes that this one has started, a line each: number, name, state. None where /proc lacks them."""
    found = [line.split() for path in Path("/proc/self/task").glob("*/children") for line in lines(path)]
    return [f"{number} {_status(number)}" for numbers in found for number in numbers]


def _status(process: str) -> str:
    wanted = ("Name:", "State:")
    fields = [line for line in lines(Path("/proc", process, "status")) if line.startswith(wanted)]
    return ", ".join(line.partition(":")[2].strip() for line in fields)


def output(*command: str | Path) -> str:
    """What a command prints; nothing where there is no such command, it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


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
