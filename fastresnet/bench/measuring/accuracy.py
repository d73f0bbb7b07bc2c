"""Time to accuracy: whole runs of the recipes, initialisation and deciding evaluation on the clock, every run
reported."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

from fastresnet import data
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, OutOfTime
from fastresnet.machine import timing
from fastresnet.settings.config import Config
from fastresnet.training.experiment import Experiment

PART = "accuracy"
SHORT = {"train.epochs": 1.0, "data.subset": 5000.0, "train.batch_size": 125, "eval.tta": "none"}
RUNS: dict[
    tuple[str, str], list[tuple[str, dict[str, Any], int]]
] = {  # (recipe, settings changed, runs) by kind of device and suite
    ("gpu", "quick"): [],
    ("gpu", "standard"): [("speed94.yaml", {}, 5), ("rn18.yaml", {}, 1)],
    ("gpu", "full"): [("speed94.yaml", {}, 50), ("speed96.yaml", {}, 5), ("rn18.yaml", {}, 3)],
    ("cpu", "quick"): [],
    ("cpu", "standard"): [("cpu.yaml", SHORT, 2)],
    ("cpu", "full"): [("cpu.yaml", SHORT, 5), ("cpu.yaml", {}, 2)],
}


def cases(context: Context) -> list[Case]:
    """The recipes that this device finishes in the suite's time."""
    chosen = RUNS["gpu" if context.on_gpu else "cpu", context.suite]
    if context.tiny:
        chosen = [("smoke.yaml", {"train.epochs": 1.0}, 2)]
    return [
        Case(
            PART,
            recipe + ("/short" if changes else ""),
            {"recipe": recipe, "runs": runs, **changes},
            _runs(context, recipe, changes, runs),
            weight=4,
        )
        for recipe, changes, runs in chosen
    ]


def _runs(context: Context, recipe: str, changes: dict[str, Any], runs: int) -> Callable[[float], Measured]:
    def measure(seconds: float) -> Measured:
        cfg = context.config(recipe, changes)
        experiment = Experiment(cfg, splits=context.splits() if context.tiny else data.prepare(cfg))
        samples: list[float] = []
        accuracies: list[float] = []
        try:
            experiment.warm_up()
            for seed in range(runs):
                took, accuracy = _one_run(experiment, cfg, seed)
                samples.append(took)
                accuracies.append(accuracy)
        except OutOfTime:
            if not samples:
                raise
        finally:
            experiment.close()
        figures: dict[str, float | str | bool | None] = {
            "accuracy": fmean(accuracies),
            "runs": len(samples),
            "runs_planned": runs,
            "target": cfg.eval.target,
            "accuracy_std": stdev(accuracies) if len(samples) > 1 else None,
            "epochs": cfg.train.epochs,
            "tta": cfg.eval.tta,
        }
        return Measured(samples, figures)

    return measure


def _one_run(experiment: Experiment, cfg: Config, seed: int) -> tuple[float, float]:
    """(seconds, accuracy) of one run from fresh weights, as the measuring protocol wants them."""
    experiment.reset(seed)
    began = timing.now(experiment.device)
    experiment.initialise()
    for epoch in range(experiment.num_epochs):
        experiment.fit_epoch(epoch)
    accuracy = experiment.evaluate("test", cfg.eval.tta).accuracy
    return timing.now(experiment.device) - began, accuracy
