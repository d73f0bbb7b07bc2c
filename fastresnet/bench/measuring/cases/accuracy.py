"""Time to accuracy: whole runs, initialisation and deciding evaluation on the clock, all reported."""

from __future__ import annotations

from functools import partial
from statistics import fmean, stdev

from fastresnet import data
from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.file import Figure
from fastresnet.bench.measuring.harness import Case, Measured, keeping
from fastresnet.machine import timing
from fastresnet.settings.config import Config
from fastresnet.training.experiment import Experiment

PART = "accuracy"
SHORT: dict[str, object] = {
    "train.epochs": 2.0,
    "data.subset": 5000.0,
    "train.batch_size": 125,
    "eval.tta": "none",
}
# (recipe, settings changed, runs) by kind of device and suite; the quick ones have none
RUNS: dict[tuple[str, str], list[tuple[str, dict[str, object], int]]] = {
    ("gpu", "standard"): [("speed94.yaml", {}, 5), ("rn18.yaml", {}, 1)],
    ("gpu", "full"): [("speed94.yaml", {}, 50), ("speed96.yaml", {}, 5), ("rn18.yaml", {}, 3)],
    ("cpu", "standard"): [("cpu.yaml", SHORT, 2)],
    ("cpu", "full"): [("cpu.yaml", SHORT, 5), ("cpu.yaml", {}, 2)],
}


def cases(context: Context) -> list[Case]:
    """The recipes that this device finishes in the suite's time."""
    chosen = RUNS.get(("gpu" if context.on_gpu else "cpu", context.suite), [])
    if context.tiny:
        chosen = [("smoke.yaml", {"train.epochs": 1.0}, 2)]
    return [_case(context, recipe, changes, runs) for recipe, changes, runs in chosen]


def _case(context: Context, recipe: str, changes: dict[str, object], runs: int) -> Case:
    name = recipe + ("/short" if changes else "")
    settings = {"recipe": recipe, "runs": runs, **changes}
    return Case(PART, name, settings, partial(_runs, context, recipe, changes, runs), weight=4)


def _runs(context: Context, recipe: str, changes: dict[str, object], runs: int, seconds: float) -> Measured:
    cfg = context.config(recipe, changes)
    splits = context.splits() if context.tiny else data.prepare(cfg)
    found: list[tuple[float, float]] = []
    with experiments.opened(cfg, splits) as experiment, keeping(found):
        experiment.warm_up()
        experiment.evaluate("test", cfg.eval.tta)
        for seed in range(runs):
            found.append(_one_run(experiment, cfg, seed))
    return Measured([took for took, _ in found], _figures(cfg, [hit for _, hit in found], runs))


def _one_run(experiment: Experiment, cfg: Config, seed: int) -> tuple[float, float]:
    """(seconds, accuracy) of one run from fresh weights, as the measuring protocol wants them."""
    experiment.reset(seed)
    began = timing.now(experiment.device)
    experiment.initialise()
    for epoch in range(experiment.num_epochs):
        experiment.fit_epoch(epoch)
    accuracy = experiment.evaluate("test", cfg.eval.tta).accuracy
    return timing.now(experiment.device) - began, accuracy


def _figures(cfg: Config, accuracies: list[float], planned: int) -> dict[str, Figure]:
    return {
        "accuracy": fmean(accuracies),
        "runs": len(accuracies),
        "runs_planned": planned,
        "target": cfg.eval.target,
        "accuracy_std": stdev(accuracies) if len(accuracies) > 1 else None,
        "epochs": cfg.train.epochs,
        "tta": cfg.eval.tta,
    }
