"""Sizing: `python benchmarks/plan.py --gpu H100 --config rn18.yaml [--section.key=value]` predicts time and
memory of a run.

By roofline: a step takes at least its arithmetic at the matrix rate, its estimated bytes at the bandwidth,
and its launches; the part of that floor that real steps reach is taken from the committed results. `--gpu
FILE.json` takes measured ceilings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fastresnet import models
from fastresnet.bench import places
from fastresnet.bench.judging import bounds
from fastresnet.bench.measuring.step import estimate_traffic
from fastresnet.machine import hardware
from fastresnet.runs import record
from fastresnet.settings import config
from fastresnet.settings.command_line import parse_args

TRAIN_IMAGES = 50_000
USUAL_SHARE = 0.35  # of the floor's speed that a step reaches, where no committed result says better
LAUNCH_SECONDS = 5e-6  # of one operation on a CUDA GPU without graphs: a typical host


@dataclass(frozen=True)
class Machine:
    """Ceilings: FLOP/s by precision (dense), bytes/s, seconds a launch, bytes of memory; and where they are
    from."""

    name: str
    rates: dict[str, float]
    bandwidth: float
    launch: float
    memory: float
    source: str


def _gpu(
    name: str, half: float, tf32: float, fp32: float, terabytes: float, gib: float, sheet: str
) -> Machine:
    """Rates in TFLOP/s without sparsity, as the data sheet gives them."""
    bf16 = half if tf32 else 0  # both came with Ampere
    rates = {"bf16": bf16 * 1e12, "fp16": half * 1e12, "tf32": tf32 * 1e12, "fp32": fp32 * 1e12}
    return Machine(
        name, {k: v for k, v in rates.items() if v}, terabytes * 1e12, LAUNCH_SECONDS, gib * 2**30, sheet
    )


# Published peaks, dense; measured ceilings are 70 to 85 % of them
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


@dataclass(frozen=True)
class Plan:
    """A prediction: seconds of a step at best and as expected, of the run, bytes of memory, and what holds it
    back."""

    step_floor: float
    step_seconds: float
    train_seconds: float
    steps: int
    memory: float
    bound: str
    images_per_second: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction, and how well predictions of this kind fit the committed results."""
    cfg, options = parse_args(argv, description=__doc__ or "", extra=_options)
    machine = find_machine(options.gpu)
    measured = [record.read(path, "benchmark") for path in sorted(places.RESULTS.glob("*.json"))]
    share = usual_share(measured)
    plan = predict(cfg, machine, precision_for(cfg, machine), share or USUAL_SHARE, options.images)
    print("\n".join(told(cfg, machine, plan, share, errors(measured))))
    return 0


def _options(parser: Any) -> None:
    parser.add_argument("--gpu", required=True, help=f"{KNOWN}, or a benchmark file")
    parser.add_argument(
        "--images", type=int, default=TRAIN_IMAGES, help="training images (default: CIFAR-10's)"
    )


def find_machine(name: str) -> Machine:
    """A GPU of the table, or the ceilings of a benchmark file. Raises ValueError for an unknown one."""
    if name.endswith(".json"):
        return from_file(record.read(name, "benchmark"))
    known = GPUS.get(name.lower().replace(" ", "").replace("-", ""))
    if known is None:
        raise ValueError(
            f"--gpu {name}: known are {KNOWN}; or name a benchmark "
            "file of the machine (python benchmarks/run.py --only ceilings)"
        )
    return known


def from_file(file: dict[str, Any]) -> Machine:
    """The measured ceilings of a file. Raises ValueError where one is missing."""
    limits = bounds.ceilings(file)
    missing = [name for name in ("matmul-fp32", "memory-copy", "launch") if name not in limits]
    if missing:
        raise ValueError(f"the file lacks the ceilings {', '.join(missing)}: run with --only ceilings")
    machine = file["hardware"]
    memory = machine["gpus"][0]["memory_bytes"] if machine["gpus"] else machine["memory_bytes"]
    rates = {
        name.removeprefix("matmul-"): rate for name, rate in limits.items() if name.startswith("matmul-")
    }
    return Machine(
        hardware.short_name(machine),
        rates,
        limits["memory-copy"],
        limits["launch"],
        memory or math.inf,
        f"measured {file['date'][:10]}",
    )


