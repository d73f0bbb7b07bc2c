"""A run's page, report.html, built from the files of the run's folder alone.

Everything is in the one file: charts as SVG, images as data URIs. Trains nothing, needs no data.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fastresnet.base import files, words
from fastresnet.machine import hardware
from fastresnet.reports import charts, finished, metrics, page
from fastresnet.reports.finished import Finished, Pictures, Predictions, Result
from fastresnet.reports.metrics import Evaluation

WORST = 24
LARGEST_MATRIX, ON_A_PHONE = 40, 12  # classes whose confusions can be read as numbers
SPLITS = {"train": "training", "test": "test", "val": "validation"}
MEASURED = {"flops_per_image": ("forward pass of an image", "FLOP"), "energy_joules": ("energy", "J")}


def write(run_dir: str | Path, predictions: Predictions | None = None) -> Path:
    """Write <run_dir>/report.html and return its path.

    predictions:  of the test set. Without them predictions.npz of the folder is read, and the worst answers
                  are listed without their pictures.
    Raises ValueError where `run_dir` is no run's folder, OSError where it can't be written.
    """
    run = finished.read(run_dir)
    answers = predictions or finished.predictions(run.path)
    judged = None
    if answers is not None:
        judged = metrics.evaluation(answers.logits, answers.labels, answers.class_names, worst=WORST)
    shown = page.render("run.html", _values(run, judged, answers.images if answers else None))
    return files.write_text(run.path / "report.html", shown)


def _values(run: Finished, judged: Evaluation | None, images: Pictures | None) -> dict[str, object]:
    """What the template shows."""
    record = run.record
    return {
        "run": run,
        "record": record,
        "synthetic": bool(record and record["data"].get("synthetic")),
        "dirty": bool(record and record["git"].get("dirty")),
        "origin": list(_origin(record)) if record else [],
        "scores": [*_scores(run, judged), *(_speeds(record) if record else ())],
        "setup": [(value, label) for label, value in setup_of(record).items()] if record else [],
        "curves": _curves(run),
        "judged": judged,
        **_matrix(judged),
        "reliability": _reliability(judged) if judged else "",
        "images": images,
        "measured": list(_measured(record)) if record else [],
        "commands": "\n".join(_commands(run)),
    }


# ---- the headline ------------------------------------------------------------------------------------------


def _origin(record: Result) -> Iterator[str]:
    data = record["data"]
    yield str(data.get("name"))
    yield f"{data.get('train_size', 0):,} training images"
    yield hardware.used_name(record)
    yield f"seed {record['seed']}"


def _scores(run: Finished, judged: Evaluation | None) -> Iterator[tuple[str, str]]:
    record = run.record
    if judged:
        low, high = judged["top1_interval"]
        interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"
        yield words.percent(judged["top1"]), f"test accuracy, {interval}"
    elif record:
        yield words.percent(record["accuracy"]["test"]), "test accuracy"
    if record and record["accuracy"]["test_tta"] is not None:
        yield words.percent(record["accuracy"]["test_tta"]), "with test-time augmentation (TTA)"
    if record and (target := target_of(record)):
        yield target
    if judged and len(judged["class_names"]) > 5:
        yield words.percent(judged["top5"]), "top-5 accuracy"
    if judged:
        yield words.percent(judged["calibration"]["ece"]), "ECE, expected calibration error"
    if record and record["accuracy"].get("best_on") == "validation" and record["accuracy"]["best_epoch"]:
        epoch = f"in epoch {record['accuracy']['best_epoch']:g} (best.pt)"
        yield words.percent(record["accuracy"]["best"]), f"best validation accuracy, {epoch}"
    if best := run.best():
        chosen = f"in epoch {best[1]} (chosen on the test set: not a result)"
        yield words.percent(best[0]), f"highest test accuracy, {chosen}"


def target_of(record: Result) -> tuple[str, str] | None:
    """Whether the run reached eval.target, as a word and its explanation; None without a target."""
    target = _number(record, "eval", "target")
    if not target or record["accuracy"]["test"] is None:
        return None
    reached = record["accuracy"]["test_tta"] or record["accuracy"]["test"]
    told = "reached" if reached >= target else "missed"
    return told, f"the recipe's target, {words.percent(target)}; one run proves little"


def _speeds(record: Result) -> Iterator[tuple[str, str]]:
    seconds, rate = record["seconds"], record["images_per_second"]
    yield words.duration(seconds["train"], digits=2), "training alone"
    yield words.duration(seconds["wall"], digits=2), "in all, with start-up and evaluation"
    if rate:
        yield f"{rate:,.0f}", "training images a second"
    if record["mfu"] is not None:
        yield words.percent(record["mfu"], digits=1), "MFU, share of the machine's matrix-multiply rate"
    if record["peak_memory_bytes"]:
        yield f"{record['peak_memory_bytes'] / 1e9:.2f} GB", "peak memory"


def _setting(record: Result, section: str, key: str) -> object:
    return record.get("config", {}).get(section, {}).get(key)


def _number(record: Result, section: str, key: str) -> float | None:
    """A setting that is one."""
    value = _setting(record, section, key)
    return float(value) if isinstance(value, (int, float)) else None


def setup_of(record: Result) -> dict[str, str]:
    """What a run was made of, for a reader: model, optimizer, schedule, batch; unknown parts are left out."""
    arch, depth = _setting(record, "model", "arch"), _setting(record, "model", "depth")
    count = record.get("parameters")
    told = {
        "model": f"{arch}-{depth}" if arch == "resnet" else arch,
        "parameters": f"{count:,}" if count else None,
        "optimizer": _setting(record, "optim", "name"),
        "peak learning rate": _setting(record, "optim", "lr"),
        "schedule": _setting(record, "schedule", "name"),
        "epochs": _setting(record, "train", "epochs"),
        "images a batch": _setting(record, "train", "batch_size"),
        "precision": record.get("precision"),
    }
    return {
        label: f"{value:g}" if isinstance(value, float) else str(value)
        for label, value in told.items()
        if value is not None
    }


# ---- curves ------------------------------------------------------------------------------------------------


def _curves(run: Finished) -> list[Markup]:
    """Loss, accuracy, learning rate and throughput over epochs, as far as they were measured."""

    def drawn(key: str, title: str, unit: str, scale: float = 1.0) -> Markup:
        found = [
            line(run.history, f"{split}_{key}", name, color, scale, mark=None if split == "train" else key)
            for color, (split, name) in enumerate(SPLITS.items())
        ]
        return charts.chart(title, unit, found, "epoch")

    def alone(key: str, title: str, name: str, unit: str) -> Markup:
        return charts.chart(title, unit, [line(run.history, key, name)], "epoch", from_zero=True)

    found = [
        drawn("loss", "Loss", loss_of(run.record)),
        drawn("accuracy", "Accuracy", "in %; training: of augmented images, while they are learned", 100.0),
        alone("lr", "Learning rate", "first parameter group", "at the end of each epoch"),
        alone("images_per_second", "Throughput", "training", "images a second"),
    ]
    return [one for one in found if one]


def loss_of(record: Result | None) -> str:
    """What the plotted losses contain."""
    smoothing = _number(record, "train", "label_smoothing") if record else None
    training = ["augmented images"]
    training += [f"label smoothing {smoothing:g}"] if smoothing else []
    for key, of in (("hard_fraction", "of each batch"), ("epoch_share", "of all in each epoch")):
        share = _number(record, "train", key) if record else None
        training += [f"the hardest {words.percent(share, digits=0)} {of}"] if share and share < 1 else []
    return f"cross-entropy in nats an image; training: with {', '.join(training)}"


def line(
    history: Sequence[Mapping[str, Any]],
    key: str,
    name: str,
    color: int = 0,
    scale: float = 1.0,
    mark: str | None = None,
) -> charts.Series:
    """`key` over epochs counted from 1. mark: "accuracy" marks the maximum, "loss" the minimum."""
    rows = [(float(row["epoch"]), row[key] * scale) for row in history if row.get(key) is not None]
    if not rows or mark is None:
        return charts.Series(name, rows, color)
    values = [value for _, value in rows]
    best = int(np.argmax(values) if mark == "accuracy" else np.argmin(values))
    epoch, value = rows[best]
    text = f"max {value:.2f} %" if mark == "accuracy" else f"min {value:.3f}"
    return charts.Series(name, rows, color, mark=best, about=f" ({text} in epoch {epoch:g})")


# ---- answers -----------------------------------------------------------------------------------------------


def _matrix(judged: Evaluation | None) -> dict[str, object]:
    """The confusion matrix: `shades` of its numbers, and `heat`, a picture where these have no room."""
    if judged is None:
        return {}
    shades, classes = page.shades(np.array(judged["confusion"])), len(judged["class_names"])
    return {
        "shades": shades if classes <= LARGEST_MATRIX else None,
        "heat": page.heat(shades) if classes > ON_A_PHONE else "",
    }


def _reliability(judged: Evaluation) -> Markup:
    calibration = judged["calibration"]
    title = f"Calibration: ECE (expected calibration error) {words.percent(calibration['ece'])}"
    return charts.reliability(calibration["bins"], title)


# ---- the end -----------------------------------------------------------------------------------------------


def _measured(record: Result) -> Iterator[tuple[str, str]]:
    for name, value in _items(record["seconds"]):
        yield f"seconds: {name}", words.duration(value, digits=2)
    values = dict(_items(record))
    for key, (label, unit) in MEASURED.items():
        yield label, "not known here" if values.get(key) is None else words.amount(values[key], unit)
    yield from ((f"software: {name}", str(value)) for name, value in _items(record["software"]) if value)
    yield "machine", hardware.used_name(record)
    yield "data digest", str(record["data"].get("digest"))


def _items(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from mapping.items()


def _commands(run: Finished) -> Iterator[str]:
    """What gives this run again."""
    git = run.record["git"] if run.record else None
    if git and git.get("commit"):
        yield f"git checkout {git['commit']}"
    yield f"fastresnet train --config={shlex.quote(str(run.path / 'config.yaml'))} --run.dir=runs/again"
