"""Folders of images by class, with train/ and test/ or without; one by one where sizes differ, else whole."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fastresnet.sources.flat as flat
from fastresnet.base import pictures
from fastresnet.base.digest import Labels
from fastresnet.base.pictures import PictureError
from fastresnet.base.system import on_threads
from fastresnet.sources.image_set import SPLIT_ALIASES, Drawn, FolderSet, ImageSet, SourceError
from fastresnet.sources.request import Origin, Request, Source, fingerprint


def read(request: Request, split: str) -> ImageSet | FolderSet:
    """A FolderSet where memory is short, or where sizes differ and data.image_size is set; else an ImageSet.

    on_error="skip" leaves out images that can't be decoded; "raise" names the first.
    """
    files = _listed(request, split)
    if request.on_error == "skip":
        files = _readable(files, request.workers)
    odd = next((i for i, shape in enumerate(files.shapes) if shape != files.shapes[0]), None)
    if odd is not None and not request.image_size:
        raise SourceError(
            f"{files.paths[odd]} is {_size(files, odd)} but {files.paths[0]} is {_size(files, 0)}; "
            "set data.image_size to crop images of several sizes"
        )
    if odd is not None or len(files) * int(np.prod(files.shapes[0])) > request.memory:
        return files
    images = np.empty((len(files), *files.shapes[0]), np.uint8)

    def work(i: int) -> None:
        images[i] = files[i]

    on_threads(work, range(len(files)), request.workers)
    return ImageSet(
        images, files.labels, files.class_names, files.name, split, files.source, test_drawn=files.test_drawn
    )


def _listed(request: Request, split: str) -> FolderSet:
    """The files of a split with the sizes that their headers give."""
    folder = request.folder("imagefolder")
    paths, labels, classes, drawn = list_files(folder, split, request.test_fraction)

    def shape_of(path: Path) -> tuple[int, int, int] | None:
        try:
            return (*pictures.size_of(path), 3)
        except PictureError:
            if request.on_error == "skip":
                return None
            raise

    shapes = on_threads(shape_of, paths, request.workers)
    seen = [(path, shape) for path, shape in zip(paths, shapes, strict=True) if shape]
    if not seen:
        raise SourceError(f"{folder}: no image of the {split} split can be read")
    kept = np.array([shape is not None for shape in shapes])
    return FolderSet(
        tuple(path for path, _ in seen),
        tuple(shape for _, shape in seen),
        labels[kept],
        classes,
        folder.resolve().name,
        split,
        test_drawn=drawn,
    )


def _readable(files: FolderSet, workers: int) -> FolderSet:
    """The images that can be decoded, each tried once."""

    def works(i: int) -> bool:
        try:
            files[i]
        except PictureError:
            return False
        return True

    return files.chosen(on_threads(works, range(len(files)), workers))


def _size(files: FolderSet, index: int) -> str:
    height, width, _ = files.shapes[index]
    return f"{width}x{height} px"


Listed = tuple[list[Path], Labels, tuple[str, ...], Drawn | None]


def list_files(folder: Path, split: str, test_fraction: float) -> Listed:
    """(paths, labels, class names, how the test set was drawn) of a split; both have the same classes."""
    if inside := flat.classes(folder):
        files = fingerprint(folder, pictures.ENDINGS)
        paths, labels, held, drawn = _cut(tuple(inside), test_fraction, files)
        mine = held if split == "test" else ~held
        here = [path for path, taken in zip(paths, mine) if taken]
        return here, labels[mine], tuple(path.name for path in inside), drawn
    train = _class_folders(folder, "train")
    if not train:
        expected = "expected train/<class>/*.jpg and test/<class>/*.jpg, or <class>/*.jpg"
        raise SourceError(f"{folder}: no class folders under train/ ({expected})")
    where, here = _split_folder(folder, split), _class_folders(folder, split)
    if where is None:
        raise SourceError(f"{folder}: no {split}/ folder beside train/")
    classes, names = tuple(path.name for path in train), {path.name for path in here}
    if set(classes) - names:
        raise SourceError(f"{where}: class folder {min(set(classes) - names)} is missing, it is in train/")
    if names - set(classes):
        raise SourceError(f"{where}: class folder {min(names - set(classes))} is not in train/")
    paths, labels = _labelled(here)
    return paths, labels, classes, None


@lru_cache(maxsize=1)  # for the other split; `files` tells whether they are still the same
def _cut(
    folders: tuple[Path, ...], test_fraction: float, files: str
) -> tuple[list[Path], Labels, NDArray[np.bool_], Drawn]:
    """All images of class folders, their labels, which of them are the test set, and how it was drawn."""
    paths, labels = _labelled(folders)
    held = flat.held_out(folders[0].parent, paths, labels, test_fraction)
    train, test = ([path for path, out in zip(paths, held) if out == wanted] for wanted in (False, True))
    drawn = {"fraction": test_fraction, "seed": flat.SEED, "duplicates": flat.duplicates(train, test)}
    return paths, labels, held, drawn


def _labelled(folders: Sequence[Path]) -> tuple[list[Path], Labels]:
    """The image files of class folders, and their labels."""
    found = [(path, label) for label, inner in enumerate(folders) for path in _pictures_in(inner)]
    return [path for path, _ in found], np.array([label for _, label in found], np.int64)


def _pictures_in(folder: Path) -> list[Path]:
    """The image files in and below a class folder, sorted; hidden ones are left out."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in pictures.ENDINGS and not path.name.startswith(".")
    )
    if not found:
        some = ", ".join(pictures.ENDINGS[:4])
        raise SourceError(f"{folder} is empty: every class needs at least one image ({some}, …)")
    return found


def _split_folder(folder: Path, split: str) -> Path | None:
    """The subfolder that holds a split, under any of its usual names."""
    return next((folder / alias for alias in SPLIT_ALIASES[split] if (folder / alias).is_dir()), None)


def _class_folders(folder: Path, split: str) -> list[Path]:
    """The class folders of a split, sorted by name; hidden ones are left out."""
    where = _split_folder(folder, split)
    inside = where.iterdir() if where else ()
    return sorted(path for path in inside if path.is_dir() and not path.name.startswith("."))


def _origin(request: Request) -> Origin:
    drawn = bool(flat.classes(request.folder("imagefolder")))
    return {"on_error": request.on_error, **({"test_fraction": request.test_fraction} if drawn else {})}


SOURCE = Source(
    read,
    holds=lambda folder: bool(_class_folders(folder, "train")),
    may_hold=flat.holds_classes,
    endings=pictures.ENDINGS,
    origin=_origin,
)
