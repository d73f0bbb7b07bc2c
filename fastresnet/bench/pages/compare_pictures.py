"""Pictures of benchmark files beside each other, and the facts of their machines. Judges nothing."""

from __future__ import annotations

import math

from markupsafe import Markup

from fastresnet.base import words
from fastresnet.bench.judging import bounds
from fastresnet.bench.judging.comparison import Comparison
from fastresnet.bench.measuring.file import Benchmark, figure, good, median_of, number, value_of
from fastresnet.bench.pages import tables
from fastresnet.machine import hardware
from fastresnet.reports import charts
from fastresnet.reports.charts import Series

MISSING = "No file has these figures."


def pictures(compared: Comparison) -> list[Markup]:
    """All of them, one below the other."""
    return [by_batch(compared), roofline(compared), to_accuracy(compared), energy(compared)]


def by_batch(compared: Comparison) -> Markup:
    """Images a second over the batch size: a line a file, model and precision with several batch sizes."""
    found: list[Series] = []
    for file, label in zip(compared.files, compared.labels):
        lines: dict[tuple[str, str], dict[float, float]] = {}
        for row in good(file, "step"):
            s = row["settings"]
            if s["work"] == "step" and s["memory_format"] == "channels_last" and s["compile"] == "off":
                place = lines.setdefault((str(s["model"]), str(s["precision"])), {})
                place[figure(row, "batch_size")] = figure(row, "images_per_second")
        for (model, precision), points in sorted(lines.items()):
            if len(points) > 1:
                name = f"{label}: {model} {precision}"
                found.append(Series(name, sorted(points.items()), len(found) % charts.COLORS))
    return charts.chart(
        "Throughput by batch size",
        "images/s, training step",
        found,
        "batch size",
        log=True,
        x_ticks=[2.0**k for k in range(15)],
        empty=MISSING,
    )


def roofline(compared: Comparison) -> Markup:
    """FLOP/s over FLOPs a byte: the roof of each file, and where its training steps lie under it."""
    found: list[Series] = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        limits = bounds.ceilings(file)
        steps = [row for row in good(file, "step") if number(row, "bytes")]
        rates = [rate for name, rate in limits.items() if name.startswith("matmul")]
        if not steps or not rates or "memory-copy" not in limits:
            continue
        points = [
            (figure(row, "flops") / figure(row, "bytes"), figure(row, "flops_per_second")) for row in steps
        ]
        roof, slope = max(rates), limits["memory-copy"]
        ends = (
            min([roof / slope / 4, *(x for x, _ in points)]),
            max([roof / slope * 4, *(x for x, _ in points)]),
        )
        corners = [(ends[0], ends[0] * slope), (roof / slope, roof), (ends[1], roof)]
        names = ["bandwidth", "ridge", "matrix rate"]
        found.append(Series(f"{label}: roof", corners, index % charts.COLORS, labels=names))
        told = [f"{row['name']}: {words.amount(figure(row, 'flops_per_second'), 'FLOP/s')}" for row in steps]
        found.append(Series(f"{label}: steps", points, index % charts.COLORS, line=False, labels=told))
    x_label = "FLOPs a byte of estimated traffic"
    return charts.chart("Roofline", "FLOP/s", found, x_label, log=True, empty=MISSING)


def to_accuracy(compared: Comparison) -> Markup:
    """Accuracy's error over seconds, one point a recipe and file."""
    found = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        rows = good(file, "accuracy")
        points = [(median_of(row), 100 * (1 - figure(row, "accuracy"))) for row in rows]
        told = [f"{label}, {row['name']}: {value_of(row)}" for row in rows]
        found.append(Series(label, points, index % charts.COLORS, line=False, labels=told))
    subtitle, x_label = "test error, %: lower left is better", "seconds on the clock"
    return charts.chart("Time to accuracy", subtitle, found, x_label, log=True, empty=MISSING)


def energy(compared: Comparison) -> Markup:
    """Joules an image of the training steps at each model's most frugal batch size."""
    levels = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        best: dict[str, float] = {}
        for row in good(file, "step"):
            joules = number(row, "joules_per_image")
            if joules and row["settings"]["work"] == "step":
                model = str(row["settings"]["model"])
                best[model] = min(joules, best.get(model, math.inf))
        levels += [
            (f"{label}: {model}", joules, index % charts.COLORS) for model, joules in sorted(best.items())
        ]
    if not levels:
        sentence = "No energy meter could be read, or other processes took turns with these."
        return tables.render("nothing.html", {"title": "Energy", "sentence": sentence})
    most = max(joules for _, joules, _ in levels)
    shown = [(name, joules / most, f"{joules:.3g} J", color) for name, joules, color in levels]
    subtitle = "joules an image of training steps, best batch size; of GPUs by NVML, of CPU packages by RAPL"
    return tables.render("levels.html", {"title": "Energy", "subtitle": subtitle, "levels": shown})


def machine(file: Benchmark) -> dict[str, str]:
    """What a file says of its machine, for people."""
    machine, software = file["hardware"], file["software"]
    gpu = dict(machine["gpus"][0]) if machine["gpus"] else {}
    data = file["data"]
    return {
        "machine": hardware.short_name(machine),
        "GPU": ", ".join(f"{key} {value}" for key, value in gpu.items() if value is not None) or "none",
        "CPU": f"{machine['cpu']['model']}, {machine['cpu']['cores_usable']} cores usable",
        "memory": f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "unknown",
        "driver": machine["driver"] or "none",
        "software": ", ".join(f"{key} {value}" for key, value in software.items() if value),
        "data": f"{data['name']}{' (synthetic)' if data['synthetic'] else ''}" if data else "none needed",
        "commit": (file["git"]["commit"] or "unknown")[:12]
        + (" and changes" if file["git"]["dirty"] else ""),
        "suite": f"{file['suite']}, {file['date']}, {file['seconds']:.0f} s",
        "held back by": ", ".join(file["condition"]["throttle"]) or "nothing seen",
    }
