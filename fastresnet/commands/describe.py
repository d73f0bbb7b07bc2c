"""See what the network sees: `fastresnet describe data`, or `fastresnet describe model`.

data:   images of each class, before and after augmentation, counts and channels
model:  each layer's output, parameters, FLOPs and receptive field, and a diagram of the blocks
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fastresnet import augment, beton, data, models
from fastresnet.augment import Augment
from fastresnet.base import parts, words
from fastresnet.base.pictures import Pixels
from fastresnet.data import conversion
from fastresnet.models import diagram, pretrained, summary
from fastresnet.reports import dataview, plots
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings.command_line import number, parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.rule import Rule

CLASSES = {"cifar100": 100}  # of data.name, where they aren't ten


@dataclass(frozen=True)
class Shown:
    """Images (N,H,W,3) uint8 and labels (N,) to describe; mean and std of the channels in 0..1 units."""

    title: str
    images: Pixels
    labels: np.ndarray
    class_names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]


def options(parser: argparse.ArgumentParser) -> None:
    """What this command takes beside the settings."""
    add, count = parser.add_argument, number(Rule(kind=int, low=1, high=10**6))
    add("what", choices=("data", "model"), help="what to describe")
    where = "where pictures go (default: runs/description)"
    add("--out", type=Path, default="runs/description", metavar="FOLDER", help=where)
    add("--json", action="store_true", help="print everything as JSON and nothing else")
    add("--split", choices=("train", "val", "test"), default="train", help="data: which images")
    add("--beton", type=Path, metavar="FILE", help="data: this beton instead of the recipe's data")
    shown = number(Rule(kind=int, low=1, high=100))
    add("--images", type=shown, default=10, metavar="N", help="data: images of each class (default: 10)")
    add("--classes", type=count, metavar="N", help="model: number of classes (default: of data.name)")
    what = "model: height and width of the images (default: 32)"
    size = number(Rule(kind=int, low=8, high=65535))
    add("--size", type=size, metavar="PX", help=what)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the pictures and print the facts."""
    cfg, args = parse_args(argv, __doc__, options)
    if args.what == "data":
        describe_data(read_beton(args.beton) if args.beton else read_split(cfg, args.split), cfg, args)
    else:
        describe_model(cfg, args)


def describe_data(shown: Shown, cfg: Config, args: argparse.Namespace) -> None:
    """Counts, channels, and images of each class as stored and as the network gets them."""
    facts = dataview.statistics(shown.images, shown.labels, shown.class_names)
    pictures = [args.out / "images.png", args.out / "augmented.png"]
    draw_images(shown, facts["classes"], cfg, args.images, pictures)
    if args.json:
        print(json.dumps({"name": shown.title, **facts, "pictures": list(map(str, pictures))}))
        return
    size = f"{facts['height']} x {facts['width']} px"
    print(f"{shown.title}: {facts['images']:,} images of {size}, {len(shown.class_names)} classes\n")
    print("\n".join(f"  {name:<20}{count:>8,}" for name, count in facts["classes"].items()))
    print(f"\n  {'channel (0..255)':<20}{'mean':>8}{'std':>8}{'min':>6}{'max':>6}")
    for index, channel in enumerate(("red", "green", "blue")):
        mean, std, low, high = (facts[key][index] for key in ("mean", "std", "min", "max"))
        print(f"  {channel:<20}{mean:>8.2f}{std:>8.2f}{low:>6}{high:>6}")
    print(f"\npictures {pictures[0]} and {pictures[1]}")


def draw_images(
    shown: Shown, counts: dict[str, int], cfg: Config, count: int, pictures: Sequence[Path]
) -> None:
    """Two pictures of the same images, `count` of each class: as stored, and after augmentation."""
    seed, spec = cfg.run.seed, augment.from_settings(cfg.train)
    chosen = dataview.pick(shown.labels, len(shown.class_names), count, seed)
    stored = [shown.images[some] for some in chosen]
    flat = shown.images[np.concatenate(chosen)]
    seen = dataview.augmented(flat, spec, mean=shown.mean, std=shown.std, seed=seed)
    after = np.split(seen, np.cumsum([len(some) for some in chosen])[:-1])
    titles = ("as stored", f"the same images as the network gets them ({augmentation(spec)})")
    for picture, title, images in zip(pictures, titles, (stored, after)):
        rows = [(f"{name}\n{counts[name]:,}", list(part)) for name, part in zip(shown.class_names, images)]
        plots.class_rows([row for row in rows if row[1]], picture, title=f"{shown.title}: {title}")


def read_split(cfg: Config, split: str) -> Shown:
    """A split of the recipe's data; ValueError where there is none, or it isn't held in memory."""
    with Heartbeat(quiet=cfg.run.progress == "off") as heart:
        splits = data.prepare(cfg, heart.at)
    part: data.Split | None = getattr(splits, split)
    if part is None:
        raise ValueError("--split=val: there is no validation split (data.val_fraction is 0)")
    if part.images is None:
        raise ValueError(
            f"{part.path}: streamed: its images are too many, of several sizes or cut to data.image_size; "
            "describe a part of it (--data.subset), or convert it with one size"
        )
    title = f"{splits.info['name']}, {split}"
    return Shown(title, part.images, part.labels, splits.class_names, splits.mean, splits.std)


def read_beton(path: Path) -> Shown:
    """A beton; class names, mean and std come from the file beside it, or are counted."""
    images, labels = beton.read(path)
    beside = beton.read_sidecar(beton.open_beton(path))
    if beside is not None:
        known = beside[0]
        return Shown(path.name, images, labels, known["class_names"], known["mean"], known["std"])
    names = [str(index) for index in range(int(labels.max()) + 1)]
    return Shown(path.name, images, labels, names, *conversion.statistics(images))


def describe_model(cfg: Config, args: argparse.Namespace) -> None:
    """The layers as a table, or as JSON, and the diagram as SVG and PNG."""
    cfg = pretrained.like_the_run(cfg)
    classes = args.classes or CLASSES.get(cfg.data.name, 10)
    size = args.size or cfg.data.image_size or 32
    with torch.device("meta" if cfg.model.arch in parts.MODELS else "cpu"):  # ours need no memory
        model = models.build(replace(cfg.model, pretrained=None), classes, size)
    result = summary.summarize(model, size, cfg.train.batch_size)
    pictures = [args.out / f"{cfg.recipe}{ending}" for ending in (".svg", ".png")]
    for picture in pictures:
        diagram.draw(result, picture)
    if args.json:
        totals = {"parameters": result.parameters, "trainable": result.trainable, "flops": result.flops}
        told = {**totals, **asdict(result), "pictures": list(map(str, pictures))}
        print(json.dumps(told, default=float))
        return
    print(words.fitted(summary.format_table(result, words.room(sys.stdout)), sys.stdout))
    print(f"\npictures {pictures[0]} and {pictures[1]}")


def augmentation(spec: Augment) -> str:
    """The augmentation in a few words."""
    parts = [
        f"crop {spec.crop_padding_px} px {spec.crop_mode}" if spec.crop_padding_px else "",
        f"flip {spec.flip}" if spec.flip != "none" else "",
        f"cutout {spec.cutout_px} px" if spec.cutout_px else "",
        f"brightness ±{spec.brightness:g}" if spec.brightness else "",
        f"contrast ±{spec.contrast:g}" if spec.contrast else "",
    ]
    return ", ".join(part for part in parts if part) or "unchanged"
