"""Everything about a checkpoint's answers on the test set: accuracy with its interval, classes, calibration,
mistakes."""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from fastresnet import data
from fastresnet.base import files, words
from fastresnet.inference import trained
from fastresnet.reports import metrics, plots
from fastresnet.settings.command_line import parse_args


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where tables and pictures go (default: evaluation/ beside the run)"
    )
    parser.add_argument(
        "--split", choices=("test", "val", "train"), default="test", help="which images (default: test)"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON and nothing else")


def main() -> None:
    cfg, args = parse_args(None, __doc__, options, default=None)
    network = trained.from_command_line(args.checkpoint, cfg)
    out = Path(args.out) if args.out else _folder_beside(network.path)
    out.mkdir(parents=True, exist_ok=True)
    splits = data.prepare(network.cfg, lambda line: None)
    part = getattr(splits, args.split)
    if part is None:
        raise ValueError(
            "--split=val: this network was trained without a validation split (data.val_fraction is 0)"
        )
    network.check_classes(tuple(splits.class_names), f"the {splits.info['name']} data")
    result = judge(network, part.images, part.labels)
    result |= {
        "checkpoint": str(args.checkpoint),
        "split": args.split,
        "data": splits.info["name"],
        "digest": splits.info["digest"],
        "synthetic": splits.info["synthetic"],
    }
    write(result, part.images, out)
    print(json.dumps(result, allow_nan=False) if args.json else table(result, out))


def judge(network: trained.Trained, images: np.ndarray, labels: np.ndarray) -> dict:
    """metrics.evaluation without test-time augmentation, and what flips and crops add to it."""
    result = metrics.evaluation(network.logits(images), labels, network.class_names)
    result["tta"] = {}
    for tta in ("flip", "crops"):
        accuracy = float((network.logits(images, tta=tta).argmax(axis=1) == labels).mean())
        result["tta"][tta] = {"top1": accuracy, "gain": accuracy - result["top1"]}
    return result


def write(result: dict, images: np.ndarray, out: Path) -> None:
    """evaluation.json, two confusion matrices as CSV and PNG, the reliability plot, and the grid of the worst
    mistakes."""
    files.write_text(out / "evaluation.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    names, confusion = result["class_names"], np.array(result["confusion"])
    for name, values in (
        ("confusion", confusion),
        ("confusion_normalised", metrics.normalised(confusion).round(6)),
    ):
        with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["true \\ predicted", *names])
            writer.writerows([label, *row] for label, row in zip(names, values.tolist()))
        plots.confusion(confusion, names, out / f"{name}.png", shares=name != "confusion")
    plots.reliability(result["calibration"], out / "reliability.png")
    worst = result["worst"]
    if worst:
        captions = [
            f"{names[row['predicted']]} {words.percent(row['confidence'])}\nis {names[row['label']]}"
            for row in worst
        ]
        plots.image_grid(
            [images[row["index"]] for row in worst],
            captions,
            out / "worst.png",
            title="Most confidently wrong: what it said, how surely, and what it is",
            right=[False] * len(worst),
        )


def table(result: dict, out: Path) -> str:
    """The result for people to read."""
    low, high = result["top1_interval"]
    lines = [
        f"{result['data']} {result['split']}, {result['images']:,} images"
        + ("  SYNTHETIC DATA: says nothing about real images" if result["synthetic"] else ""),
        f"top-1 {words.percent(result['top1'])}  (95 % interval {100 * low:.2f} to {100 * high:.2f})   "
        f"top-5 {words.percent(result['top5'])}   loss {result['loss']:.4f}   "
        f"ECE {words.percent(result['calibration']['ece'])}",
        "TTA "
        + "   ".join(
            f"{name} {words.percent(row['top1'])} ({100 * row['gain']:+.2f})"
            for name, row in result["tta"].items()
        ),
        "",
        f"{'class':<16}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}",
    ]
    lines += [
        f"{row['class']:<16}"
        + "".join(f"{100 * row[key]:>10.2f}" for key in ("precision", "recall", "f1"))
        + f"{row['support']:>10}"
        for row in result["per_class"]
    ]
    if result["most_confused"]:
        lines += [
            "",
            "most confused: "
            + ", ".join(
                f"{' / '.join(pair['classes'])} {pair['mistakes']}" for pair in result["most_confused"][:5]
            ),
        ]
    return "\n".join([*lines, "", f"tables and pictures in {out}"])


def _folder_beside(checkpoint: Path) -> Path:
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "evaluation"
