"""The look of a page: one self-contained HTML file, light and dark, readable on a phone. Knows no runs.

Colours are Okabe and Ito's, brightened where the background is dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

import numpy as np

from fastresnet.base import words

STYLE = (resources.files("fastresnet.reports") / "assets" / "page.css").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """The whole file: nothing is loaded from anywhere."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" '
        f'content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n<style>'
        f"{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def card(value: str, label: str) -> str:
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def section(title: str, *parts: str) -> str:
    """A titled section; empty where all its parts are."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 1) -> str:
    """A table of text; columns from `numbers_from` on are set flush right, as numbers are."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="n">{escape(cell)}</{tag}>'
            if index >= numbers_from
            else f"<{tag}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{line(header, 'th')}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def matrix(counts_KK: np.ndarray, names: Sequence[str]) -> str:
    """A confusion matrix in images; right answers and mistakes are shaded apart, each by its own largest."""
    shares = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(names), dtype=bool)
    low, high = float(shares[right].min()), float(shares[right].max())
    most = max(float(shares[~right].max(initial=0.0)), 1e-12)
    shades = np.where(right, (shares - low) / max(high - low, 1e-12), shares / most)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for i, name in enumerate(names):
        cells = "".join(
            _cell(int(counts_KK[i, j]), float(shares[i, j]), float(shades[i, j]), name, other)
            for j, other in enumerate(names)
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    corner = '<th class="soft">true \\ said</th>'
    table = f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="matrix">{table}</table></div>'


def _cell(count: int, share: float, shade: float, name: str, other: str) -> str:
    kind = "right" if name == other else "wrong" if count else "none"
    told = f"{name} taken for {other}: {words.percent(share)}"
    text = str(count) if count else "·"
    return f'<td class="{kind}" style="--shade:{shade:.3f}" title="{escape(told, quote=True)}">{text}</td>'


def png_uri(image_HWC: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
