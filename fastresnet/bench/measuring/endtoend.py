"""End to end: real epochs from the loader to the optimizer, and what evaluation, checkpoints, start-up and
compiling cost.

On a CPU a sample is a step, on a GPU a whole epoch: there the host runs ahead and single steps can't be told
apart.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastresnet.base import statistics
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, OutOfTime, sample
from fastresnet.machine import timing
from fastresnet.models import flops_per_image
from fastresnet.runs import checkpoint
from fastresnet.training import evaluation
from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import Trainer

PART = "endtoend"
REPOSITORY = Path(__file__).resolve().parents[3]
COMPILE_SCRIPT = """
import sys, time, torch
from fastresnet import models
from fastresnet.settings import config
began = time.perf_counter()
device = sys.argv[1]
model = models.build(config.load(None, {"model.arch": "speednet"}).model, 10, 32).to(device)
step = torch.compile(lambda images: model(images).square().mean())
step(torch.zeros(8, 3, 32, 32, device=device)).backward()
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


def cases(context: Context) -> list[Case]:
    """Epochs of the recipes that suit the device, and the costs around them."""
    recipes = ["rn18.yaml", "speed94.yaml"] if context.on_gpu else ["cpu.yaml"]
    found = []
    for recipe in recipes:
        changes = {"train.compile": "off", "train.cuda_graph": False} if context.suite == "quick" else {}
        if not context.on_gpu and not context.tiny:
            changes |= {"train.batch_size": 125}
        found.append(
            Case(
                PART,
                f"epoch/{recipe}",
                {"recipe": recipe, **changes},
                _epochs(context, recipe, changes),
                weight=2,
            )
        )
    found.append(Case(PART, "evaluate", {"recipe": recipes[0]}, _evaluation(context, recipes[0])))
    found.append(
        Case(PART, "checkpoint", {"recipe": recipes[0]}, _checkpoint(context, recipes[0]), weight=0.3)
    )
    count = 1 if context.suite == "quick" else 3
    found.append(
        Case(PART, "start-up", {"what": "process start to the first step's end"}, _start_up(context, count))
    )
    if context.suite != "quick":
        found += [
            Case(
                PART,
                f"compile-{state}",
                {"what": "speednet, forward and backward", "cache": state},
                _compile(context, state),
                weight=2,
            )
            for state in ("cold", "warm")
        ]
    return found


class _Watched:
    """A loader that adds up how long its user waited for the next batch."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.waited = loader, 0.0

    def epoch(self, epoch: int) -> Iterator[Any]:
        batches = iter(self.loader.epoch(epoch))
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def _epochs(context: Context, recipe: str, changes: dict[str, Any]) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        cfg = context.config(recipe, {"train.epochs": 1000.0, **changes})
        experiment = Experiment(cfg, splits=context.splits())
        try:
            experiment.warm_up()
            experiment.initialise()
            one = _gpu_epochs if context.device.type == "cuda" else _steps
            samples, images, waiting = one(experiment, seconds)
            flops = _training_flops(experiment)
        finally:
            experiment.close()
        rate = images / statistics.quantiles(samples)["median"]
        ceiling = context.ceiling(experiment.precision.name)
        figures: dict[str, Any] = {
            "images_per_second": rate,
            "waiting_for_data": waiting,
            "loader": type(experiment.train_loader).__name__,
            "precision": experiment.precision.name,
            "mfu": flops * rate / ceiling,
            "epoch_seconds": len(experiment.splits.train) / rate,
        }
        return Measured(samples, figures)

    return measure


def _training_flops(experiment: Experiment) -> float:
    return 3.0 * flops_per_image(experiment.model, experiment.image_size)


def _steps(experiment: Experiment, seconds: float) -> tuple[list[float], int, float]:
    """(seconds a step, images a step, share of the time spent waiting for batches), for about `seconds`."""
    watched = _Watched(experiment.train_loader)
    experiment.train_loader = watched  # type: ignore[assignment]  # it only adds a clock
    marks: list[float] = [timing.now(experiment.device)]
    began = marks[0]

    def note(_: Trainer) -> bool:
        marks.append(timing.now(experiment.device))
        return marks[-1] - began > seconds and len(marks) > 5

    epoch = 0
    try:
        while len(marks) < 6 or marks[-1] - began < seconds:
            experiment.fit_epoch(epoch, on_step=note)
            epoch += 1
    except OutOfTime:
        if len(marks) < 3:
            raise
    waiting = watched.waited / (marks[-1] - began)
    experiment.train_loader = watched.loader
    return [b - a for a, b in zip(marks, marks[1:])], experiment.train_loader.batch_size, waiting


def _gpu_epochs(experiment: Experiment, seconds: float) -> tuple[list[float], int, float]:
    """(seconds an epoch, images an epoch, share by which the same steps on one ready batch are faster)."""
    samples: list[float] = []
    images, began, epoch = 0, time.perf_counter(), 0
    while len(samples) < 3 or time.perf_counter() - began < 0.7 * seconds:
        result = experiment.fit_epoch(epoch)
        samples.append(result.seconds)
        images, epoch = result.images, epoch + 1
    batches = experiment.train_loader.epoch(0)
    ready = next(iter(batches))
    getattr(batches, "close", lambda: None)()
    steps = len(experiment.train_loader)
    without = [experiment.trainer.fit_epoch(itertools.repeat(ready, steps), epoch).seconds for _ in range(2)]
    return samples, images, max(0.0, 1 - min(without) / statistics.quantiles(samples)["median"])


def _evaluation(context: Context, recipe: str) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        experiment = Experiment(
            context.config(recipe, {"train.compile": "off", "eval.batch_size": 64 if context.tiny else 500}),
            splits=context.splits(),
        )
        try:
            count = 1000 if context.on_gpu else 1
            batches = list(itertools.islice(experiment.eval_loaders["test"].epoch(0), count))

            def run() -> None:
                evaluation.predict(
                    experiment.model, batches, precision=experiment.precision, device=experiment.device
                )

            samples = sample(run, context.device, seconds)
        finally:
            experiment.close()
        images = sum(len(labels) for _, labels in batches)
        return Measured(samples, {"images_per_second": images / statistics.quantiles(samples)["median"]})

    return measure


def _checkpoint(context: Context, recipe: str) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        experiment = Experiment(context.config(recipe, {"train.compile": "off"}), splits=context.splits())
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "last.pt"

                def run() -> None:
                    checkpoint.save(
                        path,
                        {"model": experiment.model.state_dict(), "trainer": experiment.trainer.state_dict()},
                    )

                samples = sample(run, context.device, seconds)
                size = path.stat().st_size
        finally:
            experiment.close()
        return Measured(samples, {"bytes_written": float(size)})

    return measure


def _start_up(context: Context, count: int) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        command = [sys.executable, "-c", START_SCRIPT, context.device.type]
        samples: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            _child(command, {})
            samples.append(time.perf_counter() - began)
        return Measured(samples)

    return measure


def _compile(context: Context, state: str) -> Callable[[float], Measured]:
    """Seconds that torch.compile takes with an empty cache, or with one that an earlier process filled."""

    def measure(seconds: float) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
            command = [sys.executable, "-c", COMPILE_SCRIPT, context.device.type]
            samples = [float(_child(command, caches))]
            if state == "warm":
                samples = [float(_child(command, caches)) for _ in range(3)]
        return Measured(samples)

    return measure


def _child(command: list[str], environment: dict[str, str]) -> str:
    """The last line that another Python process prints. RuntimeError with its last words where it fails."""
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths} | environment
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no message").splitlines()[-1])
    return (done.stdout.strip() or "-").splitlines()[-1]
