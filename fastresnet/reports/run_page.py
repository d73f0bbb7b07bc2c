"""A run's page, report.html, built from the files of the run's folder alone.

Everything is in the one file: charts as SVG, images as data URIs. Trains nothing, needs no data.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fastresnet.base import files, words
from fastresnet.machine import hardware
from fastresnet.reports import charts, finished, metrics, page
from fastresnet.reports.finished import Finished, Predictions

WORST = 24
SPLITS = {"train": "training", "test": "test", "val": "validation"}


def write(run_dir: str | Path, predictions: Predictions | None = None) -> Path:
    """Write <run_dir>/report.html and return its path.

    predictions:  of the test set. Without them predictions.npz of the folder is read, and the worst answers
                  are listed without their pictures.
    Raises ValueError where `run_dir` is no run's folder, OSError where it can't be written.
    """
    run = finished.read(run_dir)
    answers = predictions or finished.predictions(run.path)
    images = answers.images if answers else None
    judged = None
    if answers is not None:
        judged = metrics.evaluation(answers.logits, answers.labels, answers.class_names, worst=WORST)
    body = "\n".join(
        [
            _headline(run, judged),
            _curves(run),
            _judgement(judged, images),
            _worst(judged, images),
            _facts(run),
            _settings(run),
        ]
    )
    return files.write_text(run.path / "report.html", page.document(f"{run.name} · fastresnet", body))


# ---- the parts of the page ---------------------------------------------------------------------------------


def _headline(run: Finished, judged: Mapping[str, Any] | None) -> str:
    record: Any = run.record or {}
    cards = []
    if judged:
        low, high = judged["top1_interval"]
        cards.append(
            page.card(
                words.percent(judged["top1"]),
                f"test accuracy, 95 % interval {100 * low:.2f} to {100 * high:.2f} %",
            )
        )
    elif record:
        cards.append(page.card(words.percent(record["accuracy"].get("test")), "test accuracy"))
    if record:
        if record["accuracy"].get("test_tta") is not None:
            cards.append(
                page.card(words.percent(record["accuracy"]["test_tta"]), "with test-time augmentation")
            )
        cards.append(page.card(words.duration(record["seconds"].get("train"), digits=2), "training alone"))
        cards.append(
            page.card(
                words.duration(record["seconds"].get("wall"), digits=2),
                "in all, with start-up and evaluation",
            )
        )
        if record["images_per_second"]:
            cards.append(page.card(f"{record['images_per_second']:,.0f}", "training images a second"))
        if record["accuracy"].get("best_on") == "validation":
            chosen = f"best validation accuracy, in epoch {record['accuracy']['best_epoch']:g} (best.pt)"
            cards.append(page.card(words.percent(record["accuracy"]["best"]), chosen))
    best = run.best()
    if best:
        cards.append(
            page.card(
                words.percent(best[0]),
                f"highest test accuracy, in epoch {best[1]} (chosen on the test set: not a result)",
            )
        )
    warning = ""
    data = record.get("data", {})
    if data.get("synthetic"):
        warning = (
            '<p class="warn"><b>Synthetic data.</b> These figures say nothing about any real data set.</p>'
        )
    if not record:
        warning += '<p class="warn">This run is not finished: there is no result.json yet.</p>'
    what = [
        data.get("name"),
        f"{data.get('train_size', 0):,} training images" if data else None,
        hardware.short_name(record["hardware"]) if record.get("hardware") else None,
        f"seed {record['seed']}" if record else None,
    ]
    soft = " · ".join(escape(str(part)) for part in what if part)
    return (
        f'<header><p class="soft">fastresnet run</p><h1>{escape(run.name)}</h1><p class="soft">{soft}</p>'
        f"{warning}"
        f'<div class="cards">{"".join(cards)}</div></header>'
    )


def _curves(run: Finished) -> str:
    drawn = []
    for key, title, unit, scale in (
        ("loss", "Loss", "cross-entropy (nats)", 1.0),
        ("accuracy", "Accuracy", "accuracy (%)", 100.0),
    ):
        chart = [
            line(run.history, f"{split}_{key}", name, scale, mark=None if split == "train" else key)
            for split, name in SPLITS.items()
        ]
        drawn.append(charts.lines(chart, title=title, x_label="epoch", y_label=unit))
    drawn.append(
        charts.lines(
            [line(run.history, "lr", "first group's")],
            title="Learning rate",
            x_label="epoch",
            y_label="at the end of each epoch",
            start_at_zero=True,
        )
    )
    drawn.append(
        charts.lines(
            [line(run.history, "images_per_second", "training")],
            title="Throughput",
            x_label="epoch",
            y_label="images a second",
            start_at_zero=True,
        )
    )
    inside = "".join(drawn)
    return page.section("Curves", f'<div class="charts">{inside}</div>' if inside else "")


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


def _judgement(judged: Mapping[str, Any] | None, images: np.ndarray | None) -> str:
    if judged is None:
        return ""
    names = judged["class_names"]
    calibration = judged["calibration"]
    title = f"Calibration: expected error {words.percent(calibration['ece'])},"
    classes = page.table(
        ["class", "precision %", "recall %", "F1 %", "images"],
        [
            [
                row["class"],
                *(f"{100 * row[key]:.2f}" for key in ("precision", "recall", "f1")),
                str(row["support"]),
            ]
            for row in judged["per_class"]
        ],
    )
    pairs = page.table(
        ["pair", "mistakes", "first as second", "second as first"],
        [
            [
                " and ".join(pair["classes"]),
                *(str(pair[key]) for key in ("mistakes", "first_as_second", "second_as_first")),
            ]
            for pair in judged["most_confused"]
        ],
    )
    confusion = np.array(judged["confusion"])
    matrix = (
        page.matrix(confusion, names)
        if len(names) <= 40
        else '<p class="soft">Too many classes to print the matrix.</p>'
    )
    return (
        page.section(
            "Confusion matrix",
            '<p class="soft">Images; a row is a true class, shaded by the share of its images '
            "that went there.</p>",
            matrix,
        )
        + page.section(
            "Classes and calibration",
            f'<div class="charts"><div>{classes}</div>{charts.reliability(calibration["bins"], title)}</div>',
        )
        + page.section("Most confused pairs", pairs if judged["most_confused"] else "")
    )


def _worst(judged: Mapping[str, Any] | None, images: np.ndarray | None) -> str:
    if judged is None or not judged["worst"]:
        return ""
    names, cells = judged["class_names"], []
    for row in judged["worst"]:
        picture = (
            f'<img alt="test image {row["index"]}" src="{page.png_uri(images[row["index"]])}">'
            if images is not None
            else ""
        )
        cells.append(
            f"<div>{picture}<b>{escape(names[row['predicted']])} {words.percent(row['confidence'])}</b>"
            f"is {escape(names[row['label']])} "
            f'<span class="soft">({words.percent(row["probability_of_label"])})'
            f"<br>#{row['index']}</span></div>"
        )
    return page.section(
        "Most confidently wrong",
        '<p class="soft">What the network said and how surely; below it the truth, the '
        "probability it gave that, and the image's number in the test set.</p>",
        f'<div class="worst">{"".join(cells)}</div>',
    )


def _facts(run: Finished) -> str:
    record: Any = run.record or {}
    if not record:
        return ""
    rows: list[list[str]] = [
        [f"seconds: {name}", words.duration(value, digits=2)] for name, value in record["seconds"].items()
    ]
    for key, text in (
        ("flops_per_image", "FLOPs of a forward pass"),
        ("mfu", "share of the machine's peak (MFU)"),
        ("peak_memory_bytes", "peak memory (bytes)"),
        ("energy_joules", "energy (J)"),
    ):
        value = record.get(key)
        rows.append(
            [
                text,
                "not known here"
                if value is None
                else f"{value:,.4g}"
                if isinstance(value, float)
                else f"{value:,}",
            ]
        )
    rows += [
        [f"software: {name}", str(value)]
        for name, value in (record.get("software") or {}).items()
        if not isinstance(value, (dict, list)) and value is not None
    ]
    rows += [["machine", hardware.short_name(record["hardware"])]] if record.get("hardware") else []
    rows += [
        ["data digest", str(record["data"].get("digest"))],
        ["record schema", str(record.get("schema_version"))],
    ]
    return page.section("Measured", page.table(["what", "value"], rows, numbers_from=9))


def _settings(run: Finished) -> str:
    record: Any = run.record or {}
    git = record.get("git") or {}
    commands = []
    if git.get("commit"):
        commands.append(f"git checkout {git['commit']}")
    commands.append(
        f"python scripts/train.py --config={shlex.quote(str(run.path / 'config.yaml'))} --run.dir=runs/again"
    )
    note = ""
    if git.get("dirty"):
        note = (
            '<p class="warn">The work tree had uncommitted changes: the commit alone does not give '
            "this run again.</p>"
        )
    how = f"{note}<pre>{escape(chr(10).join(commands))}</pre>"
    if record.get("seed") is not None:
        how += f'<p class="soft">config.yaml holds every setting, the seed ({record["seed"]}) among them.</p>'
    return page.section("Reproduce", how) + page.section(
        "Settings", f"<details><summary>config.yaml</summary><pre>{escape(run.settings)}</pre></details>"
    )
