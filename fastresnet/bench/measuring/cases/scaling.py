"""One training step over several processes, which torchrun starts as a user would: in the full suite alone.

strong shares the recipe's batch out, weak gives each process the batch that one has. On a CPU each process
has one thread; more processes than cores are measured too, and say so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from fastresnet.base.system import cores_usable
from fastresnet.bench.measuring import processes
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.file import Figure
from fastresnet.bench.measuring.harness import Case, Measured

if TYPE_CHECKING:  # it is run as a program, and must not be imported before
    from fastresnet.bench.measuring.cases.scaled import Asked, Told

PART = "scaling"
KINDS = ("strong", "weak")
COUNTS = (1, 2, 4, 8)
CPU_COUNTS = (1, 2, 4)
CPU_BATCH, TINY_BATCH = 256, 32  # that one process has
START = 8.0  # seconds that a process takes to start, about


def cases(context: Context) -> list[Case]:
    """Both kinds of scaling for each number of processes that this machine has devices for."""
    if context.suite != "full":
        return []
    gpus = torch.cuda.device_count() if context.device.type == "cuda" else 0
    counts = [count for count in COUNTS if count <= gpus] if gpus else list(CPU_COUNTS)
    counts = counts[:2] if context.tiny else counts
    return [_case(context, kind, count) for kind in KINDS for count in counts]


def _case(context: Context, kind: str, count: int) -> Case:
    recipe = "speed94.yaml" if context.on_gpu else "cpu.yaml"
    batch = TINY_BATCH if context.tiny else CPU_BATCH
    if context.on_gpu:
        batch = int(context.config(recipe).train.batch_size)
    changes: dict[str, object] = {
        "train.batch_size": batch * (count if kind == "weak" else 1),
        "train.resolutions": None,
        "train.epoch_share": 1.0,
        "train.compile": "off",
        "train.cuda_graph": False,
        "train.precision": context.fast_precision(),
    }
    settings = {"recipe": recipe, "processes": count, "kind": kind, **changes}
    measure = partial(_measure, context, recipe, changes, count)
    return Case(PART, f"{kind}/{count}", settings, measure, estimate=lambda: START + 2.0 * count)


def _measure(
    context: Context, recipe: str, changes: dict[str, object], count: int, seconds: float
) -> Measured:
    quiet = {"run.device": context.device.type, "data.loader": "resident", "data.kernel": "auto"}
    told = _told({"recipe": recipe, "changes": {**quiet, **changes}, "seconds": seconds}, count)
    batch = int(str(changes["train.batch_size"]))
    return Measured(told["step"], _figures(told, batch, count, context.on_gpu))


def _told(asked: Asked, count: int) -> Told:
    """What the processes measured. Raises RuntimeError with their last words where they failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "told.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [*launch, "-m", "fastresnet.bench.measuring.cases.scaled", json.dumps(asked), str(out)]
        child = subprocess.Popen(
            command,
            env=processes.environment() | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said = child.communicate()[1]
        finally:
            if child.poll() is None:  # out of time, or interrupted: torchrun's processes end with it
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child.returncode or not out.exists():
            lines = [line for line in said.splitlines() if "rror" in line] or ["it said nothing"]
            raise RuntimeError(f"{count} processes ended with exit code {child.returncode}: {lines[0]}")
        told: Told = json.loads(out.read_text(encoding="utf-8"))
        return told


def _figures(told: Told, batch: int, count: int, on_gpu: bool) -> dict[str, Figure]:
    step, exchange = median(told["step"]), median(told["exchange"])
    figures: dict[str, Figure] = {"processes": count, "images_per_second": batch / step}
    figures["cores_per_process"] = None if on_gpu else min(1.0, cores_usable() / count)
    if count > 1:
        figures |= {
            "communication_share": max(0.0, 1 - median(told["apart"]) / step),
            "exchange_seconds": exchange,
            "exchange_bytes": told["bytes"],
            "bus_bytes_per_second": 2 * (count - 1) / count * told["bytes"] / exchange,
            "latency_seconds": median(told["small"]),
        }
    return figures
