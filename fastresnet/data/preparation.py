"""From settings to data: finds or makes the betons, reads them, cuts off subset and validation. Trains
nothing.

Where the images came from is in `info`, for the record. Synthetic images never stand in for real ones
unasked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastresnet import beton, sources
from fastresnet.data import conversion, jpeg
from fastresnet.machine import memory
from fastresnet.sources.sets import SPLITS, FolderSet, ImageSet, SourceError

Notes = Callable[[str], None]
SPLIT_SEED = 0  # of subset and validation split: the same images whatever run.seed is, so that runs compare
HOST_MEMORY_SHARE = 0.5  # a set whose pixels need more of the free memory than this is streamed
BANNER = """\
**************************************************************************
*  SYNTHETIC DATA: these are drawn shapes, not the data set named in the  *
*  settings. Accuracies on them say nothing about CIFAR-10.               *
**************************************************************************"""


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (N,H,W,3), None where they must be streamed from `path`; labels int64 (N,)."""

    images: np.ndarray | None
    labels: np.ndarray
    path: Path | None  # the beton, where there is one
    indices: np.ndarray | None  # this split's samples in the beton, sorted; None: all of them
    image_shape: tuple[int, int]  # (H,W) in px, the largest where sizes differ
    nbytes: int  # of all pixels, decoded
    decoder: str | None = None  # of its JPEGs: pillow, torchvision or torchcodec; None: there are none

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """What a run trains and tests on. mean and std are the training set's, per channel, in 0..1 units."""

    train: Split
    val: Split | None
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...]
    info: dict[str, Any]


def prepare(cfg: Any, progress: Notes | None = None) -> Splits:
    """The data that `cfg.data` describes, converted to betons first where there are none yet.

    progress is called with one line for each choice and step. ValueError (SourceError, BetonError) where
    data is missing or wrong.
    """
    notes = progress or (lambda line: None)
    settings = _Asked(cfg.data, device=_decoding_device(cfg))
    mode_is_asked = cfg.provenance.get("data.write_mode", "default") != "default"
    parts, facts = _given_betons(settings, notes) or _find(
        settings, settings.write_mode if mode_is_asked else "", notes
    )
    if facts["train"]["synthetic"]:
        print(BANNER, file=sys.stderr, flush=True)
    class_names = _check_agree(parts, facts)
    train, val = _cut(parts["train"], settings)
    first = facts["train"]
    info = {
        "name": first["name"],
        "digest": first["digest"],
        "test_digest": facts["test"]["digest"],
        "synthetic": first["synthetic"],
        "source": first["source"],
        "beton": parts["train"].path is not None,
        "train_size": len(train),
        "val_size": len(val) if val else 0,
        "test_size": len(parts["test"]),
        "full_train_size": len(parts["train"]),
        "classes": len(class_names),
        "image_shape": list(train.image_shape),
        "decoder": parts["train"].decoder,
    }
    notes(
        f"data: {info['name']} ({info['source']}), {len(train)} training"
        + (f", {len(val)} validation" if val else "")
        + f" and {info['test_size']} test images"
    )
    return Splits(train, val, parts["test"], _triple(first["mean"]), _triple(first["std"]), class_names, info)


