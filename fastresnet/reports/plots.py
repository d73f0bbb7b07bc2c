"""Pictures as PNG files, drawn with matplotlib: curves, range tests, confusions, calibration, image grids.

Takes plain numbers and arrays; computes nothing that a figure elsewhere rests on, needs no display.
Every colour is from Okabe and Ito's palette or viridis, which readers with any colour vision can tell
apart, and every line has its own dash besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastresnet.base import files, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
SPLITS = {
    "train": ("training", BLUE, "-"),
    "val": ("validation", GREEN, "-."),
    "test": ("test", VERMILION, "--"),
}
DPI = 120
LARGEST, NAMED = 22.0, 120  # of a confusion matrix: inches, and classes whose names have room


@contextmanager
def drawing(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` x `height` inches that is written to `path` when the block ends well."""
    from matplotlib.figure import Figure  # late: only pictures need it, and some images lack it

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    yield figure
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:])


def series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Epochs (counted from 1) and values of `key`, of the epochs in which it was measured."""
    rows = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    return [float(epoch) for epoch, _ in rows], [float(value) for _, value in rows]


def curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Loss and accuracy over epochs, for training, validation and test; the best epoch is marked.

    history: a run's `per_epoch` (epoch, train_loss, train_accuracy, test_loss, test_accuracy, val_loss,
             val_accuracy); accuracies are shares. Raises ValueError where there is no epoch to draw.
    """
    if not history:
        raise ValueError(f"{path}: no epoch was finished, so there are no curves to draw")
    with drawing(path, 10, 4) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for split, (name, colour, dash) in SPLITS.items():
            for axes, key, scale in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
                epochs, values = series(history, f"{split}_{key}")
                if epochs:
                    shown = [value * scale for value in values]
                    axes.plot(epochs, shown, dash, color=colour, label=name, marker="o", markersize=3)
                    if split != "train":
                        _mark_best(axes, epochs, shown, lowest=key == "loss", colour=colour)
        _label(loss, "Loss", "epoch", "cross-entropy (nats)")
        _label(accuracy, "Accuracy", "epoch", "accuracy (%)")
    return Path(path)


def _mark_best(
    axes: Axes, epochs: Sequence[float], values: Sequence[float], *, lowest: bool, colour: str
) -> None:
    best = int(np.argmin(values) if lowest else np.argmax(values))
    text = f"{'min' if lowest else 'max'} {values[best]:.3g}" if lowest else f"max {values[best]:.2f} %"
    axes.plot(
        epochs[best],
        values[best],
        marker="*",
        markersize=13,
        color=colour,
        markeredgecolor="white",
        label=f"{text} at epoch {epochs[best]:g}",
        linestyle="none",
    )


def _label(axes: Axes, title: str, x: str, y: str, *, legend: bool = True) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if x == "epoch":
        axes.locator_params(axis="x", integer=True)  # there is no half epoch
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False)


def lr_finder(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestions: Mapping[str, float],
    path: str | Path,
) -> Path:
    """Loss against learning rate (logarithmic), raw and smoothed, with the suggested rates marked."""
    with drawing(path, 7.5, 4.5) as figure:
        axes = figure.subplots()
        axes.plot(rates, losses, color=SKY, linewidth=0.8, alpha=0.7, label="loss of a step")
        axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
        styles = zip((VERMILION, GREEN, PURPLE), ("--", "-.", ":"), strict=True)
        for (name, rate), (colour, dash) in zip(suggestions.items(), styles, strict=False):
            axes.axvline(rate, color=colour, linestyle=dash, label=f"{name}: {rate:.2g}")
        axes.set_xscale("log")
        low, high = min(min(smoothed), float(np.percentile(losses, 1))), smoothed[0]
        span = max(high - low, 1e-3)  # a loss that never falls has none
        axes.set_ylim(low - 0.15 * span, high + 0.5 * span)
        _label(axes, "Learning-rate range test", "learning rate (log scale)", "training loss (nats)")
    return Path(path)


