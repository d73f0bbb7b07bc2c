"""Drawn data sets without ffcv: what data.prepare gives, in memory; and betons that training finds."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import betons_by_hand
import numpy as np

from fastresnet import data
from fastresnet.settings import config
from fastresnet.sources import synthetic


def splits(train: int = 64, test: int = 32, size: int = 32) -> data.Splits:
    """Splits of the synthetic set, `train` and `test` images of `size` px."""
    half, quarter, names = (0.5,) * 3, (0.25,) * 3, tuple(map(str, range(10)))
    info = {"name": "drawn", "digest": None, "synthetic": True, "train_size": train, "test_size": test}
    rest = half, quarter, names, info
    return data.Splits(_split("train", train, size), None, _split("test", test, size), *rest)


def _split(name: str, count: int, size: int) -> data.Split:
    images, labels = synthetic.draw(name, count, size)
    return data.Split(images, labels, None, None, (size, size), images.nbytes)


class Writer:
    """Stands in for `beton.Writer`: betons made by hand, without the seconds that ffcv takes to start."""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def write(self, path: Path, images: np.ndarray, labels: np.ndarray, *, sidecar: dict, **how: object):
        betons_by_hand.make(path, list(images), labels.tolist())
        betons_by_hand.beside(path, sidecar)


def betons(changes: dict) -> None:
    """Convert the set of `smoke.yaml` with these settings, so that every run with them finds its betons."""
    writer = mock.patch("fastresnet.beton.Writer", Writer)
    with writer, mock.patch("fastresnet.beton.can_write", lambda: True):
        data.prepare(config.load("smoke.yaml", changes))
