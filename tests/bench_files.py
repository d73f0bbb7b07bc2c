"""Imaginary benchmark files for the tests: valid by the schema, with a speed that the test chooses."""

import copy
from typing import Any

import numpy as np

from fastresnet.bench.measuring import processes

HARDWARE = {
    "gpu": None, "gpus": [], "driver": None, "cpu": {"model": "Test CPU", "cores": 2, "cores_usable": 2},
    "memory_bytes": 8 * 2**30, "system": {},
}  # fmt: skip
DATA = {"name": "cifar10", "digest": "d" * 64, "synthetic": False, "train_size": 50000, "test_size": 10000}


# fresh processes that an imaginary file has, and samples of each
PROCESSES, SAMPLES = 5, 8


def samples(
    seed: int, mean: float, spread: float = 0.02, count: int = 40, correlation: float = 0.0
) -> list[float]:
    """`count` positive samples around `mean`; `correlation` of each with the one before it."""
    random = np.random.default_rng(seed)
    noise, value = [], 0.0
    for shock in random.normal(0.0, 1.0, count):
        value = correlation * value + (1 - correlation**2) ** 0.5 * shock
        noise.append(value)
    return [float(mean * np.exp(spread * x)) for x in noise]


def by_process(
    seed: int, mean: float, between: float = 0.004, count: int = PROCESSES, spread: float = 0.01
) -> list[list[float]]:
    """Correlated samples of `count` processes, whose means scatter by `between` (of their logarithms)."""
    shifts = np.random.default_rng([seed, 7]).normal(0.0, between, count)
    return [
        samples(1000 * seed + index, mean * float(np.exp(shift)), spread, SAMPLES, correlation=0.7)
        for index, shift in enumerate(shifts)
    ]


def row(
    part: str,
    name: str,
    values: list[list[float]],
    unit: str = "s",
    settings: Any = None,
    figures: Any = None,
) -> dict:
    """One case that went well, of one list of samples a process."""
    once = {
        "id": f"{part}/{name}", "part": part, "name": name, "settings": settings or {}, "status": "ok",
        "message": None, "unit": unit, "better": "lower" if unit == "s" else "higher", "quantiles": None,
        "noisy": False, "noise": None, "figures": figures or {}, "condition": {}, "seconds": 1.0,
    }  # fmt: skip
    return dict(processes.merged_row([{**once, "samples": process} for process in values]))


def step_row(seed: int, batch: int, seconds: float, model: str = "resnet18") -> dict:
    """A training step."""
    settings = {
        "model": model, "work": "step", "batch_size": batch, "precision": "fp32",
        "memory_format": "channels_last", "compile": "off",
    }  # fmt: skip
    figures = {
        "images_per_second": batch / seconds, "batch_size": batch, "flops": 3.3e9 * batch,
        "bytes": 2e7 * batch, "operations": 180, "flops_per_second": 3.3e9 * batch / seconds,
        "flops_per_image": 1.1e9, "mfu": 0.4, "peak_memory_bytes": 10**9, "joules_per_image": 0.5,
    }  # fmt: skip
    return row("step", f"{model}/b{batch}", by_process(seed, seconds), settings=settings, figures=figures)


def benchmark(seed: int = 0, slowdown: float = 1.0, name: str = "Test CPU") -> dict:
    """A file with ceilings, a loader, steps, an epoch and a time to accuracy, all `slowdown` times slower."""
    s = slowdown
    hardware = copy.deepcopy(HARDWARE)
    hardware["cpu"]["model"] = name
    epoch = {"images_per_second": 80 / s, "waiting_for_data": 0.02}
    loaded = {"images_per_second": 51200 / s}
    reached = {"accuracy": 0.86, "accuracy_std": 0.002, "runs": 1, "target": 0.85}
    cases = [
        row("ceilings", "cpu/matmul-fp32", by_process(seed + 1, 1e11 / s), "FLOP/s"),
        row("ceilings", "cpu/memory-copy", by_process(seed + 2, 1e10 / s), "B/s"),
        row("ceilings", "cpu/launch", by_process(seed + 3, 2e-6 * s)),
        row("loader", "resident/crop+flip", by_process(seed + 4, 0.01 * s), figures=loaded),
        *(step_row(seed + 10 + i, batch, 0.05 * batch * s) for i, batch in enumerate((8, 32, 128))),
        row("endtoend", "run/cpu.yaml", by_process(seed + 20, 1.5 * s), figures=epoch),
        row("accuracy", "cpu.yaml", by_process(seed + 21, 600 * s), "s", {"recipe": "cpu.yaml"}, reached),
    ]
    failed = row("step", "resnet50/largest", [[1.0]])
    failed |= {"status": "out of memory", "message": "no room", "samples": [], "quantiles": None}
    failed |= {"noisy": False, "noise": None}
    return {
        "schema_version": 1, "kind": "benchmark", "suite": "standard", "scale": "normal", "device": "cpu",
        "date": "2026-01-02T03:04:05Z", "seconds": 100.0, "budget_seconds": 720.0, "hardware": hardware,
        "software": {"python": "3.11", "torch": "2.9"}, "git": {"commit": "c" * 40, "dirty": False},
        "data": dict(DATA), "speed_settings": {}, "condition": {"before": {}, "after": {}, "throttle": []},
        "harness": {"overhead_share": 1e-4}, "cases": [*cases, failed], "cases_planned": len(cases) + 1,
        "processes_planned": PROCESSES, "processes_done": PROCESSES,
    }  # fmt: skip
