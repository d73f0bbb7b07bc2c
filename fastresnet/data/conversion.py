"""From a source to betons: loads both splits, computes what the sidecars say, writes. Decides no source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from fastresnet import beton, sources
from fastresnet.base import files
from fastresnet.base.pictures import Pixels
from fastresnet.base.sinks import for_path
from fastresnet.beton import Facts, Stored
from fastresnet.data.splits import RGB, rgb
from fastresnet.machine import memory
from fastresnet.settings.sections import Data
from fastresnet.sources import SPLITS, FolderSet, ImageSet, Request

HOST_MEMORY_SHARE = 0.5  # a set whose pixels need more of the free memory than this is streamed
CHUNK = 1024  # images counted at a time

Notes = Callable[[str], None]
Sets = dict[str, ImageSet | FolderSet]  # by split


def convert(
    source: str,
    root: str | None,
    settings: Data,
    *,
    out: Path | None = None,
    max_size: int | None = None,
    notes: Notes = lambda line: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, dict[str, Facts]]:
    """Write train.beton and test.beton of a source, each whole or not at all; (their folder, facts by split).

    out:       the folder (None: one under data.betons that is named for the set)
    max_size:  shrink larger images to this longer side, px: another set, with its own name and digest
    progress:  called with (split, done, total)
    """
    origin = sources.origin(source, request_of(settings, root))
    with beton.Writer() as writer:  # imports ffcv while the images are read
        sets = load_both(source, root, settings, notes)
        if max_size is not None:
            sets = {split: images.shrunk(max_size) for split, images in sets.items()}
            origin = {**origin, "max_size": max_size}
        mean, std = statistics(sets["train"].pixels)
        stored: Stored = {"mode": settings.write_mode, "quality": settings.jpeg_quality, "origin": origin}
        folder = out or Path(settings.betons) / _folder_name(sets["train"], stored)
        facts: dict[str, Facts] = {}
        with files.locked(folder, lambda: notes(f"waiting for another conversion into {folder}")):
            files.remove_left(folder)
            for split, images in sets.items():
                facts[split] = {**facts_of(images, mean, std), **stored}
                notes(f"writing {len(images)} images to {folder / split}.beton ({settings.write_mode})")
                writer.write(
                    folder / f"{split}.beton",
                    images.pixels,
                    images.labels,
                    mode=settings.write_mode,
                    quality=settings.jpeg_quality,
                    workers=settings.workers,
                    sidecar=facts[split],
                    progress=partial(progress, split) if progress else None,
                )
    return folder, facts


def _folder_name(images: ImageSet | FolderSet, stored: Stored) -> str:
    """Known sets by their names, others with a mark of their origin; lossy ones by mode and quality."""
    mark = hashlib.sha256(repr({**stored["origin"], "files": ""}).encode()).hexdigest()[:6]
    name = images.name if images.name in sources.COUNTS else f"{images.name}-{mark}"
    return for_path(name if stored["mode"] == "raw" else f"{name}-{stored['mode']}{stored['quality']}")


def request_of(settings: Data, root: str | None) -> Request:
    """What the section `data` asks of a source."""
    return Request(
        root=None if root is None else Path(root),
        name=settings.name,
        counts={"train": settings.synthetic_train, "test": settings.synthetic_test},
        size=settings.synthetic_size,
        image_size=settings.image_size,
        test_fraction=settings.test_fraction,
        workers=settings.workers,
        on_error=settings.on_error,
        memory=int(HOST_MEMORY_SHARE * memory.free_bytes()),
    )


def load_both(source: str, root: str | None, settings: Data, notes: Notes) -> Sets:
    """Training and test set of a source; their classes must be the same."""
    notes(f"reading {source}" + (f" from {root}" if root else ""))
    request = request_of(settings, root)
    sets = {split: sources.load(source, split, request) for split in SPLITS}
    names = sources.shared_class_names(sets["train"].class_names, sets["test"].class_names)
    return {split: images.renamed(images.name, names) for split, images in sets.items()}


def facts_of(images: ImageSet | FolderSet, mean: Iterable[float], std: Iterable[float]) -> Facts:
    """What goes beside a beton made from this set; mean and std are those of the training set."""
    facts: Facts = {
        "name": images.name,
        "split": images.split,
        "digest": images.digest,
        "stored_digest": images.digest,
        "class_names": list(images.class_names),
        "mean": list(mean),
        "std": list(std),
        "count": len(images),
        "source": images.source,
        "synthetic": images.synthetic,
    }
    return {**facts, "test_drawn": images.test_drawn} if images.test_drawn else facts


def statistics(images: Pixels | Iterable[Pixels]) -> tuple[RGB, RGB]:
    """(mean, standard deviation) of each channel over all pixels, in 0..1 units; exact: counts of values.

    The deviation of a channel that is the same everywhere counts as 1: normalised it is 0, not nan.
    """
    counts = np.zeros((3, 256), np.int64)
    if isinstance(images, np.ndarray):
        images = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    for chunk in images:
        for channel in range(3):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    varies = np.count_nonzero(counts, axis=1) > 1
    return rgb(mean), rgb(np.where(varies, std, 1.0))