def confusion(
    counts_KK: np.ndarray, class_names: Sequence[str], path: str | Path, *, shares: bool = False
) -> Path:
    """A confusion matrix, rows true, columns predicted; `shares`: rows divided by their sums, in percent."""
    size = min(max(5.0, 0.55 * len(class_names) + 1.8), LARGEST)
    values = counts_KK.astype(float)
    if shares:
        values = 100 * values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    with drawing(path, size + 0.8, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(values, cmap="viridis", vmin=0)
        ticks = np.arange(len(class_names))
        if len(class_names) <= NAMED:
            axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(ticks, class_names)
        if len(class_names) <= 20:  # more don't fit to be read
            for row, column in np.ndindex(values.shape):
                value = values[row, column]
                bright = value > 0.6 * values.max()
                axes.text(
                    column,
                    row,
                    f"{value:.1f}" if shares else f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if bright else "white",
                )
        unit = "share of the true class (%)" if shares else "images"
        figure.colorbar(image, ax=axes, label=unit, shrink=0.8)
        axes.set(xlabel="predicted class", ylabel="true class", title="Confusion matrix")
    return Path(path)


def reliability(calibration: Mapping[str, Any], path: str | Path) -> Path:
    """Accuracy against confidence, and how many images fall in each bin of metrics.calibration."""
    bins = [row for row in calibration["bins"] if row["count"]]
    middles = [(row["low"] + row["high"]) / 2 for row in bins]
    width = calibration["bins"][0]["high"] - calibration["bins"][0]["low"]
    with drawing(path, 5.5, 6) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.bar(
            middles,
            [row["accuracy"] for row in bins],
            width=0.94 * width,
            color=BLUE,
            label="accuracy in the bin",
        )
        axes.plot([0, 1], [0, 1], "--", color=BLACK, label="perfectly calibrated")
        axes.plot(
            [row["confidence"] for row in bins],
            [row["accuracy"] for row in bins],
            "o",
            color=ORANGE,
            markeredgecolor="black",
            label="mean confidence",
        )
        _label(axes, f"Reliability, ECE {words.percent(calibration['ece'])}", "", "accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        below.bar(middles, [row["count"] for row in bins], width=0.94 * width, color=SKY)
        below.set_yscale("log")
        _label(below, "", "confidence in the predicted class", "images (log)", legend=False)
    return Path(path)


def image_grid(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    path: str | Path,
    *,
    columns: int = 8,
    title: str = "",
    right: Sequence[bool | None] | None = None,
) -> Path:
    """uint8 (H, W, 3) images in a grid with a caption each; `right` colours a caption (None: unknown)."""
    if not len(images):
        raise ValueError(f"{path}: no image to draw")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    with drawing(path, 1.45 * columns, (1.3 + 0.17 * lines) * rows + (0.4 if title else 0)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for index, (axes, image, caption) in enumerate(zip(grid, images, captions, strict=False)):
            axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 128 else "antialiased")
            known = right[index] if right is not None else None
            axes.set_title(caption, fontsize=8, color={None: BLACK, True: BLUE, False: VERMILION}[known])
        if title:
            figure.suptitle(title, fontsize=11)
    return Path(path)


def compare(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> Path:
    """Test loss and accuracy of several runs over epochs; `runs` maps a run's name to its `per_epoch`."""
    with drawing(path, 10, 4.2) as figure:
        loss, accuracy = figure.subplots(1, 2)
        colours = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
        for index, (name, history) in enumerate(runs.items()):
            style = {
                "color": colours[index % len(colours)],
                "linestyle": ("-", "--", "-.", ":")[index // len(colours) % 4],
            }
            for axes, key, scale in ((loss, "test_loss", 1.0), (accuracy, "test_accuracy", 100.0)):
                epochs, values = series(history, key)
                axes.plot(
                    epochs, [value * scale for value in values], label=name, marker="o", markersize=3, **style
                )
        _label(loss, "Test loss", "epoch", "cross-entropy (nats)")
        _label(accuracy, "Test accuracy", "epoch", "accuracy (%)")
    return Path(path)


def class_rows(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], path: str | Path, *, title: str = ""
) -> Path:
    """uint8 (H, W, 3) images, a row a class, with the class's text at its left."""
    columns = max(len(images) for _, images in rows)
    with drawing(path, 1.9 + 0.75 * columns, 0.75 * len(rows) + 0.5) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for line, (text, images) in zip(grid, rows, strict=True):
            line[0].text(-0.15, 0.5, text, ha="right", va="center", fontsize=9, transform=line[0].transAxes)
            for axes, image in zip(line, images, strict=False):
                axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 128 else "antialiased")
        figure.suptitle(title, fontsize=11)
    return Path(path)
