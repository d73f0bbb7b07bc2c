"""The README's picture: a contest between loaders as a standalone SVG, readable in light and dark.

Refuses to choose: every contestant that ran is drawn, the machine and the number of samples stand below.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastresnet.bench.pages.tables import asset

WIDTH, ROW, NAME, TOP = 720, 34, 150, 44  # px


def loaders(contest: dict[str, Any], machine: str) -> str:
    """Bars of images a second, the fastest first. contest: what benchmarks/loader.py wrote."""
    ran = [row for row in contest["rows"] if row["status"] == "ok"]
    ran.sort(key=lambda row: -row["images_per_second"]["median"])
    most = ran[0]["images_per_second"]["median"]
    height = TOP + ROW * len(ran) + 34
    title = f"Augmented batches of CIFAR-10 on {machine}, images a second"
    parts = [f'<text x="0" y="20" font-weight="600">{escape(title)}</text>']
    for place, row in enumerate(ran):
        rate, y = row["images_per_second"]["median"], TOP + ROW * place
        width = rate / most * (WIDTH - NAME - 90)
        kind = "ours" if row["ours"] else "other"
        parts += [
            f'<text x="{NAME - 10}" y="{y + 17}" text-anchor="end">{escape(row["name"])}</text>',
            f'<rect class="{kind}" x="{NAME}" y="{y}" width="{width:.1f}" height="24" rx="3"/>',
            f'<text x="{NAME + width + 8:.1f}" y="{y + 17}">{rate:,.0f}</text>',
        ]
    samples = " to ".join(str(n) for n in sorted({row["images_per_second"]["n"] for row in ran}))
    told = f"batch {contest['batch_size']}, {contest['dtype']}; crop, mirror, cutout; "
    told += f"medians of {samples} samples, in turns; green: ours"
    parts.append(f'<text class="soft" x="0" y="{height - 8}">{escape(told)}</text>')
    facts = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {facts}>'
    style = "<style>" + "".join(asset("picture.css").splitlines()) + "</style>"
    return "\n".join([head, style, *parts, "</svg>", ""])
