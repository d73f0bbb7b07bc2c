"""Hand a trained network to other programs: safetensors, ONNX, torch.export or torchvision's names, and a
model card."""

import argparse
import json
from pathlib import Path

import numpy as np

from fastresnet import data
from fastresnet.base import files
from fastresnet.inference import export, images, model_card, trained
from fastresnet.settings.command_line import parse_args

FORMATS = ("safetensors", "onnx", "torch", "torchvision", "card")
LARGEST = 1e-3  # difference of a logit, relative to the largest, that counts as the same in fp32


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a .pt file, or a run's folder")
    parser.add_argument(
        "--formats",
        default="safetensors,onnx,torch,card",
        metavar="A,B",
        help=f"some of {', '.join(FORMATS)} (default: all but torchvision)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the files go (default: export/ in the run's folder)"
    )
    parser.add_argument(
        "--layout",
        choices=export.LAYOUTS,
        default="nhwc",
        help="of the images that ONNX and torch.export take, uint8 (default: nhwc)",
    )
    parser.add_argument(
        "--check", metavar="FOLDER", help="images to compare the exported files on (default: the test set)"
    )


def main() -> None:
    cfg, args = parse_args(None, __doc__, options, default=None)
    wanted = [name for name in args.formats.split(",") if name]
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise ValueError(f"--formats must name some of {', '.join(FORMATS)}, got {args.formats!r}")
    network = trained.from_command_line(args.checkpoint, cfg)
    run = network.path.parent.parent
    out = Path(args.out) if args.out else run / "export"
    out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        path = write(name, network, out, args.layout, run)
        print(f"{name:<12}{path}  {path.stat().st_size:,} B")
        if path.suffix in (".onnx", ".pt2"):
            compare(network, path, args)


def write(name: str, network: trained.Trained, out: Path, layout: str, run: Path) -> Path:
    try:
        if name == "safetensors":
            return export.to_safetensors(network, out / "model.safetensors")
        if name == "onnx":
            return export.to_onnx(network, out / "model.onnx", layout)
    except ImportError as error:
        raise ValueError(
            f"--formats={name} needs the package {error.name}: pip install 'fastresnet[export]'"
        ) from error
    if name == "torch":
        return export.to_torch_export(network, out / "model.pt2", layout)
    if name == "torchvision":
        return export.to_torchvision(network, out / "torchvision.pth")
    record = json.loads((run / "result.json").read_text("utf-8")) if (run / "result.json").is_file() else None
    files.write_text(out / "README.md", model_card.text(network, record))
    return out / "README.md"


def compare(network: trained.Trained, path: Path, args: argparse.Namespace) -> None:
    """Run the exported file on real images and hold it to the network."""
    try:
        found = export.largest_difference(network, path, some_images(network, args.check), args.layout)
    except ImportError as error:
        print(f"            not checked: {error.name} isn't installed")
        return
    share = found["largest_difference"] / found["largest_logit"]
    print(
        f"            checked on {found['images']} images: logits differ by {share:.1e} of the largest, "
        f"{found['changed_classes']} answers changed"
    )
    if share > LARGEST:
        raise RuntimeError(
            f"{path} gives other answers than the network: largest difference {share:.1e} of a logit"
        )


def some_images(network: trained.Trained, folder: str | None) -> np.ndarray:
    if folder:
        return images.read_all(images.find([folder]), network.image_size)
    test = data.prepare(network.cfg).test.images
    if test is None:
        raise ValueError("the test set isn't held whole: name images to compare on with --check=FOLDER")
    return test[:256]
