"""What a trained network sees in image files: class and probability of each, as lines or as JSON."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fastresnet.base import words
from fastresnet.base.pictures import MAX_PIXELS, Pixels
from fastresnet.base.sinks import for_terminal
from fastresnet.inference import gradcam, images, trained
from fastresnet.inference.trained import Trained
from fastresnet.reports import plots
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings.command_line import number, parse_args, picture
from fastresnet.settings.keys import COMMAND_LINE
from fastresnet.settings.rule import Rule

GRID = 64  # images a grid holds at most
CHUNK = 1024  # images in memory at a time
LARGEST = 4 * MAX_PIXELS  # bytes of a picture on standard input


def options(parser: argparse.ArgumentParser) -> None:
    """What this command takes beside the settings."""
    add = parser.add_argument
    what = "images, folders of images, or - for one on standard input; a folder named like a class tells the "
    add("files", nargs="+", metavar="FILE|FOLDER|-", help=f"{what}true label of the images in it")
    add("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    top = number(Rule(kind=int, low=1))
    add("--top", type=top, default=3, metavar="N", help="classes to print for each image (default: 3)")
    add("--json", action="store_true", help="one JSON object a line, with every probability")
    add("--grid", type=picture, metavar="PNG", help=f"draw the first {GRID} images with their predictions")
    add("--gradcam", type=picture, metavar="PNG", help=f"draw where the network looked (first {GRID} images)")


def main(argv: Sequence[str] | None = None) -> None:
    """A line an image, and the pictures that are asked for."""
    cfg, args = parse_args(argv, __doc__, options, default=None)
    network = trained.from_command_line(args.checkpoint, cfg)
    room = words.room(sys.stdout)
    tta = cfg.eval.tta if cfg.provenance["eval.tta"] == COMMAND_LINE else "none"
    found, shown = gather(args.files, network), list[tuple[Pixels, np.ndarray, int | None]]()
    known = right = 0
    with Heartbeat(lambda: f"reading and answering {CHUNK:,} at a time", quiet=cfg.run.progress == "off"):
        while some := list(itertools.islice(found, CHUNK)):
            rows = network.probabilities(np.stack([image for _, image, _ in some]), tta=tta)
            for (name, image, label), row in zip(some, rows):
                if args.json:
                    print(json.dumps({"file": name, **as_json(row, label, network)}))
                else:
                    name, answer = for_terminal(name), as_line(row, label, network, args.top)
                    told = f"{name:<40}  {answer}"
                    below = words.fitted(f"{name}\n  {answer}", sys.stdout)
                    print(told if room is None or len(told) <= room else below)
                shown += [(image, row, label)][: GRID - len(shown)]
                known, right = (
                    known + (label is not None),
                    right + (label is not None and row.argmax() == label),
                )
        if known:
            print(f"right: {right} of the {known} whose folder is called like a class", file=sys.stderr)
        draw(network, shown, args)


def draw(
    network: Trained, shown: Sequence[tuple[Pixels, np.ndarray, int | None]], args: argparse.Namespace
) -> None:
    """The pictures that are asked for, of images with their probabilities and labels."""
    captions = [caption(row, label, network) for _, row, label in shown]
    right = [None if label is None else bool(row.argmax() == label) for _, row, label in shown]
    if args.grid:
        plots.image_grid([image for image, _, _ in shown], captions, args.grid, right=right)
        print(f"drawn: {args.grid}", file=sys.stderr)
    if args.gradcam:
        heated = overlays(network, np.stack([one[0] for one in shown]), np.stack([one[1] for one in shown]))
        title = "Grad-CAM: bright where the network looked"
        plots.image_grid(heated, captions, args.gradcam, right=right, title=title)
        print(f"drawn: {args.gradcam}", file=sys.stderr)


def gather(files: Sequence[str], network: Trained) -> Iterator[tuple[str, Pixels, int | None]]:
    """Name, pixels (size, size, 3), and the label where the image's folder is called like a class."""
    classes = {name.lower(): index for index, name in enumerate(network.class_names)}
    for item in files:
        if item == "-":
            content = sys.stdin.buffer.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"standard input: more than {words.size(LARGEST)}, which no picture takes")
            yield item, images.read(content, network.image_size), None
            continue
        for path in images.find([item]):
            label = classes.get(path.resolve().parent.name.lower())
            yield str(path), images.read(path, network.image_size), label


def as_line(row: np.ndarray, label: int | None, network: Trained, top: int) -> str:
    """The `top` classes with their probabilities, and whether the first is right where that is known."""
    best = row.argsort()[::-1][:top]
    answers = "  ".join(f"{network.class_names[i]:<12}{words.percent(row[i]):>8}" for i in best)
    if label is None:
        return answers
    return f"{answers}  {'right' if best[0] == label else f'wrong, is {network.class_names[label]}'}"


def as_json(row: np.ndarray, label: int | None, network: Trained) -> dict[str, object]:
    """The answer with every class's probability."""
    return {
        "class": network.class_names[row.argmax()],
        "probability": float(row.max()),
        "true": None if label is None else network.class_names[label],
        "probabilities": {key: float(value) for key, value in zip(network.class_names, row)},
    }


def caption(row: np.ndarray, label: int | None, network: Trained) -> str:
    """What the network says, how surely, and what it is where that is known."""
    text = f"{network.class_names[row.argmax()]} {words.percent(float(row.max()))}"
    return text if label is None else f"{text}\nis {network.class_names[label]}"


def overlays(network: Trained, pixels: Pixels, probabilities: np.ndarray) -> list[Pixels]:
    """The images, grey, under the heat of their predicted class in viridis."""
    from matplotlib import colormaps

    chosen = torch.from_numpy(probabilities.argmax(axis=1)).to(network.device)
    heat = gradcam.heatmaps(network.model, network.normalise(pixels), chosen).cpu().numpy()
    colours = colormaps["viridis"](heat)[..., :3] * 255
    grey = pixels.mean(axis=3, keepdims=True)
    return list((0.45 * grey + 0.55 * colours).astype(np.uint8))
