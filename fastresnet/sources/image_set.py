"""What every source gives: one checked split of pixels and labels, in memory or image by image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fastresnet.base import digest, pictures
from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels

SPLITS = ("train", "test")
MOST_CLASSES = 100_000
# Under which names the files and folders of a split are found.
SPLIT_ALIASES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


# How a test set was drawn from a whole: the "fraction" of each class, the "seed", "duplicates" in training.
Drawn = dict[str, float]


class SourceError(ValueError):
    """The data asked for is missing, broken or contradicts itself: the user's input, in one line."""


@dataclass(frozen=True)
class ImageSet:
    """One split in memory: images uint8 (N,H,W,3) C-contiguous, labels int64 (N,) from 0."""

    images: Pixels
    labels: Labels
    class_names: tuple[str, ...]
    name: str
    split: str
    source: str
    synthetic: bool = False
    test_drawn: Drawn | None = None

    def __post_init__(self) -> None:
        check_images(f"{self.source} {self.split} set", self.images, self.labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pixels(self) -> Pixels:
        """The images, under the name that a FolderSet has for them too."""
        return self.images

    @cached_property
    def digest(self) -> str:
        """The content digest of this split; equal sets have equal digests whatever their order."""
        return digest.content_digest(self.images, self.labels)

    def renamed(self, name: str, class_names: tuple[str, ...]) -> "ImageSet":
        """The same images under other names; the digest, once computed, is kept."""
        other = replace(self, name=name, class_names=class_names)
        if "digest" in self.__dict__:
            other.__dict__["digest"] = self.digest
        return other

    def shrunk(self, longer_side: int) -> "ImageSet":
        """The set with images of at most so many px a side: another set, unless all were that small."""
        if max(self.images.shape[1:3]) <= longer_side:
            return self
        images = np.stack([pictures.shrunk(image, longer_side) for image in self.images])
        return replace(self, images=images, name=f"{self.name}-{longer_side}px")


@dataclass(frozen=True)
class FolderSet:
    """One split of an image folder: a sequence of uint8 (H,W,3), read one by one, whose sizes may differ."""

    paths: tuple[Path, ...]
    shapes: tuple[tuple[int, int, int], ...]  # (H,W,3) of each, from the files' headers
    labels: Labels
    class_names: tuple[str, ...]
    name: str
    split: str
    source: str = "imagefolder"
    synthetic: bool = field(default=False, init=False)
    longer_side: int = 0  # px, to which larger images are shrunk; 0: none is
    test_drawn: Drawn | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Pixels]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Pixels:
        """Image `index`; ValueError names the file when it can't be read, or changed since it was listed."""
        image = pictures.decode(self.paths[index])
        image = pictures.shrunk(image, self.longer_side) if self.longer_side else image
        if image.shape != self.shapes[index]:
            raise SourceError(f"{self.paths[index]} changed while it was in use; start again")
        return image

    @property
    def pixels(self) -> "FolderSet":
        """Itself, as an iterable of images."""
        return self

    @cached_property
    def digest(self) -> str:
        """The content digest of this split; reads every image."""
        return digest.content_digest(self, self.labels)

    def renamed(self, name: str, class_names: tuple[str, ...]) -> "FolderSet":
        """The same images under other names."""
        return replace(self, name=name, class_names=class_names)

    def shrunk(self, longer_side: int) -> "FolderSet":
        """The set with images of at most so many px a side: another set, unless all were that small."""
        shapes = tuple((*pictures.shrunk_size(shape[:2], longer_side), 3) for shape in self.shapes)
        if shapes == self.shapes:
            return self
        return replace(self, shapes=shapes, longer_side=longer_side, name=f"{self.name}-{longer_side}px")

    def chosen(self, keep: Sequence[bool]) -> "FolderSet":
        """The images whose place in `keep` is true."""
        where = np.flatnonzero(keep).tolist()
        return replace(
            self,
            paths=tuple(self.paths[i] for i in where),
            shapes=tuple(self.shapes[i] for i in where),
            labels=self.labels[where],
        )


def check_images(what: str, images: Pixels, labels: Labels, classes: int) -> None:
    """SourceError unless images are uint8 (N,H,W,3), N > 0, and labels int64 (N,) lie in 0..classes-1."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise SourceError(f"{what}: images must be uint8 (N,H,W,3), got {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise SourceError(
            f"{what}: needs one int64 label an image, "
            f"got {labels.dtype} {labels.shape} for {len(images)} images"
        )
    if not images.size:
        raise SourceError(f"{what} holds no images")
    check_labels(what, labels, classes)


def check_labels(what: str, labels: Labels, classes: int) -> None:
    """SourceError that names the first sample whose label lies outside 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise SourceError(
            f"{what}: labels must lie between 0 and {classes - 1} ({classes} classes), "
            f"got {labels[wrong[0]]} at sample {wrong[0]}{more}"
        )


def shared_class_names(train: Sequence[str], test: Sequence[str]) -> tuple[str, ...]:
    """The class names of both splits; where they are mere numbers, one split may lack the last classes."""
    longer, shorter = sorted((tuple(train), tuple(test)), key=len, reverse=True)
    if longer == shorter or (longer[: len(shorter)] == shorter and all(name.isdigit() for name in longer)):
        return longer
    raise SourceError(f"training and test set have different classes: {_few(train)} and {_few(test)}")


def numbered(classes: int, what: str = "the set") -> tuple[str, ...]:
    """Numbers as names, for classes whose names nobody gave. SourceError where `what` has absurdly many."""
    if classes > MOST_CLASSES:
        raise SourceError(
            f"{what}: a label is {classes - 1}, and more than {MOST_CLASSES:,} classes aren't read: is it "
            "damaged, or are these no labels?"
        )
    return tuple(map(str, range(classes)))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", … ({len(names)})" if len(names) > 12 else "")
