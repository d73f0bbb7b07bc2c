"""Pictures of benchmark files beside each other, and the facts of their machines. Judges nothing."""

from __future__ import annotations

import math
from html import escape

from fastresnet.base import words
from fastresnet.bench.judging import bounds
from fastresnet.bench.judging.comparison import Comparison
from fastresnet.bench.measuring.file import Benchmark, Row, figure, median_of, number
from fastresnet.bench.pages import plotting
from fastresnet.bench.pages.plotting import Series
from fastresnet.machine import hardware


def pictures(compared: Comparison) -> str:
    return "".join([by_batch(compared), roofline(compared), to_accuracy(compared), energy(compared)])


def _good(file: Benchmark, part: str) -> list[Row]:
    return [row for row in file["cases"] if row["part"] == part and row["status"] == "ok"]


def by_batch(compared: Comparison) -> str:
    """Images a second over the batch size: a line a file, model and precision with several batch sizes."""
    found: list[Series] = []
    for file, label in zip(compared.files, compared.labels):
        lines: dict[tuple[str, str], dict[float, float]] = {}
        for row in _good(file, "step"):
            s = row["settings"]
            if s["work"] == "step" and s["memory_format"] == "channels_last" and s["compile"] == "off":
                place = lines.setdefault((str(s["model"]), str(s["precision"])), {})
                place[figure(row, "batch_size")] = figure(row, "images_per_second")
        for (model, precision), points in sorted(lines.items()):
            if len(points) > 1:
                found.append(Series(f"{label}: {model} {precision}", sorted(points.items()), len(found)))
    ticks = [2.0**k for k in range(15)]
    return plotting.plot(
        "Throughput by batch size", "images/s, training step", found, "batch size", x_ticks=ticks
    )


def roofline(compared: Comparison) -> str:
    """FLOP/s over FLOPs a byte: the roof of each file, and where its training steps lie under it."""
    found: list[Series] = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        limits = bounds.ceilings(file)
        steps = [row for row in _good(file, "step") if number(row, "bytes")]
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
        found.append(Series(f"{label}: roof", corners, index, labels=["bandwidth", "ridge", "matrix rate"]))
        labels = [
            f"{row['name']}: {words.amount(figure(row, 'flops_per_second'), 'FLOP/s')}" for row in steps
        ]
        found.append(Series(f"{label}: steps", points, index, line=False, labels=labels))
    return plotting.plot("Roofline", "FLOP/s", found, "FLOPs a byte of estimated traffic")


def to_accuracy(compared: Comparison) -> str:
    """Accuracy's error over seconds, one point a recipe and file."""
    found = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        rows = _good(file, "accuracy")
        points = [(median_of(row), 100 * (1 - figure(row, "accuracy"))) for row in rows]
        labels = [f"{label}, {_reached(row)}" for row in rows]
        found.append(Series(label, points, index, line=False, labels=labels))
    return plotting.plot(
        "Time to accuracy", "test error, %: lower left is better", found, "seconds on the clock"
    )


def _reached(row: Row) -> str:
    accuracy = words.percent(figure(row, "accuracy"))
    return f"{row['name']}: {accuracy} in {median_of(row):.3g} s (n={row['figures']['runs']})"


def energy(compared: Comparison) -> str:
    """Joules an image of the training steps at each model's most frugal batch size."""
    values = []
    for index, (file, label) in enumerate(zip(compared.files, compared.labels)):
        best: dict[str, float] = {}
        for row in _good(file, "step"):
            joules = number(row, "joules_per_image")
            if joules and row["settings"]["work"] == "step":
                model = str(row["settings"]["model"])
                best[model] = min(joules, best.get(model, math.inf))
        values += [
            (f"{label}: {model}", joules, f"{joules:.3g} J", index) for model, joules in sorted(best.items())
        ]
    return plotting.bars("Energy", "joules an image, training step, best batch size", values)


def machine(file: Benchmark, label: str) -> str:
    machine, software = file["hardware"], file["software"]
    gpu = dict(machine["gpus"][0]) if machine["gpus"] else {}
    data = file["data"]
    facts = {
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
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f'<h3>{escape(label)}</h3><table class="facts"><tbody>{rows}</tbody></table>'
