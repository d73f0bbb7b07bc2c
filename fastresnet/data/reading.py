"""Betons to splits: whole into memory where they fit, else left to be streamed; and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import fastresnet.data.jpeg as jpeg
from fastresnet import beton, sources
from fastresnet.base.digest import Labels, content_digest
from fastresnet.base.pictures import Pixels
from fastresnet.base.sinks import for_terminal
from fastresnet.beton import Facts, Layout, PageCheck
from fastresnet.beton.layout import RAW
from fastresnet.data.conversion import HOST_MEMORY_SHARE, Notes, statistics
from fastresnet.data.splits import Indices, Split
from fastresnet.machine import memory
from fastresnet.settings.sections import Data


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the section `data`, which keys were set, what decodes JPEGs, who hears of it."""

    settings: Data
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
    """A split, what is known of it, and which of its bytes were compared with what."""

    split: Split
    facts: Facts
    checked: str
    layout: Layout | None = None  # of the beton, where there is one


Found = dict[str, Part]  # by the name of the split


def read_betons(paths: dict[str, Path], wanted: Wanted) -> Found:
    """Both betons, and what their sidecars say, or the images themselves where there is no sidecar."""
    return {split: _read_beton(path, split, wanted) for split, path in paths.items()}


def _read_beton(path: Path, name: str, wanted: Wanted) -> Part:
    layout = beton.open_beton(path, wanted.settings.label_field)
    beside = beton.read_sidecar(layout)
    facts, check = beside if beside else (None, None)
    split = _read_split(layout, wanted, check, stream=wanted.settings.loader == "ffcv" and name == "train")
    wanted.notes(f"{name} set read from {path}" + ("" if facts else " (no sidecar beside it)"))
    if facts is None:
        return Part(split, _facts_of_bare_beton(layout, name, split), "all bytes, hashed as read", layout)
    _check_name(layout, facts, split)
    if split.images is None:
        return Part(split, facts, "each page when it is first read, with the checksums beside it", layout)
    return Part(split, facts, "all bytes, with the checksums beside them", layout)


def _check_name(layout: Layout, facts: Facts, split: Split) -> None:
    """BetonError where a set is called cifar10 and isn't: pixels in memory are hashed for that name."""
    if facts["name"] != "cifar10":
        return
    if facts["digest"] not in sources.CIFAR10_DIGESTS.values():
        raise beton.BetonError(f"{layout.path} is called cifar10, and its digest isn't CIFAR-10's")
    if split.images is not None and split.indices is None and (layout.modes == RAW).all():
        beton.check_digests(layout, facts, content_digest(split.images, split.labels))


def _read_split(layout: Layout, wanted: Wanted, check: PageCheck | None, stream: bool) -> Split:
    """A beton as a Split: pixels in memory where they are of the size wanted and fit, else to be streamed."""
    path, shape, px = layout.path, layout.largest, wanted.settings.image_size
    streams = stream or not layout.uniform or bool(px and shape != (px, px))
    if streams or layout.nbytes_pixels > HOST_MEMORY_SHARE * memory.free_bytes():
        return Split(None, layout.labels, path, None, shape, layout.nbytes_pixels)
    images, labels, skipped, decoder = _pixels(layout, check, wanted)
    kept = None
    if len(skipped):
        some = ", ".join(map(str, skipped[:8])) + (", …" if len(skipped) > 8 else "")
        wanted.notes(f"{path}: {len(skipped)} images can't be decoded and are left out (samples {some})")
        kept = np.setdiff1d(np.arange(len(layout)), skipped)
    return Split(images, labels, path, kept, shape, images.nbytes, decoder)


def _pixels(
    layout: Layout, check: PageCheck | None, wanted: Wanted
) -> tuple[Pixels, Labels, Indices, str | None]:
    """Pixels and labels of a beton, the samples left out, and what decoded its JPEGs (None: it has none)."""
    on_error, workers = wanted.settings.on_error, wanted.settings.workers
    jpegs = layout.stored_as["jpg"]
    decoder = None if wanted.device is None else jpeg.decoder()
    if wanted.device is None or decoder is None or jpegs != len(layout) or on_error == "skip":
        whole = beton.read_whole(layout, check, threads=workers, on_error=on_error)
        return *whole, "pillow" if jpegs else None
    size = int(layout.heights[0]), int(layout.widths[0])
    payloads = beton.jpeg_payloads(layout, check, threads=workers)
    decoded = jpeg.decode(payloads, size, wanted.device, decoder)
    return decoded.numpy(), layout.labels, np.arange(0), decoder


def _facts_of_bare_beton(layout: Layout, split: str, part: Split) -> Facts:
    """What can be known of a beton without a sidecar: CIFAR-10 by its digest, else numbers as class names."""
    digest = beton.stored_digest(layout)
    mean, std = statistics(beton.each_image(layout) if part.images is None else part.images)
    is_cifar10 = digest == sources.CIFAR10_DIGESTS[split]
    classes = int(part.labels.max(initial=0)) + 1
    names = sources.CIFAR10_CLASSES if is_cifar10 else sources.numbered(classes, str(layout.path))
    return {
        "name": "cifar10" if is_cifar10 else for_terminal(layout.path.parent.name) or "beton",
        "split": split,
        "digest": digest,
        "stored_digest": digest,
        "class_names": list(names),
        "mean": list(mean),
        "std": list(std),
        "count": len(part),
        "source": "beton",
        "synthetic": False,
    }


class Pictures:
    """The images of a split one at a time, as stored: `pictures[place]` is uint8 (H,W,3)."""

    def __init__(self, part: Split, label_field: str | None = None) -> None:
        self.part, self.label_field = part, label_field

    def __getitem__(self, place: int) -> Pixels:
        if self.part.images is not None:
            return self.part.images[place]
        indices = self.part.indices
        return beton.read_one(self._layout, place if indices is None else int(indices[place]))

    @cached_property
    def _layout(self) -> Layout:
        assert self.part.path is not None, "what isn't in memory lies in a beton"
        return beton.open_beton(self.part.path, self.label_field)
