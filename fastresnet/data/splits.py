"""The splits that a run trains and tests on: what the rest of the program knows of data. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels

Indices = NDArray[np.int64]
RGB = tuple[float, float, float]  # of the channels, in 0..1 units


def rgb(values: Iterable[float]) -> RGB:
    """The three channels' values as plain numbers."""
    red, green, blue = map(float, values)
    return red, green, blue


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (N,H,W,3), None where they must be streamed from `path`; labels int64 (N,)."""

    images: Pixels | None
    labels: Labels
    path: Path | None  # the beton, where there is one
    indices: Indices | None  # this split's samples in the beton, sorted; None: all of them
    image_shape: tuple[int, int]  # (H,W) in px, the largest where sizes differ
    nbytes: int  # of all pixels, decoded
    decoder: str | None = None  # of its JPEGs: pillow, torchvision or torchcodec; None: there are none

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def held(cls, images: Pixels, labels: Labels) -> Split:
        """A split in memory that comes from no beton."""
        return cls(images, labels, None, None, (images.shape[1], images.shape[2]), images.nbytes)

    def take(self, indices: Indices) -> Split:
        """The part of the split at these places."""
        return replace(
            self,
            images=None if self.images is None else self.images[indices],
            labels=self.labels[indices],
            indices=indices if self.indices is None else self.indices[indices],
            nbytes=self.nbytes * len(indices) // len(self),
        )


class Info(TypedDict, total=False):
    """Where the images came from and what was read of them, for the record."""

    name: str
    digest: str  # of the training set as it was read: JPEGs by their stored bytes
    source_digest: str  # of the images that it was made from; the same where none is a JPEG
    test_digest: str  # of the test set as it was read
    checked: str  # which bytes were compared with what
    synthetic: bool
    source: str
    beton: bool
    write_mode: str | None
    jpeg_quality: int | None
    train_size: int
    val_size: int
    test_size: int
    full_train_size: int  # before data.subset and data.val_fraction
    classes: int
    image_shape: list[int]  # (H,W) in px
    decoder: str | None  # of JPEGs
    counted: int  # training images that mean and std are of
    test_drawn: dict[str, float]  # where the source had no test set: fraction, seed, duplicates in training


@dataclass(frozen=True)
class Splits:
    """What a run trains and tests on. mean and std are the training set's, per channel, in 0..1 units."""

    train: Split
    val: Split | None
    test: Split
    mean: RGB
    std: RGB
    class_names: tuple[str, ...]
    info: Info
