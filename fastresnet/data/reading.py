"""Betons to splits: whole into memory where they fit, else left to be streamed; and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastresnet import beton, sources
from fastresnet.base.digest import Labels, content_digest
from fastresnet.base.pictures import Pixels
from fastresnet.beton import Facts
from fastresnet.data import conversion, jpeg
from fastresnet.data.conversion import HOST_MEMORY_SHARE, Notes
from fastresnet.data.splits import Indices, Split
from fastresnet.machine import memory


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the section `data`, which of its keys were set, what decodes JPEGs, who hears of it."""

    settings: Any
    asked: frozenset[str]
    device: torch.device | None  # a GPU that decodes JPEGs; None: CPU threads do
    notes: Notes

    def stored_as_asked(self, facts: Facts) -> bool:
        """Whether a beton is written in the mode and quality that were asked for, where they were."""
        mode, quality = facts.get("mode"), facts.get("quality")
        other_mode = "write_mode" in self.asked and mode != self.settings.write_mode
        other_quality = (
            "jpeg_quality" in self.asked and mode != "raw" and quality != self.settings.jpeg_quality
        )
        return not other_mode and not other_quality


@dataclass(frozen=True)
class Part:
    """A split and what is known of it."""

    split: Split
    facts: Facts


Found = dict[str, Part]  # by the name of the split


def read_betons(paths: dict[str, Path], wanted: Wanted) -> Found:
    """Both betons, and what their sidecars say, or the images themselves where there is no sidecar."""
    return {split: _read_beton(path, split, wanted) for split, path in paths.items()}


def _read_beton(path: Path, name: str, wanted: Wanted) -> Part:
    known = beton.read_sidecar(path)
    split = _read_split(path, wanted, stream=wanted.settings.loader == "ffcv" and name == "train")
    wanted.notes(f"{name} set read from {path}" + ("" if known else " (no sidecar beside it)"))
    return Part(split, known or _facts_of_bare_beton(path, name, split))


def _read_split(path: Path, wanted: Wanted, stream: bool) -> Split:
    """A beton as a Split: pixels in memory where they are of one size and fit, else left to be streamed."""
    info = beton.inspect(path)
    shape = (info.max_height, info.max_width)
    if stream or not info.uniform or info.nbytes_pixels > HOST_MEMORY_SHARE * memory.free_bytes():
        return Split(None, beton.labels(path), path, None, shape, info.nbytes_pixels)
    images, labels, skipped, decoder = _pixels(path, info, wanted)
    kept = None
    if len(skipped):
        some = ", ".join(map(str, skipped[:8])) + (", …" if len(skipped) > 8 else "")
        wanted.notes(f"{path}: {len(skipped)} images can't be decoded and are left out (samples {some})")
        kept = np.setdiff1d(np.arange(info.num_samples), skipped)
    return Split(images, labels, path, kept, shape, images.nbytes, decoder)


def _pixels(path: Path, info: beton.BetonInfo, wanted: Wanted) -> tuple[Pixels, Labels, Indices, str | None]:
    """Pixels and labels of a beton, the samples left out, and what decoded its JPEGs (None: there are none)."""
    on_error, workers, jpegs = wanted.settings.on_error, wanted.settings.workers, info.modes["jpg"]
    if wanted.device is None or jpegs != info.num_samples or on_error == "skip":
        whole = beton.read_whole(path, threads=workers, on_error=on_error)
        return *whole, "pillow" if jpegs else None
    payloads, size = beton.jpeg_payloads(path), (info.height, info.width)
    decoded, _, decoder = jpeg.decode(payloads, size, wanted.device, threads=workers)
    return decoded.cpu().numpy(), beton.labels(path), np.arange(0), decoder


def _facts_of_bare_beton(path: Path, split: str, part: Split) -> Facts:
    """What can be known of a beton without a sidecar: CIFAR-10 by its digest, else numbers as class names."""

    def images() -> Iterable[Pixels]:
        return beton.each_image(path) if part.images is None else part.images

    digest = content_digest(images(), part.labels)
    mean, std = conversion.statistics(images())
    is_cifar10 = digest == sources.CIFAR10_DIGESTS[split]
    names = sources.CIFAR10_CLASSES if is_cifar10 else sources.numbered(int(part.labels.max(initial=0)) + 1)
    return {
        "name": "cifar10" if is_cifar10 else path.parent.name or "beton",
        "split": split,
        "digest": digest,
        "class_names": list(names),
        "mean": list(mean),
        "std": list(std),
        "count": len(part),
        "source": "beton",
        "synthetic": False,
    }
