"""A run's folder as data: its record, the rows of its epochs, its settings and its predictions.

Refuses to draw, to judge and to read a damaged file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, cast

import numpy as np

from fastresnet.base import sinks
from fastresnet.data import Info
from fastresnet.machine.hardware import Circumstances


class Row(TypedDict):
    """What an epoch (from 1) measured: mean losses in nats, accuracies as shares; None where not done."""

    epoch: int
    step: int
    lr: float
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    seconds: float
    images_per_second: float


class Accuracy(TypedDict):
    """Shares of right answers on the test set; best: of the epoch in best.pt, on the split `best_on`."""

    test: float
    test_tta: float | None
    best: float
    best_epoch: int
    best_on: str


class Seconds(TypedDict):
    """Seconds by what they went into; init, train, eval and wall cover all sessions of a resumed run."""

    startup: float
    compile: float
    init: float
    train: float
    eval: float
    wall: float


class Result(Circumstances):
    """What result.json holds; schemas/result.schema.json says it field by field."""

    schema_version: int
    kind: str
    recipe: str
    config: dict[str, dict[str, object]]
    seed: int
    data: Info
    accuracy: Accuracy
    loss: float | None
    seconds: Seconds
    images_per_second: float | None
    parameters: int
    flops_per_image: float
    mfu: float | None
    peak_memory_bytes: int
    energy_joules: float | None
    precision: str
    device: str
    loader: str
    world_size: int
    steps: int
    own: list[str]
    per_epoch: list[Row]


class Pictures(Protocol):
    """Images by their place in a set, uint8 (H, W, 3): an array of them, or what reads them one at a time."""

    def __getitem__(self, place: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Predictions:
    """logits fp32 (N, K), labels (N,), K names of classes; the images, None where they aren't at hand."""

    logits: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    images: Pictures | None = None


@dataclass(frozen=True)
class Finished:
    """What a run's folder holds. `record` is None while the run isn't finished; `settings` is config.yaml."""

    path: Path
    record: Result | None
    history: list[Row]
    settings: str

    @property
    def name(self) -> str:
        recipe = self.record["recipe"] if self.record else self.path.absolute().parent.name
        folder = self.path.absolute().name
        return recipe if recipe == folder else f"{recipe} {folder}"

    def best(self) -> tuple[float, int] | None:
        """The highest test accuracy and its epoch, counted from 1; None where it never was measured."""
        found = [(row.get("test_accuracy"), row["epoch"]) for row in self.history]
        measured = [(accuracy, epoch) for accuracy, epoch in found if accuracy is not None]
        return max(measured, key=lambda one: one[0]) if measured else None


def read(run_dir: str | Path) -> Finished:
    """Read a run's folder. Raises ValueError where it is none, or a file in it is damaged."""
    path = Path(run_dir)
    if not (path / "config.yaml").is_file():
        raise ValueError(f"{path}: not a run's folder (it has no config.yaml)")
    try:
        settings = (path / "config.yaml").read_text("utf-8")
        record = _object(path / "result.json")
        rows = record["per_epoch"] if record else _lines(path / "metrics.jsonl")
        if not all(map(_is_row, rows)):
            raise ValueError("an epoch's row isn't one")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: config.yaml, result.json or metrics.jsonl is damaged ({error})") from error
    return Finished(path, record, rows, settings)


def _object(path: Path) -> Result | None:
    if not path.is_file():
        return None
    record = sinks.harmless(json.loads(path.read_text("utf-8")))
    for name, kind in (("accuracy", dict), ("seconds", dict), ("data", dict), ("per_epoch", list)):
        if not isinstance(record, dict) or not isinstance(record.get(name), kind):
            raise ValueError(f"{name} is missing or no {kind.__name__}")
    return cast(Result, record)


def _is_row(row: object) -> bool:
    """Whether it holds finite numbers, or null, and its epoch."""
    values = list(row.values()) if isinstance(row, dict) else [""]
    numbers = [value for value in values if value is not None]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        return False
    return isinstance(row, dict) and row.get("epoch") is not None


def _lines(path: Path) -> list[Row]:
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def predictions(run_dir: str | Path) -> Predictions | None:
    """What predictions.npz of a run's folder holds, None without it. Raises ValueError if it is damaged."""
    path = Path(run_dir) / "predictions.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            logits, labels = stored["logits"], stored["labels"]
            names = stored["class_names"] if "class_names" in stored else range(logits.shape[1])
        if logits.dtype.kind != "f" or labels.dtype.kind not in "iu":
            raise ValueError("logits or labels are no numbers")
        return Predictions(logits, labels, tuple(str(name) for name in names))
    except Exception as error:  # whatever numpy and zipfile make of damaged bytes
        raise ValueError(f"{path}: damaged ({error}): delete it to have the page without it") from error