def precision_for(cfg: config.Config, machine: Machine) -> str:
    """The precision that the settings mean there. Raises ValueError where the machine hasn't got it."""
    wanted = cfg.train.precision
    if wanted == "auto":
        return next(name for name in ("bf16", "fp16", "fp32") if name in machine.rates)
    if wanted not in machine.rates:
        raise ValueError(f"train.precision={wanted}: {machine.name} has {', '.join(machine.rates)}")
    return str(wanted)


def predict(
    cfg: config.Config, machine: Machine, precision: str, share: float, images: int = TRAIN_IMAGES
) -> Plan:
    """The plan of a run of `cfg`. share: of the floor's speed that real steps reach."""
    model = models.build(cfg.model, 10, 32)
    batch, width = cfg.train.batch_size, 2 if precision in ("bf16", "fp16") else 4
    traffic, operations = estimate_traffic(model, batch, width, 3)
    floors = {
        "compute": 3 * batch * models.flops_per_image(model, 32) / machine.rates[precision],
        "bandwidth": traffic / machine.bandwidth,
        "launch": 0.0 if cfg.train.cuda_graph else operations * machine.launch,
    }
    name = max(floors, key=lambda key: floors[key])
    steps = max(
        1, round(cfg.train.epochs * (images // batch if cfg.train.drop_last else math.ceil(images / batch)))
    )
    seconds = floors[name] / share
    weights = sum(p.numel() for p in model.parameters())
    activations = (traffic - (3 * width + 20) * weights) / 6  # each output is kept once for the backward pass
    memory = (
        activations + 16 * weights + 3072 * images
    )  # fp32 weight, gradient, two states; the set itself as uint8
    return Plan(floors[name], seconds, steps * seconds, steps, memory, name, batch / seconds)


def usual_share(results: Sequence[dict[str, Any]]) -> float | None:
    """The median share of the floor's speed that the committed whole steps reach; None without any."""
    shares = [floor / took for floor, took in _floors_and_times(results)]
    return min(median(shares), 1.0) if shares else None


def errors(results: Sequence[dict[str, Any]]) -> list[float]:
    """Relative errors of predicted step times, each machine predicted from the others' share (its own where
    alone)."""
    found = []
    for result in results:
        others = [other for other in results if other is not result] or [result]
        share = usual_share(others)
        found += [floor / share / took - 1 for floor, took in _floors_and_times([result])] if share else []
    return found


def _floors_and_times(results: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """(floor, measured) seconds of each eager channels-last training step in the results."""
    found = []
    for result in results:
        for row in result["cases"]:
            if row["part"] != "step" or row["status"] != "ok" or row["settings"]["work"] != "step":
                continue
            plain = (
                row["settings"]["compile"] == "off" and row["settings"]["memory_format"] == "channels_last"
            )
            least = bounds.floors(result, row)
            if plain and least:
                found.append((max(least.values()), row["quantiles"]["median"]))
    return found


def told(
    cfg: config.Config, machine: Machine, plan: Plan, share: float | None, wrong: Sequence[float]
) -> list[str]:
    """The prediction as lines of text."""
    fits = "" if plan.memory < 0.9 * machine.memory else "  DOES NOT FIT: take a smaller train.batch_size"
    basis = (
        f"{100 * share:.0f} %, from the committed results" if share else f"{100 * USUAL_SHARE:.0f} %, a guess"
    )
    step_ms = 1e3 * plan.step_seconds
    lines = [
        f"{cfg.recipe} on {machine.name} ({machine.source})",
        f"  training     {plan.train_seconds:,.1f} s   {plan.steps} steps of {step_ms:.2f} ms, "
        f"{plan.images_per_second:,.0f} images/s",
        f"  at best      {plan.steps * plan.step_floor:,.1f} s   held by {plan.bound}",
        f"  memory       {plan.memory / 2**30:.2f} of {machine.memory / 2**30:.0f} GiB{fits}",
        f"  assumed      steps reach {basis}",
    ]
    if wrong:
        sizes = sorted(abs(error) for error in wrong)
        lines.append(
            f"  error        median {100 * median(sizes):.0f} %, largest {100 * sizes[-1]:.0f} % "
            f"over {len(sizes)} measured steps"
        )
    else:
        lines.append("  error        unknown: no committed result to hold the prediction to")
    return lines
