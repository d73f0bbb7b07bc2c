"""Sizing: what a run takes on a machine, by roofline, and how far off measured steps show that to be.

A step takes at least its arithmetic at the machine's rate, its bytes at the bandwidth, and its launches.
Which share of that speed real steps reach is taken from results of the same kind of device; without any it is
assumed. Refuses to carry a share from one kind of device to another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from fastresnet.base import words
from fastresnet.base.statistics import quantiles
from fastresnet.bench.judging import bounds, costs
from fastresnet.bench.judging.costs import Cost
from fastresnet.bench.judging.machines import Machine
from fastresnet.bench.measuring.cases.variant import estimate_traffic
from fastresnet.bench.measuring.file import Benchmark, good, median_of
from fastresnet.settings.config import Config
from fastresnet.training import arithmetic
from fastresnet.training.experiment import Experiment

# of the floor's speed, what slow, usual and fast steps reach: assumed where nothing was measured
ASSUMED = {"cpu": (0.3, 0.5, 0.8)}
ASSUMED_ON_GPUS = (0.15, 0.35, 0.6)


@dataclass(frozen=True)
class Share:
    """Of the floor's speed, what slow, usual and fast steps reach; and who says so."""

    low: float
    usual: float
    high: float
    source: str


@dataclass(frozen=True)
class Plan:
    """A prediction of a whole run: seconds at the floor and by the usual share, bytes, what bounds it."""

    floor: float
    seconds: float
    steps: int
    images: int
    memory: float
    bound: str


def precision_for(cfg: Config, machine: Machine) -> str:
    """The precision that the settings mean there. Raises ValueError where the machine hasn't got it."""
    wanted = str(cfg.train.precision)
    if wanted == "auto":
        halves = () if machine.kind == "mps" else ("bf16", "fp16")  # as machine.precision.resolve chooses
        return next(name for name in (*halves, "fp32") if name in machine.rates)
    if wanted not in machine.rates:
        raise ValueError(f"train.precision={wanted}: {machine.name} has {', '.join(machine.rates)}")
    return wanted


def predict(cfg: Config, machine: Machine, precision: str, share: float, images: int = costs.TRAIN) -> Plan:
    """The plan of a run of `cfg`, each step at its own image size, at `share` of the floor's speed."""
    with costs.counting(cfg, images) as experiment:
        return _predict(experiment, machine, precision, share, graphs=cfg.train.cuda_graph)


def _predict(experiment: Experiment, machine: Machine, precision: str, share: float, graphs: bool) -> Plan:
    width = 2 if precision in ("bf16", "fp16") else 4
    sizes = {experiment.batch_of(step): step for step in range(experiment.total_steps)}
    counts = Counter(experiment.batch_of(step) for step in range(experiment.total_steps))
    floor, held, memory = 0.0, Counter[str](), 0.0
    for (batch, size), step in sizes.items():
        traffic, operations = estimate_traffic(experiment.model, batch, width, 3, size)
        floors = {
            "compute": arithmetic.work(experiment, step, step + 1).flops / machine.rates[precision],
            "bandwidth": traffic / machine.bandwidth,
            "launch": 0.0 if graphs else operations * machine.launch,
        }
        bound = max(floors, key=lambda name: floors[name])
        floor += counts[batch, size] * floors[bound]
        held[bound] += counts[batch, size]
        memory = max(memory, _memory(experiment, traffic, width))
    images = arithmetic.work(experiment).images
    return Plan(floor, floor / share, experiment.total_steps, images, memory, held.most_common(1)[0][0])


def _memory(experiment: Experiment, traffic: float, width: int) -> float:
    """Bytes: each output once, for the backward pass; weight, gradient, two states in fp32; the images."""
    weights = sum(p.numel() for p in experiment.model.parameters())
    activations = (traffic - (3 * width + 20) * weights) / 6
    return activations + 16 * weights + experiment.splits.train.nbytes


# ---- from what was measured --------------------------------------------------------------------------------


def share_for(kind: str, results: Sequence[Benchmark]) -> Share:
    """What steps reach on such a device: median, 20th and 80th percentile of the results of its kind."""
    reached = [share for file in results if file["device"] == kind for share in shares(file)]
    if not reached:
        return Share(*ASSUMED.get(kind, ASSUMED_ON_GPUS), f"assumed: no result of a {kind} device is here")
    q = quantiles(reached)
    source = f"20th to 80th percentile of {len(reached)} measured steps on {kind} devices"
    return Share(q["p20"], q["median"], q["p80"], source)


