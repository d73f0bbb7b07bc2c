"""Which ceiling holds a case: compute, bandwidth, launches or the loader; and which one explains a
difference.

A roofline with a launch cost: the least time of a step is the largest of arithmetic / matrix rate, bytes /
bandwidth and operations x launch cost. Bytes are an estimate (see step.estimate_traffic), so this names the
likely cause, no more.
"""

from __future__ import annotations

import math
from typing import Any

FORMAT_OF = {"fp32": "fp32", "tf32": "tf32", "bf16": "bf16", "fp16": "fp16"}
# a ceiling explains a difference when its own ratio covers at least this share of it, on a log scale
NEAR = 0.5


def ceilings(file: dict[str, Any]) -> dict[str, float]:
    """The measured ceilings of a file's device by short name: matmul-bf16 (FLOP/s), memory-copy (B/s), launch
    (s)."""
    found = {}
    for row in file["cases"]:
        if row["part"] == "ceilings" and row["status"] == "ok":
            where, _, name = row["name"].partition("/")
            if where == file["device"]:
                found[name] = float(row["quantiles"]["median"])
    return found


def floors(file: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """The least seconds that each ceiling allows for a step row; empty where something wasn't measured."""
    limits, figures = ceilings(file), row["figures"]
    rate = limits.get(f"matmul-{FORMAT_OF.get(row['settings'].get('precision', ''), '')}")
    if not rate or not figures.get("flops") or "memory-copy" not in limits or "launch" not in limits:
        return {}
    return {
        "compute": figures["flops"] / rate,
        "bandwidth": figures["bytes"] / limits["memory-copy"],
        "launch": figures["operations"] * limits["launch"],
    }


def bound(file: dict[str, Any], row: dict[str, Any]) -> str:
    """The ceiling that a row is nearest to, or an empty string where that isn't known."""
    if row["part"] == "loader":
        return "loader"
    if row["figures"].get("waiting_for_data") is not None:
        return "loader" if row["figures"]["waiting_for_data"] > 0.3 else "compute"
    least = floors(file, row)
    return max(least, key=lambda name: least[name]) if least else ""


def explain(
    base: dict[str, Any], file: dict[str, Any], own: dict[str, Any], row: dict[str, Any], ratio: float
) -> str:
    """In a few words, the ceiling whose own ratio explains the `ratio` of speeds; «unexplained» where none
    does."""
    if row["part"] == "ceilings":
        return ""
    if row["part"] == "loader":
        return _by_cores(base, file)
    before, after = floors(base, own), floors(file, row)
    if not before or not after:
        waits = own["figures"].get("waiting_for_data"), row["figures"].get("waiting_for_data")
        return "loader" if None not in waits and max(waits) > 0.3 else ""
    name = max(before, key=lambda key: before[key])
    if before[name] == after[name]:
        return "same machine: the code, or its settings"
    covered = math.log(before[name] / after[name]) / math.log(ratio)
    if NEAR <= covered <= 1 / NEAR:
        return f"{name}: its ceiling differs {before[name] / after[name]:.2f}x"
    other = max(after, key=lambda key: after[key])
    if other != name:
        return f"{name} on the base, {other} here"
    return f"unexplained ({name} ceiling: {before[name] / after[name]:.2f}x)"


def _by_cores(base: dict[str, Any], file: dict[str, Any]) -> str:
    cores = [entry["hardware"]["cpu"]["cores_usable"] for entry in (base, file)]
    if base["device"] == file["device"] == "cpu" or cores[0] == cores[1]:
        return f"loader ({cores[0]} and {cores[1]} cores)" if cores[0] != cores[1] else "loader"
    return f"loader ({base['device']}, {cores[0]} cores; {file['device']}, {cores[1]} cores)"
