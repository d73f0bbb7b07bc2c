"""The splits that a run trains and tests on: what the rest of the program knows of data. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels

Indices = NDArray[np.int64]


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

    def take(self, indices: Indices) -> Split:
        """The part of the split at these places."""
        return replace(
            self,
            images=None if self.images is None else self.images[indices],
            labels=self.labels[indices],
            indices=indices if self.indices is None else self.indices[indices],
            nbytes=self.nbytes * len(indices) // len(self),
        )


@dataclass(frozen=True)
class Splits:
    """What a run trains and tests on. mean and std are the training set's, per channel, in 0..1 units."""

    train: Split
    val: Split | None
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...]
    info: dict[str, Any]  # where the images came from and what was read, for the record
