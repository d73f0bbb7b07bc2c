"""All about a checkpoint's answers on a test set: accuracy, classes, calibration, mistakes."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastresnet import data
from fastresnet.base import files, words
from fastresnet.inference import judging, trained
from fastresnet.inference.judging import Gain, Judged
from fastresnet.inference.trained import Trained
from fastresnet.reports import metrics, plots
from fastresnet.reports.finished import Pictures
from fastresnet.reports.metrics import Mistake
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings.command_line import parse_args


class Judgement(Judged):
    """What was judged: a checkpoint, on which images."""

    checkpoint: str
    split: str
    data: str
    digest: str
    synthetic: bool


def options(parser: argparse.ArgumentParser) -> None:
    """What this command takes beside the settings."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    where = "where tables and pictures go (default: evaluation/ beside the run)"
    add("--out", type=Path, metavar="FOLDER", help=where)
    add("--split", choices=("test", "val", "train"), default="test", help="which images (default: test)")
    add("--json", action="store_true", help="print the whole result as JSON and nothing else")


def main(argv: Sequence[str] | None = None) -> None:
    """Judge the network in the precision of its run, unless --train.precision says another."""
    cfg, args = parse_args(argv, __doc__, options, default=None)
    with Heartbeat(quiet=cfg.run.progress == "off") as heart:
        heart.at(f"reading {args.checkpoint}")
        network = trained.from_command_line(args.checkpoint, cfg)
        result, part = _judged(network, args, heart)
    out = args.out or _folder_beside(network.path)
    write(result, data.Pictures(part, network.cfg.data.label_field), out)
    why = network.precision.reason
    told = words.fitted(f"{table(result, why)}\n\nin {out}", sys.stdout)
    if sys.stdout.isatty():
        told += "\n" + words.then("export", f"--checkpoint={args.checkpoint}")
    print(json.dumps(result, allow_nan=False) if args.json else told)


def _judged(network: Trained, args: argparse.Namespace, heart: Heartbeat) -> tuple[Judgement, data.Split]:
    splits = data.prepare(network.cfg, heart.at)
    part: data.Split | None = getattr(splits, args.split)
    if part is None:
        raise ValueError(
            "--split=val: this network was trained without a validation split (data.val_fraction is 0)"
        )
    network.check_classes(tuple(splits.class_names), f"the {splits.info['name']} data")
    result: Judgement = {
        **judging.judge(network, part, heart.at),
        "checkpoint": str(args.checkpoint),
        "split": args.split,
        "data": splits.info["name"],
        "digest": splits.info["digest"],
        "synthetic": splits.info["synthetic"],
    }
    return result, part


def write(result: Judgement, images: Pictures, out: Path) -> None:
    """evaluation.json, two confusion matrices (CSV, PNG), the reliability plot, the worst mistakes."""
    files.write_text(out / "evaluation.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    names, confusion = result["class_names"], np.array(result["confusion"])
    shares = metrics.normalised(confusion).round(6)
    for name, values in (("confusion", confusion), ("confusion_normalised", shares)):
        text = io.StringIO()
        rows = [[label, *row] for label, row in zip(names, values.tolist())]
        csv.writer(text).writerows([["true \\ predicted", *names], *rows])
        files.write_text(out / f"{name}.csv", text.getvalue())
        plots.confusion(confusion, names, out / f"{name}.png", shares=name != "confusion")
    plots.reliability(result["calibration"], out / "reliability.png")
    worst = result["worst"]
    if worst:
        plots.image_grid(
            [images[row["index"]] for row in worst],
            [_caption(row, names) for row in worst],
            out / "worst.png",
            title="Most confidently wrong: what it said, how surely, and what it is",
            right=[False] * len(worst),
        )


def table(result: Judgement, reason: str) -> str:
    """The result for people to read; `reason`: why it was computed in its precision."""
    (low, high), ece = result["top1_interval"], result["calibration"]["ece"]
    width = max(16, *(len(name) + 1 for name in result["class_names"]))
    pairs = [f"{' / '.join(pair['classes'])} {pair['mistakes']}" for pair in result["most_confused"][:5]]
    lines = [
        f"{result['data']} {result['split']}, {result['images']:,} images"
        + ("  SYNTHETIC DATA: says nothing about real images" if result["synthetic"] else ""),
        f"in {result['precision']} ({reason})",
        f"top-1  {words.percent(result['top1'])}  (95 % interval {100 * low:.2f} to {100 * high:.2f})",
        f"top-5  {words.percent(result['top5'])}   loss {result['loss']:.4f}   ECE {words.percent(ece)}",
        f"TTA    {'   '.join(_gain(name, row) for name, row in result['tta'].items())}",
        "",
        f"{'class':<{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}",
    ]
    for row in result["per_class"]:
        figures = "".join(f"{100 * share:>10.2f}" for share in (row["precision"], row["recall"], row["f1"]))
        lines.append(f"{row['class']:<{width}}{figures}{row['support']:>10}")
    return "\n".join([*lines, "", f"most confused: {', '.join(pairs)}"] if pairs else lines)


def _gain(tta: str, row: Gain) -> str:
    return f"{tta} {words.percent(row['top1'])} ({100 * row['gain']:+.2f})"


def _caption(row: Mistake, names: Sequence[str]) -> str:
    return f"{names[row['predicted']]} {words.percent(row['confidence'])}\nis {names[row['label']]}"


def _folder_beside(checkpoint: Path) -> Path:
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "evaluation"
