"""The look of a page: one self-contained HTML file, light and dark, readable on a phone. Knows no runs.

Colours are Okabe and Ito's, brightened where the background is dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from fastresnet.base import words

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f5f6f8; --text: #16191d; --soft: #59626d;
  --rule: #d8dce1;
  --c0: #0072B2; --c1: #D55E00; --c2: #007F5F; --c3: #B07A00; --c4: #B0497F; --c5: #2F8FC4; --c6: #444444; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1e2226; --text: #e8eaed;
  --soft: #a3acb6;
  --rule: #363c43; --c0: #56B4E9; --c1: #F58742; --c2: #2CC295; --c3: #E6B422; --c4: #E29CC2;
  --c5: #8FD0F5; --c6: #c8c8c8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 72rem; background: var(--back);
  color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: .3rem 0; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.warn { border-left: 4px solid var(--c1); background: var(--card); padding: .5rem .8rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1rem 0; }
.card { background: var(--card); border-radius: .6rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .84rem; display: block; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1rem;
  }
figure { margin: 0; background: var(--card); border-radius: .6rem; padding: .7rem .8rem .4rem;
  min-width: 0; }
figcaption { font-weight: 600; font-size: .95rem; } figcaption .soft { font-weight: 400; font-size: .85rem;
  }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--rule); stroke-width: 1; } .tick { fill: var(--soft); font-size: 12px; }
.name { fill: var(--soft); font-size: 13px; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .ring { fill: none; stroke-width: 2; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); --dash: 7 4; } .s2 { --c: var(--c2); --dash: 2 4; }
.s3 { --c: var(--c3); --dash: 9 3 2 3; }
.s4 { --c: var(--c4); } .s5 { --c: var(--c5); --dash: 7 4; } .s6 { --c: var(--c6); --dash: 2 4; }
.line, .ring { stroke: var(--c); } .line { stroke-dasharray: var(--dash, none); } .dot { fill: var(--c); }
.bar { fill: var(--c0); } .diagonal { stroke: var(--text); stroke-dasharray: 6 4; stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; color: var(--soft);
  margin: .2rem 0; }
.key i { display: inline-block; width: 1.6em; border-top: 3px solid var(--c, var(--text));
  margin-right: .4em; vertical-align: .25em; }
.key.s1 i, .key.s5 i, .key.diagonal i { border-top-style: dashed; }
.key.s2 i, .key.s6 i, .key.s3 i { border-top-style: dotted; }
.key.bars i { border-top: 9px solid var(--c0); vertical-align: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: left; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } th { color: var(--soft); font-weight: 600; }
.matrix td { text-align: center; border: 0; padding: .3rem .35rem; min-width: 2.6rem; }
.matrix th { border: 0; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .35rem .25rem; }
.matrix thead th:first-child, .matrix thead th.flat { writing-mode: initial; transform: none; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: .7rem;
  font-size: .8rem; }
.worst img { width: 100%; image-rendering: pixelated; border-radius: .35rem; display: block; }
.worst b { display: block; }
pre { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto;
  font-size: .85rem; }
details summary { cursor: pointer; font-weight: 600; } a { color: var(--c0); }
@media (max-width: 40rem) { body { padding: .8rem .7rem 3rem; } h1 { font-size: 1.3rem; }
.card b { font-size: 1.2rem; }
  .tick { font-size: 17px; } .name { font-size: 18px; } }
@media print { body { max-width: none; } figure, .card { break-inside: avoid; } }
"""


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
    """A confusion matrix as a coloured table: shade by the share of the true class, number in images."""
    shares = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for name, counts, row in zip(names, counts_KK, shares, strict=True):
        cells = "".join(
            f'<td style="background:{_viridis(share)};color:{"#000" if share > 0.55 else "#fff"}" '
            f'title="{escape(name, quote=True)} taken for {escape(other, quote=True)}: '
            f'{words.percent(share)}">{count}</td>'
            for count, share, other in zip(counts, row, names, strict=True)
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        '<div class="scroll"><table class="matrix"><thead><tr><th class="soft">true \\ predicted</th>'
        f"{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


_VIRIDIS = (
    (68, 1, 84),
    (65, 68, 135),
    (42, 120, 142),
    (34, 168, 132),
    (122, 209, 81),
    (253, 231, 37),
)  # six even steps of it


def _viridis(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    low, high = _VIRIDIS[index], _VIRIDIS[index + 1]
    red, green, blue = (round(a + (b - a) * (place - index)) for a, b in zip(low, high, strict=True))
    return f"rgb({red},{green},{blue})"


def png_uri(image_HWC: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
