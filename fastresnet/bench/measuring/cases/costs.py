"""What stands around training: evaluation, checkpoints, start-up and compiling."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from fastresnet.base.statistics import quantiles
from fastresnet.bench.measuring import experiments, processes
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, sample
from fastresnet.machine import software
from fastresnet.runs import checkpoint
from fastresnet.training import evaluation

PART = "endtoend"
COMPILE_SCRIPT = """
import sys, time, torch
from fastresnet import models
from fastresnet.settings import config
device = sys.argv[1]
model = models.build(config.load(None, {"model.arch": "speednet"}).model, 10, 32).to(device)
images = torch.zeros(8, 3, 32, 32, device=device)
began = time.perf_counter()
step = torch.compile(lambda images: model(images).square().mean())
step(images).backward()
if device != "cpu":
    torch.cuda.synchronize()
print(time.perf_counter() - began)
"""
START_SCRIPT = """
import sys, torch
from fastresnet.bench.measuring.context import Context
from fastresnet.training.experiment import Experiment
context = Context(torch.device(sys.argv[1]), tiny=True)
experiment = Experiment(context.config("rn18.yaml", {"train.compile": "off"}), splits=context.splits())
experiment.fit_epoch(0, limit=1)
if context.on_gpu:
    torch.cuda.synchronize()
"""


def cases(context: Context, recipe: str) -> list[Case]:
    """The costs around training with `recipe`."""
    quick = context.suite == "quick"
    start = {"what": "process start to the first step's end"}
    found = [
        Case(PART, "evaluate", {"recipe": recipe}, partial(_evaluation, context, recipe)),
        Case(PART, "checkpoint", {"recipe": recipe}, partial(_checkpoint, context, recipe), weight=0.3),
        Case(PART, "start-up", start, partial(_start_up, context, 1 if quick else 3)),
    ]
    for state in () if quick else ("cold", "warm"):
        settings = {"what": "speednet, forward and backward", "cache": state}
        found.append(Case(PART, f"compile-{state}", settings, partial(_compile, context, state), weight=2))
    return found


def _evaluation(context: Context, recipe: str, seconds: float) -> Measured:
    batch = 64 if context.tiny else 500
    cfg = context.config(recipe, {"train.compile": "off", "eval.batch_size": batch})
    with experiments.opened(cfg, context.splits()) as experiment:
        count = 1000 if context.on_gpu else 1
        batches = list(itertools.islice(experiment.eval_loaders["test"].epoch(0), count))
        precision, device = experiment.precision, experiment.device
        run = partial(evaluation.predict, experiment.model, batches, precision=precision, device=device)
        samples = sample(run, context.device, seconds)
    images = sum(len(labels) for _, labels in batches)
    return Measured(samples, {"images_per_second": images / quantiles(samples)["median"]})


def _checkpoint(context: Context, recipe: str, seconds: float) -> Measured:
    cfg = context.config(recipe, {"train.compile": "off"})
    with experiments.opened(cfg, context.splits()) as experiment, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"

        def run() -> None:
            trained = {"model": experiment.model.state_dict(), "trainer": experiment.trainer.state_dict()}
            checkpoint.save(path, trained)

        samples = sample(run, context.device, seconds)
        return Measured(samples, {"bytes_written": float(path.stat().st_size)})


def _start_up(context: Context, count: int, seconds: float) -> Measured:
    command = [sys.executable, "-c", START_SCRIPT, context.device.type]
    samples: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        _child(command, {})
        samples.append(time.perf_counter() - began)
    return Measured(samples)


def _compile(context: Context, state: str, seconds: float) -> Measured:
    """Seconds that torch.compile takes with an empty cache, or with one that an earlier process filled."""
    with tempfile.TemporaryDirectory() as folder:
        caches = software.caches_in(folder)
        command = [sys.executable, "-c", COMPILE_SCRIPT, context.device.type]
        samples = [float(_child(command, caches))]
        if state == "warm":
            samples = [float(_child(command, caches)) for _ in range(3)]
    return Measured(samples)


def _child(command: list[str], environment: dict[str, str]) -> str:
    """The last line that another Python process prints. RuntimeError with its last words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=processes.environment() | environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no message").splitlines()[-1])
    return (done.stdout.strip() or "-").splitlines()[-1]
