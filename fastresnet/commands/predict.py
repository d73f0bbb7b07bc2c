"""What a trained network sees in image files: the class and its probability for each, as a table or as JSON
lines."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from fastresnet.base import words
from fastresnet.inference import gradcam, images, trained
from fastresnet.reports import plots
from fastresnet.settings import config
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.keys import COMMAND_LINE

GRID = 64  # images a grid holds at most


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="images, folders of images, or - for one on "
        "standard input; a folder named like a class tells the true label of the images in it",
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    parser.add_argument(
        "--top", type=int, default=3, metavar="N", help="classes to print for each image (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with every probability")
    parser.add_argument(
        "--grid", metavar="PNG", help=f"draw the images with their predictions (the first {GRID})"
    )
    parser.add_argument(
        "--gradcam", metavar="PNG", help=f"draw where the network looked (the first {GRID} images)"
    )


def main() -> None:
    cfg, args = parse_args(None, __doc__, options, default=None)
    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    network = trained.from_command_line(args.checkpoint, cfg)
    names, pixels, labels = gather(args.files, network)
    probabilities = network.probabilities(pixels, tta=cfg.eval.tta if _given(cfg, "eval.tta") else "none")
    for name, row, label in zip(names, probabilities, labels):
        print(
            as_json(name, row, label, network) if args.json else as_line(name, row, label, network, args.top)
        )
    captions = [caption(row, label, network) for row, label in zip(probabilities, labels)][:GRID]
    right = [
        None if label is None else bool(row.argmax() == label) for row, label in zip(probabilities, labels)
    ][:GRID]
    if args.grid:
        plots.image_grid(list(pixels[:GRID]), captions, args.grid, right=right)
    if args.gradcam:
        plots.image_grid(
            overlays(network, pixels[:GRID], probabilities[:GRID]),
            captions,
            args.gradcam,
            right=right,
            title="Grad-CAM: bright where the network looked",
        )


def gather(files: list[str], network: trained.Trained) -> tuple[list[str], np.ndarray, list[int | None]]:
    """Names, pixels (N, size, size, 3), and the label where the image's folder is called like a class."""
    size, classes = (
        network.image_size,
        {name.lower(): index for index, name in enumerate(network.class_names)},
    )
    names, pixels, labels = [], [], []
    for item in files:
        for path in [item] if item == "-" else images.find([item]):
            names.append(str(path))
            pixels.append(images.read(sys.stdin.buffer.read() if path == "-" else Path(path), size))
            labels.append(None if path == "-" else classes.get(Path(path).resolve().parent.name.lower()))
    return names, np.stack(pixels), labels


def as_line(name: str, row: np.ndarray, label: int | None, network: trained.Trained, top: int) -> str:
    best = row.argsort()[::-1][:top]
    answers = "  ".join(f"{network.class_names[i]:<12}{100 * row[i]:6.2f} %" for i in best)
    truth = (
        ""
        if label is None
        else "  right"
        if best[0] == label
        else f"  wrong, is {network.class_names[label]}"
    )
    return f"{name:<40}  {answers}{truth}"


def as_json(name: str, row: np.ndarray, label: int | None, network: trained.Trained) -> str:
    answer = {
        "file": name,
        "class": network.class_names[row.argmax()],
        "probability": float(row.max()),
        "true": None if label is None else network.class_names[label],
        "probabilities": {key: float(value) for key, value in zip(network.class_names, row)},
    }
    return json.dumps(answer)


def caption(row: np.ndarray, label: int | None, network: trained.Trained) -> str:
    text = f"{network.class_names[row.argmax()]} {words.percent(float(row.max()))}"
    return text if label is None else f"{text}\nis {network.class_names[label]}"


def overlays(network: trained.Trained, pixels: np.ndarray, probabilities: np.ndarray) -> list[np.ndarray]:
    """The images, grey, under the heat of their predicted class in viridis."""
    from matplotlib import colormaps

    chosen = torch.from_numpy(probabilities.argmax(axis=1)).to(network.device)
    heat = gradcam.heatmaps(network.model, network.normalise(pixels), chosen).cpu().numpy()
    colours = colormaps["viridis"](heat)[..., :3] * 255
    grey = pixels.mean(axis=3, keepdims=True)
    return list((0.45 * grey + 0.55 * colours).astype(np.uint8))


def _given(cfg: config.Config, key: str) -> bool:
    return cfg.provenance[key] == COMMAND_LINE
