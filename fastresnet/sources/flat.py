"""A folder of classes alone, <class>/*.jpg: which images are the test set, and how many training has too.

An image's place follows from its name, so that one more or one less moves hardly any other. Decodes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastresnet.base import pictures
from fastresnet.base.digest import Labels
from fastresnet.sources.image_set import SPLIT_ALIASES, SourceError

SEED = 0  # the same images whatever run.seed is, so that runs compare


def classes(folder: Path) -> list[Path]:
    """Its visible folders, sorted; none where one is called like a split (train, test, val, …)."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    split_names = {alias for aliases in SPLIT_ALIASES.values() for alias in aliases}
    return [] if split_names & {path.name for path in inside} else inside


def holds_classes(folder: Path) -> bool:
    """Whether its folders are two or more, each with images right in it: by names, for data.source=auto."""
    inside = classes(folder)
    return len(inside) > 1 and all(map(_holds_pictures, inside))


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in pictures.ENDINGS for path in folder.iterdir())


def held_out(folder: Path, paths: Sequence[Path], labels: Labels, fraction: float) -> NDArray[np.bool_]:
    """Which of the images are the test set: of each class that share, rounded, but neither none nor all.

    SourceError where there is but one class, or one image of a class.
    """
    kinds, counts = np.unique(labels, return_counts=True)
    if len(kinds) < 2:
        raise SourceError(f"{folder} holds one folder of images; a folder a class was expected, two or more")
    marks = np.array([_mark(path.relative_to(folder)) for path in paths])
    chosen = np.zeros(len(paths), bool)
    for kind, count in zip(kinds, counts.tolist()):
        places = np.flatnonzero(labels == kind)
        if count < 2:
            raise SourceError(f"{paths[places[0]]} is alone in its class: training and test need one each")
        number = min(count - 1, max(1, round(fraction * count)))
        chosen[places[np.argsort(marks[places], kind="stable")[:number]]] = True
    return chosen


def _mark(name: Path) -> int:
    """A number that the seed and the name give: those with the least are the test set."""
    return int.from_bytes(hashlib.sha256(os.fsencode(f"{SEED}/{name.as_posix()}")).digest()[:7], "big")


def duplicates(train: Sequence[Path], test: Sequence[Path]) -> int:
    """How many of the test files are in training too, byte for byte; files of one size alone are read."""
    sizes = _sizes(train) & _sizes(test)
    seen = {_digest(path) for path in train if path.is_file() and path.stat().st_size in sizes}
    return sum(_digest(path) in seen for path in test if path.is_file() and path.stat().st_size in sizes)


def _sizes(paths: Sequence[Path]) -> set[int]:
    return {path.stat().st_size for path in paths if path.is_file()}


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
