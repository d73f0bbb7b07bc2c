"""End to end: short runs from loader to optimizer, every image size in the recipe's proportion.

A sample is the mean time of a step in such a run, so that files with longer and shorter ones compare.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch

from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.cases import costs
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.file import Figure
from fastresnet.bench.measuring.harness import Case, Measured, keeping
from fastresnet.loading import Batch
from fastresnet.machine import precision
from fastresnet.training import arithmetic
from fastresnet.training.experiment import Experiment

PART = "endtoend"
# short runs that should fit into a case's time, the one that warms up and those without a loader among them
RUNS = 10
FEWEST = 5
EAGER: dict[str, object] = {"train.compile": "off", "train.cuda_graph": False}


def cases(context: Context) -> list[Case]:
    """Runs of the recipes that suit the device, and the costs around them."""
    context.splits()  # found or converted here, before any case's time
    recipes = ["rn18.yaml", "speed94.yaml"] if context.on_gpu else ["cpu.yaml"]
    found = [_case(context, recipe) for recipe in recipes]
    if context.suite != "quick":
        name, settings = f"deterministic/{recipes[0]}", {"recipe": recipes[0], **EAGER}
        found.append(Case(PART, name, settings, partial(_repeating, context, recipes[0])))
    return found + costs.cases(context, recipes[0])


def _case(context: Context, recipe: str) -> Case:
    changes: dict[str, object] = {}
    if context.suite == "quick":
        changes |= EAGER
    if not context.on_gpu and not context.tiny:
        changes |= {"train.batch_size": 125}
    measure = partial(_runs, context, recipe, changes)
    return Case(PART, f"run/{recipe}", {"recipe": recipe, **changes}, measure, weight=2)


def _runs(context: Context, recipe: str, changes: dict[str, object], seconds: float) -> Measured:
    cfg = experiments.shortened(context, context.config(recipe, changes), seconds / RUNS)
    with experiments.opened(cfg, context.splits()) as experiment:
        experiments.warm(experiment)
        waiting = 1 - _without_loader(experiment) / experiments.train(experiment)
        samples = _samples(experiment, seconds)
        return Measured(samples, _figures(context, experiment, samples, waiting))


def _repeating(context: Context, recipe: str, seconds: float) -> Measured:
    """Eager steps by algorithms that repeat bit for bit, in turn with the usual ones: what that costs."""
    cfg = experiments.shortened(context, context.config(recipe, EAGER), seconds / RUNS)
    usual, exact = list[float](), list[float]()
    began = time.perf_counter()
    with experiments.opened(cfg, context.splits()) as experiment, _as_before():
        while len(exact) <= FEWEST or time.perf_counter() - began < seconds:
            for exactly, samples in ((False, usual), (True, exact)):
                precision.repeat_exactly(exactly)
                precision.apply_globally(experiment.precision, experiment.device)
                samples.append(experiments.train(experiment) / experiment.total_steps)
    del usual[0], exact[0]  # they warmed up
    plain = median(usual)
    return Measured(exact, {"usual_step_seconds": plain, "cost": median(exact) / plain - 1})


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Puts back which algorithms PyTorch may use."""
    exactly = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        precision.repeat_exactly(exactly)


def _samples(experiment: Experiment, seconds: float) -> list[float]:
    """Mean seconds of a step, one entry a run."""
    began, samples = time.perf_counter(), list[float]()
    with keeping(samples):
        while len(samples) < FEWEST or time.perf_counter() - began < seconds:
            samples.append(experiments.train(experiment) / experiment.total_steps)
    return samples


def _figures(
    context: Context, experiment: Experiment, samples: list[float], waiting: float
) -> dict[str, Figure]:
    name, done, step = experiment.precision.name, arithmetic.work(experiment), median(samples)
    rate = done.images / experiment.total_steps / step
    return {
        "images_per_second": rate,
        "steps": experiment.total_steps,
        "flops_per_image": done.flops_per_image,
        "waiting_for_data": max(0.0, waiting),
        "loader": experiment.loaders.name,
        "precision": name,
        "epoch_seconds": len(experiment.splits.train) / rate,
        **context.utilisation(name, done.flops_per_image * rate),
    }


def _without_loader(experiment: Experiment) -> float:
    """Seconds of the same run on batches that are there already, one of each size."""
    kept: dict[tuple[int, int], Batch] = {}
    for epoch in range(experiment.num_epochs):
        for step, (images, labels) in zip(_steps(experiment, epoch), experiment.train_loader.epoch(epoch)):
            kept.setdefault(experiment.batch_of(step), (images.clone(), labels.clone()))

    def ready(epoch: int) -> Iterator[Batch]:
        return (kept[experiment.batch_of(step)] for step in _steps(experiment, epoch))

    return experiments.train(experiment, ready=ready)


def _steps(experiment: Experiment, epoch: int) -> range:
    first = epoch * experiment.steps_per_epoch
    return range(first, min(first + experiment.steps_per_epoch, experiment.total_steps))
