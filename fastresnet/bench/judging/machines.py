"""Machines by their ceilings: GPUs as published, and any machine as its benchmark file measured it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastresnet.bench.judging import bounds
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.file import Benchmark
from fastresnet.machine import hardware

# seconds of one operation on a CUDA GPU without graphs: a typical host
LAUNCH_SECONDS = 5e-6
# of published peaks, what one H200 was measured to reach: TFLOP/s of a bf16 product, TB/s of a copy
REACHED_RATE, REACHED_BANDWIDTH = 790 / 989, 4.3 / 4.8
REACHED = "and of its peaks what one H200 was measured to reach, 790 of 989 TFLOP/s and 4.3 of 4.8 TB/s"


@dataclass(frozen=True)
class Machine:
    """Ceilings, and where they are from.

    kind:       of device: cuda, cpu, mps
    rates:      FLOP/s by precision (dense)
    bandwidth:  bytes/s
    launch:     seconds of one operation that the host queues
    memory:     bytes
    """

    name: str
    kind: str
    rates: dict[str, float]
    bandwidth: float
    launch: float
    memory: float
    source: str


def _gpu(
    name: str, half: float, tf32: float, fp32: float, terabytes: float, gib: float, sheet: str
) -> Machine:
    """Published peaks in TFLOP/s without sparsity and TB/s; what is reached of them is assumed."""
    bf16 = half if tf32 else 0  # both came with Ampere
    rates = {"bf16": bf16, "fp16": half, "tf32": tf32, "fp32": fp32}
    reached = {key: REACHED_RATE * rate * 1e12 for key, rate in rates.items() if rate}
    bandwidth = REACHED_BANDWIDTH * terabytes * 1e12
    return Machine(name, "cuda", reached, bandwidth, LAUNCH_SECONDS, gib * 2**30, f"{sheet}, {REACHED}")


GPUS = {
    gpu.name.lower(): gpu
    for gpu in (
        _gpu("B200", 2250, 1125, 75, 8.0, 180, "NVIDIA Blackwell data sheet, 2024"),
        _gpu("H200", 989, 494, 67, 4.8, 141, "NVIDIA H200 data sheet (SXM), 2023"),
        _gpu("H100", 989, 494, 67, 3.35, 80, "NVIDIA H100 data sheet (SXM), 2022"),
        _gpu("A100", 312, 156, 19.5, 2.04, 80, "NVIDIA A100 80GB data sheet (SXM), 2021"),
        _gpu("L40S", 362, 183, 91.6, 0.864, 48, "NVIDIA L40S data sheet, 2023"),
        _gpu("L4", 121, 60, 30.3, 0.3, 24, "NVIDIA L4 data sheet, 2023"),
        _gpu("RTX4090", 165, 82.6, 82.6, 1.008, 24, "NVIDIA Ada architecture paper, 2022"),
        _gpu("RTX3090", 71, 35.6, 35.6, 0.936, 24, "NVIDIA Ampere GA102 paper, 2020"),
        _gpu("V100", 125, 0, 15.7, 0.9, 32, "NVIDIA V100 data sheet (SXM2), 2018"),
        _gpu("T4", 65, 0, 8.1, 0.32, 16, "NVIDIA T4 data sheet, 2018"),
    )
}


KNOWN = ", ".join(gpu.name for gpu in GPUS.values())


def find(name: str) -> Machine:
    """A GPU of the table, or the ceilings of a benchmark file. Raises ValueError for an unknown one."""
    if name.endswith(".json"):
        return from_file(file.read(name))
    known = GPUS.get(name.lower().replace(" ", "").replace("-", ""))
    if known is None:
        raise ValueError(
            f"--gpu {name}: known are {KNOWN}; or name a benchmark "
            "file of the machine (python benchmarks/run.py --only ceilings)"
        )
    return known


def from_file(measured: Benchmark) -> Machine:
    """The measured ceilings of a file. Raises ValueError where one is missing."""
    limits = bounds.ceilings(measured)
    missing = [name for name in ("matmul-fp32", "memory-copy", "launch") if name not in limits]
    if missing:
        raise ValueError(f"the file lacks the ceilings {', '.join(missing)}: run with --only ceilings")
    machine = measured["hardware"]
    on_gpu = measured["device"] != "cpu" and machine["gpus"]
    memory = machine["gpus"][0]["memory_bytes"] if on_gpu else machine["memory_bytes"]
    formats = [name.removeprefix("matmul-") for name in limits if name.startswith("matmul-")]
    return Machine(
        hardware.used_name(measured),
        measured["device"],
        {name: bounds.rate(limits, name) or 0.0 for name in formats},
        limits["memory-copy"],
        limits["launch"],
        memory or math.inf,
        f"measured {measured['date'][:10]}",
    )
