"""See what the model sees. `describe.py data`: images of each class, before and after augmentation, counts
and channels.
`describe.py model`: each layer's output, parameters, FLOPs and receptive field, and a diagram of the
blocks."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fastresnet import augment, beton, data, models
from fastresnet.augment import Augment
from fastresnet.models import diagram, summary
from fastresnet.reports import dataview, plots
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import Config


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("data", "model"), help="what to describe")
    parser.add_argument(
        "--out", default="description", metavar="FOLDER", help="where pictures go (default: description)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON and nothing else")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="data: which images"
    )
    parser.add_argument("--beton", metavar="FILE", help="data: this beton instead of the recipe's data")
    parser.add_argument(
        "--images", type=int, default=10, metavar="N", help="data: images of each class (default: 10)"
    )
    parser.add_argument(
        "--classes", type=int, metavar="N", help="model: number of classes (default: of data.name)"
    )
    parser.add_argument(
        "--size", type=int, metavar="PX", help="model: height and width of the images (default: 32)"
    )


def main() -> None:
    cfg, args = parse_args(None, __doc__, options)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (describe_data if args.what == "data" else describe_model)(cfg, args, out)


def describe_data(cfg: Config, args: argparse.Namespace, out: Path) -> None:
    if args.images < 1:
        raise ValueError(f"--images must be at least 1, got {args.images}")
    images, labels, names, mean, std, title = (
        read_beton(args.beton) if args.beton else read_split(cfg, args.split)
    )
    facts = dataview.statistics(images, labels, names)
    chosen = dataview.pick(labels, len(names), args.images, cfg.run.seed)
    rows = [f"{name}\n{facts['classes'][name]:,}" for name in names]
    spec = augment.from_settings(cfg.train)
    seen = dataview.augmented(images[np.concatenate(chosen)], spec, mean=mean, std=std, seed=cfg.run.seed)
    cuts = np.cumsum([len(some) for some in chosen])[:-1]
    filled = [i for i, some in enumerate(chosen) if len(some)]
    stored, after = [images[some] for some in chosen], np.split(seen, cuts)
    plots.class_rows(
        [(rows[i], list(stored[i])) for i in filled], out / "images.png", title=f"{title}: as stored"
    )
    plots.class_rows(
        [(rows[i], list(after[i])) for i in filled],
        out / "augmented.png",
        title=f"{title}: the same images as the network gets them ({augmentation(spec)})",
    )
    if args.json:
        print(
            json.dumps(
                {"name": title, **facts, "pictures": [str(out / "images.png"), str(out / "augmented.png")]}
            )
        )
        return
    print(
        f"{title}: {facts['images']:,} images of {facts['height']} x {facts['width']} px, {len(names)} "
        "classes\n"
    )
    print("\n".join(f"  {name:<20}{count:>8,}" for name, count in facts["classes"].items()))
    print(f"\n  {'channel (0..255)':<20}{'mean':>8}{'std':>8}{'min':>6}{'max':>6}")
    for index, channel in enumerate(("red", "green", "blue")):
        print(
            f"  {channel:<20}{facts['mean'][index]:>8.2f}{facts['std'][index]:>8.2f}"
            f"{facts['min'][index]:>6}{facts['max'][index]:>6}"
        )
    print(f"\npictures {out / 'images.png'} and {out / 'augmented.png'}")


def read_split(cfg: Config, split: str) -> tuple:
    """Images, labels, class names, mean, std and a title of a split of the recipe's data."""
    splits = data.prepare(cfg)
    part = getattr(splits, split)
    if part is None:
        raise ValueError("--split=val: there is no validation split (data.val_fraction is 0)")
    if part.images is None:
        raise ValueError(
            f"{part.path}: too large to be held whole, or its images differ in size; describe a part of it "
            "(--data.subset), or convert it with one size"
        )
    title = f"{splits.info['name']}, {split}"
    return part.images, part.labels, splits.class_names, splits.mean, splits.std, title


def read_beton(path: str) -> tuple:
    """The same of a beton; class names, mean and std come from the file beside it, or are counted."""
    images, labels = beton.read(path)
    beside = beton.read_sidecar(beton.open_beton(path))
    known = beside[0] if beside else None
    names = known["class_names"] if known else [str(index) for index in range(int(labels.max()) + 1)]
    facts = dataview.statistics(images, labels, names)
    mean, std = (known[key] if known else [value / 255 for value in facts[key]] for key in ("mean", "std"))
    return images, labels, names, mean, std, Path(path).name


def describe_model(cfg: Config, args: argparse.Namespace, out: Path) -> None:
    classes = args.classes or {"cifar100": 100}.get(cfg.data.name, 10)
    size = args.size or cfg.data.image_size or 32
    if classes < 1 or size < 8:
        raise ValueError(f"--classes must be at least 1 and --size at least 8 px, got {classes} and {size}")
    result = summary.summarize(models.build(cfg.model, classes, size), size, cfg.train.batch_size)
    pictures = [out / f"{cfg.recipe}.svg", out / f"{cfg.recipe}.png"]
    for picture in pictures:
        diagram.draw(result, picture)
    if args.json:
        totals = {"parameters": result.parameters, "trainable": result.trainable, "flops": result.flops}
        print(
            json.dumps(
                {**totals, **asdict(result), "pictures": [str(picture) for picture in pictures]},
                default=float,
            )
        )
        return
    print(summary.format_table(result))
    print(f"\npictures {pictures[0]} and {pictures[1]}")


def augmentation(spec: Augment) -> str:
    """The augmentation in a few words."""
    parts = [
        f"crop {spec.crop_padding_px} px {spec.crop_mode}" if spec.crop_padding_px else "",
        f"flip {spec.flip}" if spec.flip != "none" else "",
        f"cutout {spec.cutout_px} px" if spec.cutout_px else "",
        f"brightness ±{spec.brightness:g}" if spec.brightness else "",
        f"contrast ±{spec.contrast:g}" if spec.contrast else "",
        *(f"{name} {share:g}" for name, share in spec.extras),
    ]
    return ", ".join(part for part in parts if part) or "unchanged"
