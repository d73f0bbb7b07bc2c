"""Predictions for machines that nobody measured here, as rows and points that say they are predictions.

benchmarks/predicted.yaml names recipes and GPUs; `judging.plan` predicts. Refuses to predict an accuracy: the
one shown is what the recipe aims at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastresnet.base import strict_yaml, words
from fastresnet.bench.judging import machines, plan
from fastresnet.bench.measuring.file import Benchmark
from fastresnet.bench.pages.tables import Cell, Row
from fastresnet.reports.charts import Series
from fastresnet.settings import config

HEAD = ("recipe", "GPU", "aims at", "training alone", "range")
PREDICTED = "benchmarks/predicted.yaml"


@dataclass(frozen=True)
class Predicted:
    """Seconds that training alone should take: usually, and with fast and with slow steps; why, in words."""

    recipe: str
    machine: str
    target: float
    seconds: float
    fastest: float
    slowest: float
    why: str


def load(root: Path, measured: Sequence[Benchmark]) -> list[Predicted]:
    """What benchmarks/predicted.yaml asks for (recipe: [GPU, ...]); nothing without such a file."""
    path = root / PREDICTED
    asked = strict_yaml.read(path) if path.exists() else {}
    return [predict(recipe, gpu, measured) for recipe, gpus in asked.items() for gpu in gpus]


def predict(recipe: str, gpu: str, measured: Sequence[Benchmark]) -> Predicted:
    """One prediction. Raises ValueError for an unknown recipe or GPU, and for a recipe without a target."""
    cfg, machine = config.load(recipe), machines.find(gpu)
    if not cfg.eval.target:
        raise ValueError(f"{PREDICTED}: {recipe} has no eval.target: there is nothing to predict the time of")
    share = plan.share_for(machine.kind, measured)
    found = plan.predict(cfg, machine, plan.precision_for(cfg, machine), share.usual)
    low, high = (words.percent(reached, digits=0) for reached in (share.low, share.high))
    why = f"steps at {low} to {high} of the roofline ({share.source})"
    times = (found.seconds, found.floor / share.high, found.floor / share.low)
    return Predicted(cfg.recipe, f"1x {machine.name}", cfg.eval.target, *times, why)


def rows(predicted: Sequence[Predicted]) -> list[Row]:
    """A row a prediction, in the columns of HEAD."""
    return [
        [
            Cell(one.recipe, note="predicted, not measured"),
            Cell(one.machine),
            Cell(f"{100 * one.target:g} %", style="n"),
            Cell(f"{_seconds(one.seconds)} s", style="n"),
            Cell(f"{_seconds(one.fastest)} to {_seconds(one.slowest)} s", style="n"),
        ]
        for one in predicted
    ]


def basis(predicted: Sequence[Predicted]) -> str:
    """What the predictions rest on, in words."""
    return "; ".join(dict.fromkeys(one.why for one in predicted))


def _seconds(value: float) -> str:
    """Two digits: a prediction knows no more."""
    return f"{float(f'{value:.2g}'):g}"


def points(predicted: Sequence[Predicted]) -> Series:
    """Seconds, with their range, over the error that the recipe aims at."""
    return Series(
        "predicted, with its range; error as aimed at",
        [(one.seconds, 100 * (1 - one.target)) for one in predicted],
        color=1,
        line=False,
        labels=[f"{one.recipe}, {one.machine.removeprefix('1x ')}" for one in predicted],
        named=True,
        hollow=True,
        spans=[(one.fastest, one.slowest) for one in predicted],
    )
