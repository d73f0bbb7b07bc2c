"""A run's page, report.html, built from the files of the run's folder alone.

Everything is in the one file: charts as SVG, images as data URIs. Trains nothing, needs no data.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fastresnet.base import files, words
from fastresnet.machine import hardware
from fastresnet.reports import charts, finished, metrics, page
from fastresnet.reports.finished import Finished, Predictions, Result
from fastresnet.reports.metrics import Evaluation

WORST = 24
LARGEST_MATRIX = 40  # classes whose confusions can be read
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
    images = answers.images if answers else None
    parts = [_headline(run, judged), _curves(run), _judgement(judged), _worst(judged, images)]
    parts += [_measured(run.record), _reproduce(run)]
    return files.write_text(
        run.path / "report.html", page.document(f"{run.name} · fastresnet", "\n".join(parts))
    )


# ---- the headline ------------------------------------------------------------------------------------------


def _headline(run: Finished, judged: Evaluation | None) -> str:
    what = list(_origin(run.record)) if run.record else []
    cards = [*_scores(run, judged), *(_speeds(run.record) if run.record else ())]
    setup = setup_of(run.record) if run.record else {}
    facts = "".join(page.card(value, label) for label, value in setup.items())
    return (
        f'<header><p class="soft">fastresnet run</p><h1>{escape(run.name)}</h1>'
        f'<p class="soft">{escape(" · ".join(what))}</p>{_warnings(run)}'
        f'<div class="cards">{"".join(page.card(*card) for card in cards)}</div>'
        f'<div class="cards facts">{facts}</div></header>'
    )


def _origin(record: Result) -> Iterator[str]:
    data = record["data"]
    yield str(data.get("name"))
    yield f"{data.get('train_size', 0):,} training images"
    yield hardware.short_name(record["hardware"])
    yield f"seed {record['seed']}"


def _warnings(run: Finished) -> str:
    said = []
    if run.record is None:
        said.append("This run is not finished: there is no result.json yet.")
    elif run.record["data"].get("synthetic"):
        said.append("<b>Synthetic data.</b> These figures say nothing about any real data set.")
    return "".join(f'<p class="warn">{line}</p>' for line in said)


def _scores(run: Finished, judged: Evaluation | None) -> Iterator[tuple[str, str]]:
    record = run.record
    if judged:
        low, high = judged["top1_interval"]
        interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"
        yield words.percent(judged["top1"]), f"test accuracy, {interval}"
    elif record:
        yield words.percent(record["accuracy"]["test"]), "test accuracy"
    if record and record["accuracy"]["test_tta"] is not None:
        yield words.percent(record["accuracy"]["test_tta"]), "with test-time augmentation"
    if record and (target := target_of(record)):
        yield target
    if judged and len(judged["class_names"]) > 5:
        yield words.percent(judged["top5"]), "top-5 accuracy"
    if judged:
        yield words.percent(judged["calibration"]["ece"]), "ECE, expected calibration error"
    if record and record["accuracy"].get("best_on") == "validation":
        epoch = f"in epoch {record['accuracy']['best_epoch']:g} (best.pt)"
        yield words.percent(record["accuracy"]["best"]), f"best validation accuracy, {epoch}"
    if best := run.best():
        chosen = f"in epoch {best[1]} (chosen on the test set: not a result)"
        yield words.percent(best[0]), f"highest test accuracy, {chosen}"


def target_of(record: Result) -> tuple[str, str] | None:
    """Whether the run reached eval.target, as a word and its explanation; None without a target."""
    target: Any = _setting(record, "eval", "target")
    if not target:
        return None
    reached = record["accuracy"]["test_tta"] or record["accuracy"]["test"]
    met = "met" if reached >= target else "missed"
    return met, f"the recipe's target, {words.percent(target)}; one run proves little"


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


def _curves(run: Finished) -> str:
    def drawn(key: str, title: str, unit: str, scale: float = 1.0) -> str:
        chart = [
            line(run.history, f"{split}_{key}", name, scale, mark=None if split == "train" else key)
            for split, name in SPLITS.items()
        ]
        return charts.lines(chart, title=title, x_label="epoch", y_label=unit)

    def alone(key: str, title: str, name: str, unit: str) -> str:
        one = [line(run.history, key, name)]
        return charts.lines(one, title=title, x_label="epoch", y_label=unit, start_at_zero=True)

    inside = [
        drawn("loss", "Loss", loss_of(run.record)),
        drawn("accuracy", "Accuracy", "in %; training: of augmented images, while they are learned", 100.0),
        alone("lr", "Learning rate", "first group's", "at the end of each epoch"),
        alone("images_per_second", "Throughput", "training", "images a second"),
    ]
    return page.section("Curves", f'<div class="charts">{"".join(inside)}</div>' if any(inside) else "")


def loss_of(record: Result | None) -> str:
    """What the plotted losses contain."""
    smoothing: Any = _setting(record, "train", "label_smoothing") if record else None
    hard: Any = _setting(record, "train", "hard_fraction") if record else None
    training = ["augmented images"]
    training += [f"label smoothing {smoothing:g}"] if smoothing else []
    training += [f"the hardest {words.percent(hard, digits=0)}"] if hard and hard < 1 else []
    return f"cross-entropy in nats an image; training: with {', '.join(training)}"


def line(
    history: Sequence[Mapping[str, Any]], key: str, name: str, scale: float = 1.0, mark: str | None = None
) -> charts.Line:
    """`key` over epochs counted from 1. mark: "accuracy" marks the maximum, "loss" the minimum."""
    rows = [(row["epoch"], row[key] * scale) for row in history if row.get(key) is not None]
    x, y = [float(epoch) for epoch, _ in rows], [float(value) for _, value in rows]
    if mark is None or not y:
        return charts.Line(name, x, y)
    best = int(np.argmax(y) if mark == "accuracy" else np.argmin(y))
    text = f"max {y[best]:.2f} %" if mark == "accuracy" else f"min {y[best]:.3f}"
    return charts.Line(name, x, y, best, f" ({text} in epoch {x[best]:g})")


# ---- answers -----------------------------------------------------------------------------------------------


def _judgement(judged: Evaluation | None) -> str:
    if judged is None:
        return ""
    names, calibration = judged["class_names"], judged["calibration"]
    matrix = '<p class="soft">Too many classes to print the matrix.</p>'
    if len(names) <= LARGEST_MATRIX:
        matrix = page.matrix(np.array(judged["confusion"]), names)
    title = f"Calibration: ECE (expected calibration error) {words.percent(calibration['ece'])},"
    classes = f"<div>{_classes(judged)}</div>{charts.reliability(calibration['bins'], title)}"
    rows = "Images; a row is a true class. Right answers and mistakes are shaded apart, each by its largest."
    return (
        page.section("Confusion matrix", f'<p class="soft">{rows}</p>', matrix)
        + page.section("Classes and calibration", f'<div class="charts">{classes}</div>')
        + page.section("Most confused pairs", _pairs(judged) if judged["most_confused"] else "")
    )


def _classes(judged: Evaluation) -> str:
    rows = [
        [row["class"], *(f"{100 * share:.2f}" for share in (row["precision"], row["recall"], row["f1"]))]
        + [str(row["support"])]
        for row in judged["per_class"]
    ]
    return page.table(["class", "precision %", "recall %", "F1 %", "images"], rows)


def _pairs(judged: Evaluation) -> str:
    rows = [
        [" and ".join(pair["classes"])]
        + [str(pair["mistakes"]), str(pair["first_as_second"]), str(pair["second_as_first"])]
        for pair in judged["most_confused"]
    ]
    return page.table(["pair", "mistakes", "first as second", "second as first"], rows)


def _worst(judged: Evaluation | None, images: np.ndarray | None) -> str:
    if judged is None or not judged["worst"]:
        return ""
    names, cells = judged["class_names"], []
    for row in judged["worst"]:
        index, picture = row["index"], ""
        if images is not None:
            picture = f'<img alt="test image {index}" src="{page.png_uri(images[index])}">'
        said, truth = escape(names[row["predicted"]]), escape(names[row["label"]])
        cells.append(
            f"<div>{picture}<b>{said} {100 * row['confidence']:.1f} %</b>is {truth} "
            f'<span class="soft">({100 * row["probability_of_label"]:.1f} %)<br>#{index}</span></div>'
        )
    return page.section(
        "Most confidently wrong",
        '<p class="soft">What the network said and how surely; below it the truth, the '
        "probability it gave that, and the image's number in the test set.</p>",
        f'<div class="worst">{"".join(cells)}</div>',
    )


# ---- the end -----------------------------------------------------------------------------------------------


def _measured(record: Result | None) -> str:
    if record is None:
        return ""
    rows = [
        [f"seconds: {name}", words.duration(value, digits=2)] for name, value in _items(record["seconds"])
    ]
    values = dict(_items(record))
    for key, (label, unit) in MEASURED.items():
        rows.append([label, "not known here" if values.get(key) is None else words.amount(values[key], unit)])
    rows += [[f"software: {name}", str(value)] for name, value in _items(record["software"]) if value]
    rows += [
        ["machine", hardware.short_name(record["hardware"])],
        ["data digest", str(record["data"].get("digest"))],
    ]
    return page.section("Measured", page.table(["what", "value"], rows, numbers_from=9))


def _items(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from mapping.items()


def _reproduce(run: Finished) -> str:
    git = run.record["git"] if run.record else None
    again = f"fastresnet train --config={shlex.quote(str(run.path / 'config.yaml'))} --run.dir=runs/again"
    commands = [f"git checkout {git['commit']}"] if git and git.get("commit") else []
    how = f"<pre>{escape(chr(10).join([*commands, again]))}</pre>"
    if git and git.get("dirty"):
        warning = "The work tree had uncommitted changes: the commit alone does not give this run again."
        how = f'<p class="warn">{warning}</p>{how}'
    if run.record:
        seed = run.record["seed"]
        how += f'<p class="soft">config.yaml holds every setting, the seed ({seed}) among them.</p>'
    settings = f"<details><summary>config.yaml</summary><pre>{escape(run.settings)}</pre></details>"
    return page.section("Reproduce", how) + page.section("Settings", settings)
