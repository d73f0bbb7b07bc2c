"""A caller's own images as splits: tensors, arrays or datasets, read whole and checked. Opens no file."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

import numpy as np
import torch

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels
from fastresnet.data.finding import without_betons
from fastresnet.data.preparation import cut_up
from fastresnet.data.splits import Splits
from fastresnet.sources import SPLITS, ImageSet, SourceError, numbered, shared_class_names

NAME = "given"  # of the set in records, beside its digest


def splits_of(given: object, subset: float | None = None, val_fraction: float = 0.0) -> Splits:
    """Splits of a pair (training set, test set).

    given:  each set is (images, labels), or a Dataset of (image, label) with a length, as torchvision's are.
            Images: uint8, or floating point in 0..1, (N,H,W,3), (N,3,H,W) or grey (N,H,W), array or tensor;
            a Dataset's may also be pictures of Pillow. Labels: whole numbers from 0. All are of one size.
    subset, val_fraction:  as data.subset and data.val_fraction
    Raises SourceError, in one line, for anything else.
    """
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise SourceError(f"data must be a pair (training set, test set), got {_kind(given)}")
    found = [_read_set(one, f"data: the {split} set") for split, one in zip(("training", "test"), given)]
    highest = max(int(labels.max(initial=0)) for _, labels, _ in found)
    names = max((names for _, _, names in found), key=len) or numbered(highest + 1, "data")
    shared_class_names(*(own or names for _, _, own in found))
    sets = {
        split: ImageSet(images, labels, names, NAME, split, "the caller")
        for split, (images, labels, _) in zip(SPLITS, found)
    }
    shapes = [one.images.shape[1:3] for one in sets.values()]
    if shapes[0] != shapes[1]:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise SourceError(f"data: training and test images differ in size: {sizes} px")
    return cut_up(without_betons(sets), subset, val_fraction, lambda line: None)


def _read_set(given: object, what: str) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """Images, labels and the classes' names, none where the set knows none."""
    if _is_dataset(given):
        return *_read(given, what), tuple(map(str, getattr(given, "classes", ())))
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise SourceError(f"{what} must be (images, labels) or a Dataset with a length, got {_kind(given)}")
    images, labels = _pixels(given[0], what), _labels(given[1], what)
    if len(images) != len(labels):
        raise SourceError(f"{what} has {len(images)} images and {len(labels)} labels")
    return images, labels, ()


def _is_dataset(given: object) -> bool:
    indexed = hasattr(given, "__getitem__") and isinstance(given, Sized)
    return indexed and not isinstance(given, (tuple, list, str, bytes, dict, np.ndarray, torch.Tensor))


def _read(dataset: Any, what: str) -> tuple[Pixels, Labels]:
    """All items of a Dataset, one after the other."""
    images, labels = [], []
    for number in range(len(dataset)):
        item = dataset[number]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise SourceError(f"{what}: item {number} must be (image, label), got {_kind(item)}")
        images.append(_array(item[0]))
        labels.append(item[1])
    shapes = {image.shape for image in images}
    if not images:
        raise SourceError(f"{what} holds no images: its length is 0")
    if len(shapes) > 1:
        some = ", ".join(sorted(map(str, shapes))[:3])
        raise SourceError(f"{what}: its images must be of one size, got {some}: resize them in the Dataset")
    return _pixels(np.stack(images), what), _labels(labels, what)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _pixels(value: Any, what: str) -> Pixels:
    """uint8 (N,H,W,3), contiguous, from any of the forms that `splits_of` names."""
    try:
        images = _array(value)
    except ValueError as error:
        raise SourceError(f"{what}: images must make one array, all of one size ({error})") from None
    grey = images.ndim == 3
    if images.ndim not in (3, 4) or (not grey and 3 not in (images.shape[1], images.shape[3])):
        raise SourceError(f"{what}: images must be (N,H,W,3), (N,3,H,W) or (N,H,W), got {images.shape}")
    if grey:
        images = np.repeat(images[..., None], 3, axis=3)
    elif images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.dtype.kind == "f":
        if not len(images) or not (images.min() >= 0 and images.max() <= 1):
            raise SourceError(f"{what}: floating-point images must lie in 0..1: give them before normalising")
        images = np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise SourceError(f"{what}: images must be uint8, or floating point in 0..1, got {images.dtype}")
    return cast(Pixels, np.ascontiguousarray(images))


def _labels(value: Any, what: str) -> Labels:
    labels = _array(value)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise SourceError(f"{what}: labels must be whole numbers (N,), got {labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    more = (
        f" {tuple(shape)}" if shape is not None else f" of {len(value)}" if isinstance(value, Sized) else ""
    )
    return type(value).__name__ + more
