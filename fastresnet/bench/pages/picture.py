"""The README's picture: a contest between loaders as a standalone SVG, readable in light and dark.

Refuses to choose: every contestant that ran is drawn, the machine and the number of samples stand below.
"""

from __future__ import annotations

from typing import Any

from fastresnet.bench.pages import tables

WIDTH, ROW, NAME, TOP = 720, 34, 150, 44  # px


def loaders(contest: dict[str, Any], machine: str) -> str:
    """Bars of images a second, the fastest first. contest: what benchmarks/loader.py wrote."""
    ran = [row for row in contest["rows"] if row["status"] == "ok"]
    ran.sort(key=lambda row: -row["images_per_second"]["median"])
    rates = [row["images_per_second"]["median"] for row in ran]
    widths = [round(rate / rates[0] * (WIDTH - NAME - 90), 1) for rate in rates]
    samples = " to ".join(str(n) for n in sorted({row["images_per_second"]["n"] for row in ran}))
    told = f"batch {contest['batch_size']}, {contest['dtype']}; crop, mirror, cutout; "
    values = {
        "title": f"Augmented batches of CIFAR-10 on {machine}, images a second",
        "bars": [
            (TOP + ROW * place, width, row["name"], row["ours"], f"{rate:,.0f}")
            for place, (row, rate, width) in enumerate(zip(ran, rates, widths))
        ],
        "told": f"{told}medians of {samples} samples, in turns; green: ours",
        "width": WIDTH,
        "height": TOP + ROW * len(ran) + 34,
        "start": NAME,
    }
    return str(tables.render("loaders.svg", values))
