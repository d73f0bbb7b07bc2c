"""The comparison as one self-contained page: sortable and filterable table, plots, machines. Loads nothing,
needs no server."""

from __future__ import annotations

import math
from html import escape

from fastresnet.base import words
from fastresnet.bench.judging import bounds
from fastresnet.bench.judging.comparison import Comparison, Entry
from fastresnet.bench.judging.telling import averages, speed, told
from fastresnet.bench.measuring.file import Benchmark, Row, figure, median_of, number
from fastresnet.bench.pages import plotting
from fastresnet.bench.pages.assets import SCRIPT, STYLE
from fastresnet.bench.pages.plotting import Series
from fastresnet.machine import hardware
from fastresnet.reports import page as look


def render(compared: Comparison) -> str:
    """The whole page as text."""
    title = (
        " and ".join(compared.labels)
        if len(compared.labels) <= 3
        else f"{len(compared.labels)} benchmark files"
    )
    body = [
        STYLE,
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Speeds beside the first file, {escape(compared.labels[0])}: 2.00x is twice as fast. '
        "In brackets the 95 % interval over processes; within it, a difference is noise.</p>",
        *(f'<p class="warn">{escape(text)}</p>' for text in compared.warnings),
        _cards(compared),
        look.section("Cases", _tools(compared), cases_table(compared)),
        look.section("Pictures", f'<div class="charts">{_pictures(compared)}</div>'),
        look.section(
            "Machines", *(_machine(file, label) for file, label in zip(compared.files, compared.labels))
        ),
        SCRIPT,
    ]
    return look.document(f"Benchmark: {title}", "\n".join(body))


def _cards(compared: Comparison) -> str:
    found = [look.card(text.split(", ")[0].rsplit(" ", 3)[1] if len(compared.files) == 2 else text, f"{part}: mean speed")
             for part, text in averages(compared).items()]  # fmt: skip
    return f'<div class="cards">{"".join(found)}</div>'


def _tools(compared: Comparison) -> str:
    parts = list(dict.fromkeys(name.split("/")[0] for name in compared.cases))
    options = "".join(f'<option value="{escape(part)}">{escape(part)}</option>' for part in parts)
    return (
        '<div class="tools"><input type="search" id="search" placeholder="filter: resnet18 bf16" aria-label="filter the cases">'
        f'<select id="part" aria-label="part of the suite"><option value="">all parts</option>{options}</select>'
        '<label><input type="checkbox" id="sure"> beyond noise only</label><span class="soft" id="count"></span></div>'
    )


def cases_table(compared: Comparison) -> str:
    """One row a case; a cell's `data-value` is what it sorts by."""
    head = ["case", compared.labels[0]]
    for label in compared.labels[1:]:
        head += [label, "speed", "explained by"]
    rows = []
    for name, entries in compared.cases.items():
        sure = any(entry.ratio and not entry.ratio.within_noise for entry in entries[1:])
        cells = [f'<td class="id" data-label="case">{escape(name)}</td>', _value_cell(entries[0], head[1])]
        for label, entry in zip(compared.labels[1:], entries[1:]):
            why = escape(told(entry)[3])
            cells += [
                _value_cell(entry, label),
                _ratio_cell(entry),
                f'<td data-label="explained by">{why}</td>',
            ]
        rows.append(
            f'<tr data-part="{escape(name.split("/")[0])}" data-sure="{int(sure)}">{"".join(cells)}</tr>'
        )
    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    return f'<div class="scroll"><table id="cases"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _value_cell(entry: Entry, label: str) -> str:
    row, text = entry.row, told(entry)
    if row is None or row["quantiles"] is None:
        message = escape((row["message"] if row else "") or "", quote=True)
        return f'<td class="n none" data-label="{escape(label)}" data-value="NaN" title="{message}">{escape(entry.verdict)}</td>'
    q = row["quantiles"]
    value = number(row, "images_per_second") or q["median"]
    title = f"median {q['median']:.4g}, 20th {q['p20']:.4g}, 80th {q['p80']:.4g} {row['unit']}, n={q['n']}"
    title += f"; {row['noise']}" if row["noise"] else ""
    return (f'<td class="n" data-label="{escape(label)}" data-value="{value:.6g}" title="{escape(title, quote=True)}">'
            f"{escape(text[0])}</td>")  # fmt: skip


def _ratio_cell(entry: Entry) -> str:
    r = entry.ratio
    if r is None:
        text = "" if entry.row is None or entry.row["status"] != "ok" else entry.verdict
        return f'<td class="n none" data-label="speed" data-value="NaN">{escape(text)}</td>'
    bar = _bar(r.low, r.high) if r.judged else ""
    kind = entry.verdict if r.judged else "none"
    value, _, interval = speed(r).partition(" ")
    return (f'<td class="n {kind}" data-label="speed" data-value="{r.ratio:.6g}"><div>{value} '
            f'<span class="soft">{interval} {entry.verdict}</span>{bar}</div></td>')  # fmt: skip


def _bar(low: float, high: float) -> str:
    left, right = (50 + 50 * max(-1.0, min(1.0, math.log(x) / math.log(10))) for x in (low, high))
    return f'<div class="bar"><b></b><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i></div>'


# ---- pictures ----------------------------------------------------------------------------------------------


def _pictures(compared: Comparison) -> str:
    return "".join([by_batch(compared), roofline(compared), to_accuracy(compared), energy(compared)])


def _good(file: Benchmark, part: str) -> list[Row]:
    return [row for row in file["cases"] if row["part"] == part and row["status"] == "ok"]


def by_batch(compared: Comparison) -> str:
    """Images a second over the batch size: one line a file, model and precision with more than one batch
    size."""
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
        labels = [f"{label}, {row['name']}: {words.percent(figure(row, 'accuracy'))} in {median_of(row):.3g} s"
                  f" (n={row['figures']['runs']})" for row in rows]  # fmt: skip
        found.append(Series(label, points, index, line=False, labels=labels))
    return plotting.plot(
        "Time to accuracy", "test error, %: lower left is better", found, "seconds on the clock"
    )


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


# ---- machines ----------------------------------------------------------------------------------------------


def _machine(file: Benchmark, label: str) -> str:
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
