"""From a source to betons: loads both splits, computes what the sidecars say, writes. Decides no source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastresnet import beton, sources
from fastresnet.sources.sets import SPLITS, FolderSet, ImageSet, SourceError

Notes = Callable[[str], None]
Sets = dict[str, "ImageSet | FolderSet"]  # by split


def convert(
    source: str,
    root: str | None,
    settings: Any,
    *,
    out: Path | None = None,
    max_size: int | None = None,
    notes: Notes = lambda line: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write train.beton and test.beton of a source, each whole or not at all; (their folder, facts by split).

    out: the folder (None: one under data.betons that is named for the set); max_size: shrink larger images to
    this longer side, px; progress(split, done, total).
    """
    origin = origin_of(source, root, settings)
    with beton.Writer() as writer:  # imports ffcv while the images are read
        sets = load_both(source, root, settings, notes)
        train = sets["train"]
        mean, std = statistics(train.pixels)
        folder = out or Path(settings.betons) / _folder_name(train, origin)
        facts: dict[str, dict[str, Any]] = {}
        for split, images in sets.items():
            facts[split] = {
                **facts_of(images, mean, std),
                "mode": settings.write_mode,
                "quality": settings.jpeg_quality,
                "origin": origin,
            }
            notes(f"writing {len(images)} images to {folder / split}.beton ({settings.write_mode})")
            writer.write(
                folder / f"{split}.beton",
                images.pixels,
                images.labels,
                mode=settings.write_mode,
                quality=settings.jpeg_quality,
                max_size=max_size,
                workers=settings.workers,
                sidecar=facts[split],
                progress=partial(progress, split) if progress else None,
            )
    return folder, facts


def _folder_name(images: ImageSet | FolderSet, origin: dict[str, Any]) -> str:
    """cifar10 and other known sets by their names; anything else with a mark of its origin, so that no two
    meet."""
    known = {name for name, _ in sources.COUNTS}
    mark = hashlib.sha256(repr({**origin, "files": ""}).encode()).hexdigest()[:6]
    return images.name if images.name in known else f"{images.name}-{mark}"


def load_both(source: str, root: str | None, settings: Any, notes: Notes) -> Sets:
    """Training and test set of a source; their classes must be the same."""
    counts = {"train": settings.synthetic_train, "test": settings.synthetic_test}
    notes(f"reading {source}" + (f" from {root}" if root else ""))
    sets = {
        split: sources.load(
            source,
            split,
            root=root,
            name=settings.name,
            count=counts[split],
            size=settings.synthetic_size,
            image_size=settings.image_size,
            workers=settings.workers,
            on_error=settings.on_error,
        )
        for split in SPLITS
    }
    names = sources.shared_class_names(sets["train"].class_names, sets["test"].class_names)
    return {split: replace(images, class_names=names) for split, images in sets.items()}


def facts_of(images: ImageSet | FolderSet, mean: Iterable[float], std: Iterable[float]) -> dict[str, Any]:
    """What goes beside a beton made from this set; mean and std are those of the training set."""
    return {
        "name": images.name,
        "split": images.split,
        "digest": sources.content_digest(images.pixels, images.labels),
        "class_names": list(images.class_names),
        "mean": list(mean),
        "std": list(std),
        "count": len(images),
        "source": images.source,
        "synthetic": images.synthetic,
    }


def statistics(images: np.ndarray | Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) of each channel over all pixels, in 0..1 units, exact: from counts of the
    256 values."""
    counts = np.zeros((3, 256), np.int64)
    chunks = (
        (images[i : i + 1024] for i in range(0, len(images), 1024))
        if isinstance(images, np.ndarray)
        else images
    )
    for chunk in chunks:
        for channel in range(3):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / total
    return tuple(map(float, mean)), tuple(
        map(float, np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0)))
    )


def origin_of(source: str, root: str | None, settings: Any) -> dict[str, Any]:
    """What identifies the input of a conversion: betons made from the same origin can be used again."""
    if source == "synthetic":
        return {
            "source": source,
            "train": settings.synthetic_train,
            "test": settings.synthetic_test,
            "size": settings.synthetic_size,
        }
    if source == "torchvision":
        return {"source": source, "name": settings.name}
    if root is None or not Path(root).is_dir():
        raise SourceError(f"data.source={source} needs data.root, the folder of its files; got {root}")
    return {
        "source": source,
        "root": str(Path(root).resolve()),
        "files": sources.fingerprint(source, Path(root)),
    }