def shares(file: Benchmark) -> list[float]:
    """Of the floor's speed, what each eager channels-last training step of a file reaches, at most 1."""
    if file["scale"] != "normal":  # tiny only checks that all runs
        return []
    found = []
    plain = {"work": "step", "compile": "off", "memory_format": "channels_last"}
    for row in good(file, "step"):
        least = bounds.floors(file, row) if plain.items() <= row["settings"].items() else {}
        if least:
            found.append(min(max(least.values()) / median_of(row), 1.0))
    return found


def errors(results: Sequence[Benchmark]) -> dict[str, list[float]]:
    """Relative errors of predicted step times by kind of device.

    Each step is predicted from the other files of its kind, and from the other steps of its own file where
    there is no other; a step that nothing could predict has no error.
    """
    found: dict[str, list[float]] = {}
    for file in results:
        alike = [other for other in results if other is not file and other["device"] == file["device"]]
        elsewhere = [share for other in alike for share in shares(other)]
        own = shares(file)
        for index, share in enumerate(own):
            basis = elsewhere or own[:index] + own[index + 1 :]
            if basis:
                found.setdefault(file["device"], []).append(share / median(basis) - 1)
    return found


# ---- telling -----------------------------------------------------------------------------------------------


def told(
    cfg: Config, machine: Machine, plan: Plan, floor: list[str], share: Share, wrong: dict[str, list[float]]
) -> list[str]:
    """The prediction as lines of text; `floor`: those that say what it rests on."""
    fits = "" if plan.memory < 0.9 * machine.memory else "  DOES NOT FIT: take a smaller train.batch_size"
    slow, fast = (words.duration(plan.floor / reached) for reached in (share.low, share.high))
    lowest, highest = (words.percent(reached, digits=0) for reached in (share.low, share.high))
    step, rate = words.amount(plan.seconds / plan.steps, "s"), plan.images / plan.seconds
    return [
        f"{cfg.recipe} on {machine.name} ({machine.source})",
        f"  training     {words.duration(plan.seconds)} ({fast} to {slow})   {plan.steps} steps of {step}, "
        f"{rate:,.0f} images/s",
        f"  at best      {words.duration(plan.floor)}   held by {plan.bound}",
        *floor,
        f"  memory       {plan.memory / 2**30:.2f} of {machine.memory / 2**30:.0f} GiB{fits}",
        f"  steps reach  {lowest} to {highest} of the best ({share.source})",
        _error_told(machine.kind, wrong.get(machine.kind, [])),
    ]


def floor_told(cfg: Config, machine: Machine, precision: str, plan: Plan, cost: Cost) -> list[str]:
    """What arithmetic, bytes and launches would take, each alone, and where the rest of the time goes."""
    seconds = cost.seconds(machine, precision)
    rate, bandwidth = words.amount(machine.rates[precision], "FLOP/s"), words.amount(machine.bandwidth, "B/s")
    a_step = cost.launches / cost.steps
    unfused = seconds["memory, each operation for itself"] - seconds["memory, fused"]
    captured = f", {_short(cost.steps * machine.launch)} captured" if cfg.train.cuda_graph else ""
    told = {
        "arithmetic": f"{_short(seconds['arithmetic'])}   {words.amount(cost.flops, 'FLOP')} at {rate} in "
        f"{precision}; the evaluation {_short(seconds['evaluation'])} more",
        "bytes": f"{_short(seconds['memory, fused'])}   {words.amount(cost.bytes_fused, 'B')} of products at "
        f"{bandwidth}; {_short(unfused)} more where nothing is fused ({words.amount(cost.bytes, 'B')})",
        "launches": f"{_short(seconds['launches by the host'])}   {a_step:.0f} operations a step, "
        f"{words.amount(machine.launch, 's')} of the host each{captured}",
        "the rest": f"{_short(plan.seconds - plan.floor)}   what isn't fused, matrix units below their best "
        "rate, gaps between kernels",
    }
    return [f"  {name:<12} {text}" for name, text in told.items()]


def _short(seconds: float) -> str:
    return words.duration(seconds) if seconds >= 60 else words.amount(seconds, "s")


def _error_told(kind: str, wrong: list[float]) -> str:
    if not wrong:
        return f"  error        unknown: no measured step of a {kind} device to hold it to"
    sizes = sorted(map(abs, wrong))
    middle, largest = words.percent(median(sizes), digits=0), words.percent(sizes[-1], digits=0)
    told = f"median {middle}, largest {largest} over {len(sizes)} measured steps on {kind} devices"
    return f"  error        {told}"
