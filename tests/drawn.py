"""A drawn data set in memory: what data.prepare gives, without files."""

from __future__ import annotations

from fastresnet import data
from fastresnet.sources import synthetic


def splits(train: int = 64, test: int = 32, size: int = 32) -> data.Splits:
    """Splits of the synthetic set, `train` and `test` images of `size` px."""
    return data.Splits(
        train=_split("train", train, size),
        val=None,
        test=_split("test", test, size),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        class_names=tuple(str(k) for k in range(10)),
        info={"name": "drawn", "digest": None, "synthetic": True, "train_size": train, "test_size": test},
    )


def _split(name: str, count: int, size: int) -> data.Split:
    images, labels = synthetic.draw(name, count, size)
    return data.Split(images, labels, None, None, (size, size), images.nbytes)
