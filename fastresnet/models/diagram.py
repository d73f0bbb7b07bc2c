"""A network's blocks as a picture, SVG or PNG. Draws what a Summary says and measures nothing itself."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastresnet.base import files, words
from fastresnet.models.summary import Block, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, BOX_HEIGHT, GAP, LEFT, TOP = 760, 46, 18, 60, 74  # px
# tints of Okabe and Ito's palette, by map size
FILLS = ("#d9e8f5", "#fbe3c8", "#d6efe2", "#f3dcea", "#faf3c4", "#e2e2e2")
INK, FAINT = "#1b1f24", "#57606a"


@dataclass(frozen=True)
class Box:
    """One box: texts, where it is (px from the top), its fill, whether a residual connection goes around."""

    title: str
    detail: str
    figures: str
    top: int
    fill: str
    residual: bool


def draw(summary: Summary, path: str | Path) -> None:
    """Write the picture, as an .svg or a .png file. Raises ValueError for another ending of `path`."""
    import matplotlib  # late: only pictures need it

    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"{path}: a diagram is an .svg or a .png file, got {path.suffix or 'no ending'!r}")
    text_stays_text = matplotlib.rc_context({"svg.fonttype": "none"})
    with files.replacing(path) as temporary, text_stays_text:
        _figure(summary).savefig(temporary, format=path.suffix[1:], metadata={"Date": None})


def boxes(summary: Summary) -> list[Box]:
    """The blocks from input to output; neighbours that are alike share a box marked with their number."""
    sizes: list[int] = []
    result = []
    for i, run in enumerate(list(alike) for _, alike in itertools.groupby(summary.blocks, _signature)):
        output = run[-1].layers[-1].output
        side = output[1] if len(output) == 3 else 0
        if side not in sizes:
            sizes.append(side)
        top = TOP + i * (BOX_HEIGHT + GAP)
        result.append(_box(run, top, FILLS[sizes.index(side) % len(FILLS)]))
    return result


def _signature(block: Block) -> tuple[object, ...]:
    return (block.residual, *((layer.kind, layer.output, layer.parameters) for layer in block.layers))


def _box(run: list[Block], top: int, fill: str) -> Box:
    layers = [layer for block in run for layer in block.layers]
    shown = [
        layer for layer in run[0].layers if layer.kind != "batch norm" and "downsample" not in layer.name
    ]
    detail = ", ".join(
        f"{layer.kind} → {layer.output[0]}" if layer.parameters else layer.kind for layer in shown
    )
    title = run[0].name if len(run) == 1 else f"{run[0].name} … {run[-1].name} (×{len(run)})"
    output = "×".join(map(str, layers[-1].output))
    parameters, flops = sum(layer.parameters for layer in layers), sum(layer.flops for layer in layers)
    field = max(layer.field.size for layer in layers)
    work = f"{words.amount(parameters)} parameters   {words.amount(flops, 'FLOP')}"
    figures = f"{output}   {work}   field {field} px"
    return Box(title, detail, figures, top, fill, run[0].residual)


def _figure(summary: Summary) -> Figure:
    from matplotlib.figure import Figure

    drawn = boxes(summary)
    height, middle = drawn[-1].top + BOX_HEIGHT + GAP, WIDTH / 2
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=144)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    title = f"{summary.title}, {summary.image_size}×{summary.image_size} px"
    told = f"{summary.parameters:,} parameters, {summary.flops / 1e9:.3f} GFLOP a forward pass. "
    told += "A curve on the left is a residual connection."
    axes.text(LEFT, 30, title, size=18, weight="bold", color=INK)
    axes.text(LEFT, 52, told, size=12, color=FAINT)
    for box in drawn:
        _show(axes, box)
    arrow = dict(arrowstyle="->", color=INK, linewidth=1.5, shrinkA=0, shrinkB=0)
    for box in drawn[1:]:
        axes.annotate("", (middle, box.top), (middle, box.top - GAP), arrowprops=arrow)
    return figure


def _show(axes: Axes, box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path as Curve

    corner, width, style = (LEFT, box.top), WIDTH - 2 * LEFT, "round,pad=0,rounding_size=6"
    patch = FancyBboxPatch(corner, width, BOX_HEIGHT, boxstyle=style, facecolor=box.fill, edgecolor=INK)
    axes.add_patch(patch)
    axes.text(LEFT + 12, box.top + 19, box.title, size=13, weight="bold", color=INK)
    axes.text(LEFT + width - 12, box.top + 19, box.figures, size=12, color=INK, ha="right")
    axes.text(LEFT + 12, box.top + 37, box.detail, size=12, color=FAINT)
    if box.residual:
        high, low = box.top + 6, box.top + BOX_HEIGHT - 6
        points = [(LEFT, high), (LEFT - 34, high), (LEFT - 34, low), (LEFT, low)]
        curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
        axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=INK, linewidth=1.5))
