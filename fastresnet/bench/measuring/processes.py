"""A suite repeated in fresh processes, in turns: what varies between them becomes part of the samples.

Each process measures every case once, so that a case's repetitions lie far apart in time. Memory layout,
clocks, other tenants and the order of allocations differ between processes and hardly within one.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from fastresnet.base import words
from fastresnet.base.statistics import quantiles
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.file import Benchmark, Figure, Row
from fastresnet.bench.measuring.harness import SPREAD_LIMIT

# figures that add up over processes; the others are averaged
COUNTS = ("runs", "runs_planned")
PACKAGE_HOME = Path(__file__).resolve().parents[3]
# seconds between two looks at a process's file, and for it to end after an interruption
LOOK, FAREWELL = 0.5, 20.0


def environment() -> dict[str, str]:
    """This process's environment, for a Python process that must find this very package."""
    paths = [str(PACKAGE_HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def repeat(command: Sequence[str], count: int, folder: Path) -> Iterator[Benchmark]:
    """Run `command --out FILE` in `count` processes one after the other; yields all so far after each case.

    folder:  where the processes' own files go
    Raises RuntimeError where a process ends without a file.
    """
    done: list[Benchmark] = []
    for index in range(count):
        path = folder / f"{index}.json"
        for latest in _files_of([*command, "--out", str(path)], path):
            yield merged([*done, latest]) | {"processes_planned": count, "processes_done": index}
        done.append(file.read(path))
        yield merged(done) | {"processes_planned": count, "processes_done": index + 1}


def _files_of(command: Sequence[str], path: Path) -> Iterator[Benchmark]:
    """The file of one process each time it has grown; ends the process where the user stops."""
    child, seen = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment()), 0.0
    try:
        while child.poll() is None:
            try:
                child.wait(LOOK)
            except subprocess.TimeoutExpired:
                pass
            if path.exists() and path.stat().st_mtime > seen:
                seen = path.stat().st_mtime
                yield file.read(path)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(FAREWELL)
    if not path.exists():
        raise RuntimeError(f"a process of the suite ended with exit code {child.returncode} and left no file")


def merged(files: Sequence[Benchmark]) -> Benchmark:
    """One file of several processes' files, the first one's machine and date standing for all."""
    first, last = files[0], files[-1]
    rows: dict[str, list[Row]] = {}
    for one in files:
        for row in one["cases"]:
            rows.setdefault(row["id"], []).append(row)
    throttle = {reason for one in files for reason in one["condition"]["throttle"]}
    return {
        **first,
        "seconds": round(sum(one["seconds"] for one in files), 1),
        "budget_seconds": sum(one["budget_seconds"] for one in files),
        "condition": {
            "before": first["condition"]["before"],
            "after": last["condition"]["after"],
            "throttle": sorted(throttle),
        },
        "cases": [merged_row(repeated) for repeated in rows.values()],
    }


def merged_row(rows: Sequence[Row]) -> Row:
    """One row of the repetitions of a case; where it failed in every process, the first failure."""
    good = [row for row in rows if row["status"] == "ok"]
    if not good:
        return rows[0]
    samples = [value for row in good for value in row["samples"]]
    middles = [median(row["samples"]) for row in good]
    why = noise(middles) or next((row["noise"] for row in good if len(good) == 1), None)
    return {
        **good[0],
        "samples": samples,
        "processes": [len(row["samples"]) for row in good],
        "quantiles": {**quantiles(samples), "median": typical(middles)},
        "noisy": why is not None,
        "noise": why,
        "figures": {name: _figure(name, good) for name in good[0]["figures"]},
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }


def typical(values: Sequence[float]) -> float:
    """The geometric mean: the ratio of two such figures is what the ratios of their parts average to."""
    return math.exp(fmean(map(math.log, values))) if min(values) > 0 else fmean(values)


def noise(middles: Sequence[float]) -> str | None:
    """Why the medians of the processes can't be trusted to a few percent, or None."""
    spread = (max(middles) - min(middles)) / (abs(typical(middles)) or 1.0)
    return f"processes differ by {words.percent(spread, digits=0)}" if spread > SPREAD_LIMIT else None


def _figure(name: str, rows: Sequence[Row]) -> Figure:
    """A figure of all repetitions; what isn't a number in each of them is the first one's."""
    values = [file.number(row, name) for row in rows]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(rows):
        return rows[0]["figures"][name]
    return sum(numbers) if name in COUNTS else typical(numbers)
