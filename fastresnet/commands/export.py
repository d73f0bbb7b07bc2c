"""Hand a network to other programs: safetensors, ONNX, torch.export, torchvision's names, a model card."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fastresnet import data
from fastresnet.base import files, words
from fastresnet.base.pictures import Pixels
from fastresnet.inference import export, images, model_card, trained
from fastresnet.inference.trained import Trained
from fastresnet.runs import record
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings.command_line import parse_args

LARGEST = 1e-3  # difference of a logit, relative to the largest, that counts as the same in fp32
CHECKED = 256  # images of the test set that exported files are compared on
NEEDS = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript")}  # the extra `export`
Writer = Callable[[Trained, Path, str], Path]


def _card(network: Trained, out: Path, layout: str) -> Path:
    stored = network.path.parent.parent / "result.json"
    result = record.read(stored, "result") if stored.is_file() else None
    return files.write_text(out / "README.md", model_card.text(network, result))


FORMATS: dict[str, Writer] = {  # the network, a folder and the layout of images -> the file
    "safetensors": lambda network, out, layout: export.to_safetensors(network, out / "model.safetensors"),
    "onnx": lambda network, out, layout: export.to_onnx(network, out / "model.onnx", layout),
    "torch": lambda network, out, layout: export.to_torch_export(network, out / "model.pt2", layout),
    "torchvision": lambda network, out, layout: export.to_torchvision(network, out / "torchvision.pth"),
    "card": _card,
}


def options(parser: argparse.ArgumentParser) -> None:
    """What this command takes beside the settings."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    which = f"some of {', '.join(FORMATS)} (default: all but torchvision)"
    add("--formats", default="safetensors,onnx,torch,card", metavar="A,B", help=which)
    where = "where the files go (default: export/ in the run's folder)"
    add("--out", type=Path, metavar="FOLDER", help=where)
    what = "of the images that ONNX and torch.export take, uint8 (default: nhwc)"
    add("--layout", choices=export.LAYOUTS, default="nhwc", help=what)
    compared = "images to compare the exported files on (default: the test set)"
    add("--check", metavar="FOLDER", help=compared)


def main(argv: Sequence[str] | None = None) -> None:
    """Write each format, and hold those that can be run here to the network."""
    cfg, args = parse_args(argv, __doc__, options, default=None)
    wanted = [name for name in args.formats.split(",") if name]
    if not wanted or set(wanted) - set(FORMATS):
        raise ValueError(f"--formats must name some of {', '.join(FORMATS)}, got {args.formats!r}")
    _check_needs(wanted)
    with Heartbeat(quiet=cfg.run.progress == "off") as heart:
        heart.at(f"reading {args.checkpoint}")
        network = trained.from_command_line(args.checkpoint, cfg)
        out = args.out or network.path.parent.parent / "export"
        out.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            heart.at(f"{name}: writing and checking")
            write(network, name, out, args)
    if sys.stdout.isatty() and "card" in wanted:
        print(
            words.fitted(f"{words.NEXT}{out / 'README.md'} says what goes in and what comes out", sys.stdout)
        )


def _check_needs(wanted: Sequence[str]) -> None:
    """Raises ValueError where the package that a format needs isn't there."""
    for name in wanted:
        missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
        if missing:
            packages = " ".join(missing)
            raise ValueError(f"--formats={name} needs a package that isn't here: pip install {packages}")


def write(network: Trained, name: str, out: Path, args: argparse.Namespace) -> None:
    """One format."""
    path = FORMATS[name](network, out, args.layout)
    print(words.fitted(f"{name:<12}{path}  {words.size(path.stat().st_size)}", sys.stdout))
    if path.suffix in (".onnx", ".pt2"):
        compare(network, path, args)


def compare(network: Trained, path: Path, args: argparse.Namespace) -> None:
    """Run the exported file on real images; RuntimeError where it answers otherwise than the network."""
    try:
        found = export.largest_difference(network, path, some_images(network, args.check), args.layout)
    except ImportError as error:
        print(f"            not checked: {error.name} isn't installed")
        return
    share = found["largest_difference"] / found["largest_logit"]
    told = f"checked on {found['images']} images: logits differ by {share:.1e} of the largest, "
    told += f"{found['changed_classes']} answers changed"
    print(words.fitted(f"{'':12}{told}", sys.stdout))
    if share > LARGEST:
        raise RuntimeError(
            f"{path} gives other answers than the network: largest difference {share:.1e} of a logit"
        )


def some_images(network: Trained, folder: str | None) -> Pixels:
    """The images of a folder, or some of the test set."""
    if folder:
        return images.read_all(images.find([folder]), network.image_size)
    test = data.prepare(network.cfg).test
    if test.images is not None:
        return test.images[:CHECKED]
    stored, places = data.Pictures(test, network.cfg.data.label_field), range(min(CHECKED, len(test)))
    size = network.image_size
    return np.stack([images.fitted(stored[place], size, f"test image {place}") for place in places])
