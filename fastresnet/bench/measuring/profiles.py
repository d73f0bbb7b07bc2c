"""Profiles of training: a Chrome trace, and the top operations by time with their kind of work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from fastresnet.base import files, words
from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.cases.variant import Variant
from fastresnet.bench.measuring.context import Context
from fastresnet.machine import precision, timing

# by words in the names of kernels (CUDA, ROCm) or operations (CPU); the first that fits
KINDS = (
    ("memory traffic", "triton_poi triton_red triton_per bn_fw bn_bw batch_norm tonhwc tonchw"),
    ("matrix work", "gemm conv cutlass xmma wgmma nvjet ::mm addmm bmm matmul linear cudnn"),
    ("communication", "nccl allreduce"),
    ("memory traffic", "copy elementwise norm pool relu gelu silu add mul reduce sum fill zero cat"),
    ("memory traffic", "index softmax foreach memcpy memset triton div loss sub"),
)
STEPS, TOP = 3, 25
RACE = "speed94.yaml"
SILENT = "6"  # one above the last level of messages


def recorder(*, on_gpu: bool) -> profile:
    """PyTorch's profiler of CPU and GPU; without one it would print errors of a GPU that it doesn't find."""
    if not on_gpu:
        os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
    return profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu)


def kind_of(name: str) -> str:
    """What kind of work an operation is, judged by its name."""
    lower = name.lower()
    return next((kind for kind, words in KINDS if any(word in lower for word in words.split())), "other")


def write(context: Context, folder: Path, say: Callable[[str], None]) -> Path:
    """Profile a few steps of ResNet-18 (speednet where tiny): trace.json and kernels.md in `folder`.

    On a GPU then a short run of speed94 too, in folder/race.
    """
    name, batch = ("speednet", 8) if context.tiny else ("resnet18", 512 if context.on_gpu else 32)
    variant = Variant(context, name, batch, context.fast_precision())
    run, images, labels = variant.prepare(batch, precision.resolve(variant.precision, context.device))
    run(images, labels)

    def steps() -> None:
        for _ in range(STEPS):
            run(images, labels)

    title = f"{name}, batch {batch}, {variant.precision}"
    page = _profiled(context, folder, title, STEPS, steps, say)
    if context.on_gpu:
        race(context, folder / "race", say)
    return page


def race(context: Context, folder: Path, say: Callable[[str], None], recipe: str = RACE) -> Path:
    """Profile a short run from fresh weights as it is raced, every image size in its proportion."""
    cfg = experiments.shortened(context, context.config(recipe), 0.0)
    with experiments.opened(cfg, context.splits()) as experiment:
        experiments.warm(experiment)
        title = f"a run of {recipe}, batch {cfg.train.batch_size}, {experiment.precision.name}"
        steps = experiment.total_steps
        return _profiled(context, folder, title, steps, lambda: experiments.train(experiment), say)


def _profiled(
    context: Context,
    folder: Path,
    title: str,
    steps: int,
    work: Callable[[], object],
    say: Callable[[str], None],
) -> Path:
    on_gpu = context.device.type == "cuda"
    began = timing.now(context.device)
    with recorder(on_gpu=on_gpu) as recorded:
        work()
        wall = timing.now(context.device) - began
    folder.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(folder / "trace.json"))
    title = f"{title}, {steps} steps on {context.device.type}"
    files.write_text(folder / "kernels.md", table(title, operations(recorded, on_gpu=on_gpu), wall, steps))
    say(f"profile: {folder / 'trace.json'} (chrome://tracing or ui.perfetto.dev) and {folder / 'kernels.md'}")
    return folder / "kernels.md"


def operations(recorded: profile, *, on_gpu: bool) -> list[tuple[str, float, int]]:
    """(name, seconds of its own, calls), longest first: kernels on a GPU, operations on a CPU."""
    found = []
    for event in recorded.key_averages():
        device_kind = str(getattr(event, "device_type", ""))
        if on_gpu and "CPU" in device_kind:
            continue
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if own > 0 and not event.key.startswith("ProfilerStep"):
            found.append((event.key, own / 1e6, event.count))
    return sorted(found, key=lambda row: -row[1])


def table(title: str, rows: list[tuple[str, float, int]], wall: float, steps: int) -> str:
    """Markdown: shares by kind of work, with the gaps in which nothing ran, then the top operations."""
    busy = sum(seconds for _, seconds, _ in rows)
    total = max(wall, busy)
    took = f"{1e3 * wall / steps:.1f} ms a step while profiled ({time.strftime('%Y-%m-%d')})."
    shares = _by_kind(rows) | {"gaps (launch, waiting)": max(wall - busy, 0.0)}
    kinds = [["kind of work", "share"]]
    for kind, seconds in sorted(shares.items(), key=lambda x: -x[1]):
        kinds.append([kind, words.percent(seconds / total)])
    top = [["operation", "kind", "ms a step", "calls a step", "share"]]
    for name, seconds, calls in rows[:TOP]:
        figures = [f"{1e3 * seconds / steps:.2f}", f"{calls / steps:.0f}", words.percent(seconds / total)]
        top.append([f"`{name[:90]}`", kind_of(name), *figures])
    tables = [*words.markdown(kinds, [1]), "", *words.markdown(top, [2, 3, 4])]
    return "\n".join([f"# Profile: {title}", "", took, "", *tables, ""])


def _by_kind(rows: list[tuple[str, float, int]]) -> dict[str, float]:
    """Seconds of each kind of work."""
    shares: dict[str, float] = {}
    for name, seconds, _ in rows:
        shares[kind_of(name)] = shares.get(kind_of(name), 0.0) + seconds
    return shares