def _decoding_device(cfg: Any) -> torch.device | None:
    """The GPU, where the run may use one; None: JPEGs are decoded by CPU threads."""
    return torch.device("cuda") if cfg.run.device != "cpu" and torch.cuda.is_available() else None


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _check_agree(parts: dict[str, Split], facts: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The class names of both sets, which must agree, as must the labels; real and synthetic images don't
    mix."""
    train, test = facts["train"], facts["test"]
    if train["synthetic"] != test["synthetic"]:
        raise SourceError("one of training and test set is synthetic, the other is not")
    names = sources.shared_class_names(train["class_names"], test["class_names"])
    for split, part in parts.items():
        sources.check_labels(f"{split} set", part.labels, len(names))
    return names


def _cut(whole: Split, settings: Any) -> tuple[Split, Split | None]:
    """The training split after data.subset, and the validation split held out of it."""
    keep = np.arange(len(whole))
    if settings.subset is not None:
        keep = sources.stratified_subset(whole.labels, settings.subset, SPLIT_SEED)
    if not settings.val_fraction:
        return (whole if len(keep) == len(whole) else _take(whole, keep)), None
    train, held = sources.split_validation(whole.labels[keep], settings.val_fraction, SPLIT_SEED)
    if not len(train):
        raise SourceError(
            f"data.val_fraction={settings.val_fraction:g} of {len(keep)} images leaves none for training"
        )
    return _take(whole, keep[train]), _take(whole, keep[held])


def _take(whole: Split, indices: np.ndarray) -> Split:
    images = None if whole.images is None else whole.images[indices]
    in_beton = indices if whole.indices is None else whole.indices[indices]
    return Split(
        images,
        whole.labels[indices],
        whole.path,
        in_beton,
        whole.image_shape,
        whole.nbytes * len(indices) // len(whole),
        whole.decoder,
    )


# Finding ---------------------------------------------------------------------------------------------

Found = tuple[dict[str, Split], dict[str, dict[str, Any]]]  # by split: the data, and the facts about it


def _given_betons(settings: Any, notes: Notes) -> Found | None:
    """The betons that data.train and data.test name, if they do."""
    if settings.train is None or settings.test is None:
        return None
    return _read_betons({"train": Path(settings.train), "test": Path(settings.test)}, settings, notes)


def _find(settings: Any, mode: str, notes: Notes) -> Found:
    """Betons made before that fit the settings, else the source, converted where ffcv is there."""
    source, root = settings.source, settings.root
    if source == "auto":
        if root is None:
            ready = _converted(settings, lambda facts: bool(facts["name"] == settings.name), mode, notes)
            if ready:
                return _read_betons(ready, settings, notes)
        source, folder = sources.resolve_auto(settings.name, root)
        if source == "betons":
            return _read_betons({split: folder / f"{split}.beton" for split in SPLITS}, settings, notes)
        root = str(folder)
    origin = conversion.origin_of(source, root, settings)
    ready = _converted(settings, lambda facts: bool(facts.get("origin") == origin), mode, notes)
    if ready:
        return _read_betons(ready, settings, notes)
    try:
        return _from_source(source, root, settings, notes)
    except ValueError as error:
        if not (settings.source == "auto" and source == "torchvision" and settings.allow_synthetic):
            raise
        notes(f"{error}; data.allow_synthetic=true: a synthetic set stands in")
        return _find(_Asked(settings, source="synthetic", root=None), "", notes)


class _Asked:
    """The section `data` of the settings with some of them changed, and the device that decodes JPEGs."""

    def __init__(self, settings: Any, **changes: Any) -> None:
        self.__dict__.update(changes, _settings=settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)


def _converted(
    settings: Any, fits: Callable[[dict[str, Any]], bool], mode: str, notes: Notes
) -> dict[str, Path] | None:
    """Betons under data.betons whose sidecars fit, written in `mode` ("": any); broken ones are told of and
    passed over."""
    for first in sorted(Path(settings.betons).glob("*/train.beton.json")):
        paths = {split: first.parent / f"{split}.beton" for split in SPLITS}
        try:
            facts = [beton.read_sidecar(path) for path in paths.values()]
        except beton.BetonError as error:
            notes(f"not used: {error}")
            continue
        if all(fact is not None and fits(fact) and mode in ("", fact.get("mode")) for fact in facts):
            return paths
    return None


# Reading ---------------------------------------------------------------------------------------------


def _read_betons(paths: dict[str, Path], settings: Any, notes: Notes) -> Found:
    """Both betons, and what their sidecars say, or the images themselves where there is no sidecar."""
    parts: dict[str, Split] = {}
    facts: dict[str, dict[str, Any]] = {}
    for split, path in paths.items():
        known = beton.read_sidecar(path)
        parts[split] = _read_split(
            path, settings, stream=settings.loader == "ffcv" and split == "train", notes=notes
        )
        facts[split] = known or _facts_of_bare_beton(path, split, parts[split])
        notes(f"{split} set read from {path}" + ("" if known else " (no sidecar beside it)"))
    return parts, facts


def _read_split(path: Path, settings: Any, stream: bool, notes: Notes) -> Split:
    """A beton as a Split: pixels in memory where they are of one size and fit, else left to be streamed."""
    info = beton.inspect(path)
    shape = (info.max_height, info.max_width)
    if stream or not info.uniform or info.nbytes_pixels > HOST_MEMORY_SHARE * memory.free_bytes():
        return Split(None, beton.labels(path), path, None, shape, info.nbytes_pixels)
    if settings.on_error == "raise":
        images, labels, decoder = _decoded(path, info, settings)
        return Split(images, labels, path, None, shape, images.nbytes, decoder)
    images, labels, skipped = beton.read(path, threads=settings.workers, on_error="skip")
    decoder = "pillow" if info.modes.get("jpg") else None
    if not len(skipped):
        return Split(images, labels, path, None, shape, images.nbytes, decoder)
    notes(f"{path}: {len(skipped)} images can't be decoded and are left out (samples {_some(skipped)})")
    kept = np.setdiff1d(np.arange(info.num_samples), skipped)
    return Split(images, labels, path, kept, shape, images.nbytes, decoder)


def _decoded(path: Path, info: beton.BetonInfo, settings: Any) -> tuple[np.ndarray, np.ndarray, str | None]:
    """All pixels and labels of a beton, and what decoded its JPEGs: the GPU where there is one, else CPU
    threads."""
    device = getattr(settings, "device", None)
    if device is None or info.modes.get("jpg") != info.num_samples:
        images, labels = beton.read(path, threads=settings.workers)
        return images, labels, "pillow" if info.modes.get("jpg") else None
    pixels, _, decoder = jpeg.decode(
        beton.jpeg_payloads(path), (info.height, info.width), device, threads=settings.workers
    )
    return pixels.cpu().numpy(), beton.labels(path), decoder


def _some(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")


def _facts_of_bare_beton(path: Path, split: str, part: Split) -> dict[str, Any]:
    """What can be known of a beton without a sidecar: CIFAR-10 by its digest, else numbers as class names."""
    images = beton.each_image if part.images is None else (lambda path: part.images)
    digest = sources.content_digest(images(path), part.labels)
    mean, std = conversion.statistics(images(path))
    is_cifar10 = digest == sources.CIFAR10_DIGESTS[split]
    names = (
        sources.CIFAR10_CLASSES if is_cifar10 else tuple(map(str, range(int(part.labels.max(initial=0)) + 1)))
    )
    return {
        "name": "cifar10" if is_cifar10 else path.parent.name or "beton",
        "split": split,
        "digest": digest,
        "class_names": list(names),
        "mean": list(mean),
        "std": list(std),
        "source": "beton",
        "synthetic": False,
    }


def _from_source(source: str, root: str | None, settings: Any, notes: Notes) -> Found:
    """Read the source, and convert it to betons where ffcv is installed; else use its images as they are."""
    if not beton.can_write():
        notes(f"ffcv is not installed, so no beton is written: reading straight from {source} each time")
        sets = conversion.load_both(source, root, settings, notes)
        return _without_betons(sets)
    folder, facts = conversion.convert(source, root, settings, notes=notes)
    return _read_betons({split: folder / f"{split}.beton" for split in SPLITS}, settings, notes)


def _without_betons(sets: dict[str, ImageSet | FolderSet]) -> Found:
    parts: dict[str, Split] = {}
    for split, images in sets.items():
        if isinstance(images, FolderSet):
            raise SourceError(
                "images of several sizes are streamed from a beton, and writing one needs ffcv: run"
                " scripts/setup.sh"
            )
        shape = (images.images.shape[1], images.images.shape[2])
        parts[split] = Split(images.images, images.labels, None, None, shape, images.images.nbytes)
    mean, std = conversion.statistics(sets["train"].pixels)
    return parts, {split: conversion.facts_of(images, mean, std) for split, images in sets.items()}
