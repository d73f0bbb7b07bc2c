"""Bars as standalone SVGs, readable in light and dark: the README's contest of loaders, and scaling.

Refuses to choose: all that ran is drawn, the machine and the number of samples stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastresnet.base import words
from fastresnet.bench.measuring.file import Benchmark, Row, figure, number
from fastresnet.bench.pages import tables
from fastresnet.bench.pages.case_names import readable

WIDTH, ROW, NAME, TOP = 720, 34, 150, 44  # px
LETTER = 8.6  # px, the mean of a wide font


Bar = tuple[str, float, str, bool]  # name, value, its text, whether in the first colour


def loaders(contest: dict[str, Any], machine: str) -> str:
    """Bars of images a second, the fastest first. contest: what benchmarks/loader.py wrote."""
    ran = [row for row in contest["rows"] if row["status"] == "ok"]
    ran.sort(key=lambda row: -row["images_per_second"]["median"])
    rates = [row["images_per_second"]["median"] for row in ran]
    shown = [(row["name"], rate, f"{rate:,.0f}", bool(row["ours"])) for row, rate in zip(ran, rates)]
    samples = words.span(row["images_per_second"]["n"] for row in ran)
    told = f"batch {contest['batch_size']}, {contest['dtype']}; crop, mirror, cutout; "
    told += f"medians of {samples} samples, in turns; green: ours"
    return bars(f"Augmented batches of CIFAR-10 on {machine}, images a second", shown, told)


def scaling(file: Benchmark, machine: str) -> str | None:
    """Bars of images a second by the number of processes; None where the file has no part `scaling`."""
    ran = [row for row in file["cases"] if row["part"] == "scaling" and row["status"] == "ok"]
    if not ran:
        return None
    ones = [row for row in ran if row["settings"]["processes"] == 1]
    alone = {row["settings"]["kind"]: figure(row, "images_per_second") for row in ones}
    shown = [_scaled(row, alone.get(row["settings"]["kind"])) for row in ran]
    samples = words.span(len(row["samples"]) for row in ran)
    told = f"{ran[0]['settings']['recipe']}; strong: one batch shared out (green), weak: a batch each; "
    told += f"medians of {samples} samples"
    return bars(f"Training steps over several processes on {machine}, images a second", shown, told)


def _scaled(row: Row, alone: float | None) -> Bar:
    rate, share = figure(row, "images_per_second"), number(row, "communication_share")
    text = f"{rate:,.0f}" + (f", {rate / alone:.2f} times one" if alone else "")
    text += "" if share is None else f", {words.percent(share, digits=0)} exchanging"
    return readable(row), rate, text, row["settings"]["kind"] == "strong"


def bars(title: str, shown: Sequence[Bar], below: str) -> str:
    """One bar a row, from zero, and behind it its text, for which the longest leaves room."""
    most = max(value for _, value, _, _ in shown)
    room = 12 + LETTER * max(len(text) for _, _, text, _ in shown)
    values = {
        "title": title,
        "bars": [
            (TOP + ROW * place, round(value / most * (WIDTH - NAME - room), 1), name, first, text)
            for place, (name, value, text, first) in enumerate(shown)
        ],
        "told": below,
        "width": WIDTH,
        "height": TOP + ROW * len(shown) + 34,
        "start": NAME,
    }
    return str(tables.render("bars.svg", values))
