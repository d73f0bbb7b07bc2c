"""Which ceiling holds a case, compute, bandwidth, launches or the loader, and explains a difference.

A roofline with a launch cost: the least time of a step is the largest of arithmetic / rate, bytes / bandwidth
and operations x launch cost. Bytes are an estimate (see `estimate_traffic`), so this names the likely cause,
no more.
"""

from __future__ import annotations

import math

from fastresnet.bench.measuring.file import Benchmark, Row, good, median_of, number
from fastresnet.machine import hardware

# a ceiling explains a difference when its own ratio covers at least this share of it, on a log scale
NEAR = 0.5
# of a run's time: above it, a run waits for its loader
WAITING = 0.3


def ceilings(file: Benchmark) -> dict[str, float]:
    """The measured ceilings of a file's device: matmul-bf16 (FLOP/s), memory-copy (B/s), launch (s)."""
    found = {}
    for row in good(file, "ceilings"):
        where, _, name = row["name"].partition("/")
        if where == file["device"]:
            found[name] = median_of(row)
    return found


def rate(limits: dict[str, float], precision: object) -> float | None:
    """FLOP/s in a precision: of products or of convolutions, whichever the machine does faster."""
    return (
        max((limits.get(f"{what}-{precision}", 0.0) for what in ("matmul", "conv3x3")), default=0.0) or None
    )


def floors(file: Benchmark, row: Row) -> dict[str, float]:
    """The least seconds that each ceiling allows for a step row; empty where something wasn't measured."""
    limits = ceilings(file)
    arithmetic = rate(limits, row["settings"].get("precision"))
    flops, moved, operations = (number(row, name) for name in ("flops", "bytes", "operations"))
    if not arithmetic or not flops or not moved or not operations:
        return {}
    if "memory-copy" not in limits or "launch" not in limits:
        return {}
    return {
        "compute": flops / arithmetic,
        "bandwidth": moved / limits["memory-copy"],
        "launch": operations * limits["launch"],
    }


def explain(base: Benchmark, file: Benchmark, own: Row, row: Row, ratio: float) -> str:
    """In a few words, the ceiling whose own ratio explains the `ratio` of speeds, or that none does."""
    if row["part"] == "ceilings":
        return ""
    if row["part"] == "loader":
        return _by_cores(base, file)
    before, after = floors(base, own), floors(file, row)
    if not before or not after:
        waits = [number(one, "waiting_for_data") for one in (own, row)]
        return "loader" if max(wait or 0.0 for wait in waits) > WAITING else ""
    name = max(before, key=lambda key: before[key])
    covered = math.log(before[name] / after[name]) / math.log(ratio)
    if NEAR <= covered <= 1 / NEAR:
        return f"{name}: its ceiling differs {before[name] / after[name]:.2f}x"
    if hardware.used_name(base) == hardware.used_name(file):
        return "same machine: the code, or what it runs on"
    other = max(after, key=lambda key: after[key])
    if other != name:
        return f"{name} on the base, {other} here"
    return f"unexplained ({name} ceiling: {before[name] / after[name]:.2f}x)"


def _by_cores(base: Benchmark, file: Benchmark) -> str:
    cores = [entry["hardware"]["cpu"]["cores_usable"] for entry in (base, file)]
    if cores[0] == cores[1]:
        return "loader"
    if base["device"] == file["device"] == "cpu":
        return f"loader ({cores[0]} and {cores[1]} cores)"
    return f"loader ({base['device']}, {cores[0]} cores; {file['device']}, {cores[1]} cores)"
