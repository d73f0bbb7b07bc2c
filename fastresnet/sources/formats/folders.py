"""Folders of images: <split>/<class>/*.png or *.jpg; read whole, or image by image where sizes differ."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastresnet.sources.formats.decode import Pixels, decode, in_threads, size_text
from fastresnet.sources.formats.names import SPLIT_ALIASES

IMAGE_ENDS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
MEMORY_LIMIT = 4 << 30  # bytes: folders larger than this are not read whole


@dataclass(frozen=True)
class FolderSet:
    """One split of an image folder, decoded image by image: a sequence of uint8 (H,W,3) whose sizes may
    differ."""

    paths: tuple[Path, ...]
    shapes: tuple[tuple[int, int, int], ...]  # (H,W,3) of each, from the files' headers
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    split: str
    source: str = "imagefolder"
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def pixels(self) -> "FolderSet":
        """Itself, as an iterable of images."""
        return self

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`; ValueError names the file when it can't be read."""
        return decode(self.paths[index].read_bytes(), str(self.paths[index]))


def split_folder(folder: Path, split: str) -> Path | None:
    """The subfolder that holds a split, under any of its usual names."""
    return next((folder / alias for alias in SPLIT_ALIASES[split] if (folder / alias).is_dir()), None)


def class_folders(folder: Path, split: str) -> list[Path]:
    """The class folders of a split, sorted by name; hidden ones are left out."""
    where = split_folder(folder, split)
    return (
        sorted(path for path in where.iterdir() if path.is_dir() and not path.name.startswith("."))
        if where
        else []
    )


def read_imagefolder(
    folder: Path, split: str, image_size: int, workers: int, on_error: str
) -> Pixels | FolderSet:
    """<split>/<class>/*.png|jpg…; a FolderSet when sizes differ or memory is short, with image_size > 0.

    on_error="skip" leaves out images that can't be decoded; "raise" names the first.
    """
    paths, labels, classes = list_imagefolder(folder, split)
    sizes = in_threads(lambda i: _header_size(paths[i], on_error), range(len(paths)), workers)
    files = FolderSet(
        tuple(path for path, size in zip(paths, sizes, strict=True) if size),
        tuple((size[1], size[0], 3) for size in sizes if size),
        labels[[size is not None for size in sizes]],
        classes,
        folder.resolve().name,
        split,
    )
    if not len(files):
        raise ValueError(f"{folder}: no image of the {split} split can be read")
    shapes = files.shapes
    odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if image_size and (odd is not None or len(files) * int(np.prod(shapes[0])) > MEMORY_LIMIT):
        return files if on_error == "raise" else _readable(files, workers)
    if odd is not None:
        raise ValueError(
            f"{files.paths[odd]} is {size_text(shapes[odd])} but {files.paths[0]} is {size_text(shapes[0])}; "
            "set data.image_size to crop images of several sizes"
        )
    if on_error == "skip":
        files = _readable(files, workers)
    images = np.empty((len(files), *shapes[0]), np.uint8)

    def work(i: int) -> None:
        images[i] = files[i]

    in_threads(work, range(len(files)), workers)
    return images, files.labels, classes


def _readable(files: FolderSet, workers: int) -> FolderSet:
    """The images that can be decoded, each tried once."""

    def works(i: int) -> bool:
        try:
            files[i]
        except ValueError:
            return False
        return True

    good = in_threads(works, range(len(files)), workers)
    return replace(
        files,
        paths=tuple(path for path, is_good in zip(files.paths, good, strict=True) if is_good),
        shapes=tuple(shape for shape, is_good in zip(files.shapes, good, strict=True) if is_good),
        labels=files.labels[good],
    )


def list_imagefolder(folder: Path, split: str) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """(paths, labels, class names) of a split; classes come from the training folder and must be the same in
    test."""
    train, here = class_folders(folder, "train"), class_folders(folder, split)
    if not train:
        raise ValueError(f"{folder}: no class folders under train/ (expected train/<class>/*.png or *.jpg)")
    classes = tuple(path.name for path in train)
    where = split_folder(folder, split)
    if where is None:
        raise ValueError(f"{folder}: no {split}/ folder beside train/")
    names = {path.name for path in here}
    missing, extra = sorted(set(classes) - names), sorted(names - set(classes))
    if missing or extra:
        raise ValueError(
            f"{where}: "
            + (
                f"class folder {missing[0]} is missing, it is in train/"
                if missing
                else f"class folder {extra[0]} is not in train/"
            )
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, inner in enumerate(here):
        files = sorted(
            p for p in inner.rglob("*") if p.suffix.lower() in IMAGE_ENDS and not p.name.startswith(".")
        )
        if not files:
            raise ValueError(f"{inner} is empty: every class needs at least one image")
        paths += files
        labels += [label] * len(files)
    return paths, np.asarray(labels, np.int64), classes


def _header_size(path: Path, on_error: str) -> tuple[int, int] | None:
    """(width, height) from the file's header; None for an unreadable image that may be skipped."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if on_error == "skip":
            return None
        raise ValueError(f"{path} is not a readable image: {error}") from None
