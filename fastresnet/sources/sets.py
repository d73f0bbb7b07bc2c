"""Where images come from: every source gives the same checked ImageSet. Knows no beton and no training.

File formats are read in `formats.py`; what is asked for is decided here.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastresnet.base.cores import cores_usable
from fastresnet.sources import formats, synthetic
from fastresnet.sources.formats import FolderSet

CIFAR10_DIGESTS = {
    "train": "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85",
    "test": "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c",
}  # of content_digest: the same for every file format and order of the images
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = ("train", "test")
COUNTS = {
    ("cifar10", "train"): 50000,
    ("cifar10", "test"): 10000,
    ("cifar100", "train"): 50000,
    ("cifar100", "test"): 10000,
    ("svhn", "train"): 73257,
    ("svhn", "test"): 26032,
    ("stl10", "train"): 5000,
    ("stl10", "test"): 8000,
}


class SourceError(ValueError):
    """The data asked for is missing, broken or contradicts itself: the user's input, in one line."""


@dataclass(frozen=True)
class ImageSet:
    """One split in memory: images uint8 (N,H,W,3) C-contiguous, labels int64 (N,) from 0."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    split: str
    source: str
    synthetic: bool = False

    def __post_init__(self) -> None:
        check_images(f"{self.source} {self.split} set", self.images, self.labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pixels(self) -> np.ndarray:
        """The images, under the name that a FolderSet has for them too."""
        return self.images

    def digest(self) -> str:
        """The content digest of this split; equal sets have equal digests whatever their order."""
        return content_digest(self.images, self.labels)


def check_images(what: str, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """SourceError unless images are uint8 (N,H,W,3), N > 0, and labels int64 (N,) lie in 0..classes-1."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise SourceError(f"{what}: images must be uint8 (N,H,W,3), got {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise SourceError(
            f"{what}: needs one int64 label an image, got {labels.dtype} {labels.shape} for {len(images)}"
            " images"
        )
    if not len(images) or not images.size:
        raise SourceError(f"{what} holds no images")
    check_labels(what, labels, classes)


def check_labels(what: str, labels: np.ndarray, classes: int) -> None:
    """SourceError that names the first sample whose label lies outside 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise SourceError(
            f"{what}: labels must lie between 0 and {classes - 1} ({classes} classes), "
            f"got {labels[wrong[0]]} at sample {wrong[0]}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        )


def shared_class_names(train: Sequence[str], test: Sequence[str]) -> tuple[str, ...]:
    """The class names of both splits; where they are mere numbers, one split may lack the last classes."""
    longer, shorter = sorted((tuple(train), tuple(test)), key=len, reverse=True)
    if longer == shorter or (longer[: len(shorter)] == shorter and all(name.isdigit() for name in longer)):
        return longer
    raise SourceError(f"training and test set have different classes: {_few(train)} and {_few(test)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", … ({len(names)})" if len(names) > 12 else "")


def content_digest(images: Iterable[np.ndarray], labels: np.ndarray) -> str:
    """sha256 over the sorted sha256 digests of label byte + pixels (H x W x 3 uint8, row-major): order-
    free, as hex.

    Labels above 255 are written as eight little-endian bytes. Images may be of several sizes.
    """
    wide = len(labels) and int(np.max(labels)) > 255
    digests = sorted(
        hashlib.sha256(
            (int(label).to_bytes(8, "little") if wide else bytes([int(label)])) + image.tobytes()
        ).digest()
        for image, label in zip(images, labels, strict=True)
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def load(
    source: str,
    split: str,
    *,
    root: str | Path | None = None,
    name: str = "cifar10",
    count: int = 10000,
    size: int = 32,
    seed: int = 0,
    image_size: int = 0,
    workers: int = 0,
    on_error: str = "raise",
) -> ImageSet | FolderSet:
    """One split ("train" or "test") of `source`: torchvision, batches, parquet, imagefolder or synthetic.

    `name` says which data set torchvision gets; `count`, `size` (px) and `seed` shape the synthetic set. A
    folder of images of several sizes, or too large for memory, comes as a FolderSet when image_size > 0.
    SourceError where data is wrong.
    """
    if split not in SPLITS:
        raise SourceError(f"split must be train or test, got {split!r}")
    workers = workers or cores_usable()
    is_synthetic = source == "synthetic"
    if is_synthetic:
        images, labels = synthetic.draw(split, count, size, seed)
        return ImageSet(images, labels, synthetic.CLASS_NAMES, f"synthetic-{size}px", split, source, True)
    if source == "torchvision":
        images, labels, classes = formats.read_torchvision(name, Path(root or "data"), split)
        return _named(ImageSet(images, labels, classes, name, split, source))
    if root is None:
        raise SourceError(f"data.source={source} needs data.root: the folder that holds the {source} files")
    folder = Path(root)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder (data.root for source {source})")
    if source == "parquet":
        images, labels, classes = formats.read_parquet(folder, split, workers)
        return _named(
            ImageSet(images, labels, _class_names(classes, labels), folder.resolve().name, split, source)
        )
    if source == "batches":
        images, labels, classes, known = formats.read_batches(folder, split)
        return _named(ImageSet(images, labels, classes, known, split, source))
    if source == "imagefolder":
        found = formats.read_imagefolder(folder, split, image_size, workers, on_error)
        if isinstance(found, FolderSet):
            return found
        images, labels, classes = found
        return ImageSet(images, labels, classes, folder.resolve().name, split, source)
    raise SourceError(
        f"unknown source {source!r}; there are torchvision, batches, parquet, imagefolder and synthetic"
    )


def _class_names(names: tuple[str, ...], labels: np.ndarray) -> tuple[str, ...]:
    """The names that the source gave, or the numbers as names where it gave none."""
    return names or tuple(str(k) for k in range(int(labels.max(initial=0)) + 1))


def _named(images: ImageSet) -> ImageSet:
    """Call the set cifar10 when its digest says so, and never otherwise; check the count of the other known
    sets."""
    expected = COUNTS.get((images.name, images.split))
    if images.name != "cifar10" and images.source == "torchvision" and expected and expected != len(images):
        raise SourceError(
            f"{images.name} {images.split}: expected {expected} images, found {len(images)}; delete the files"
            " and download them again"
        )
    if images.images.shape[1:] == (32, 32, 3) and len(images) == COUNTS["cifar10", images.split]:
        if images.digest() == CIFAR10_DIGESTS[images.split]:
            return _renamed(images, "cifar10", CIFAR10_CLASSES)
    if images.name == "cifar10" and images.source == "torchvision":
        raise SourceError(
            f"cifar10 {images.split}: the downloaded images are not those of CIFAR-10 (content digest"
            " differs); delete the files and download them again"
        )
    return _renamed(images, "cifar10-lookalike", images.class_names) if images.name == "cifar10" else images


def _renamed(images: ImageSet, name: str, class_names: tuple[str, ...]) -> ImageSet:
    return ImageSet(
        images.images, images.labels, class_names, name, images.split, images.source, images.synthetic
    )


# Which source ----------------------------------------------------------------------------------------


def detect(folder: str | Path) -> str | None:
    """What a folder holds: "betons", "parquet", "batches", "imagefolder", or None. Looks at names, opens
    nothing."""
    folder = Path(folder)
    if not folder.is_dir():
        return None
    if all((folder / f"{split}.beton").is_file() for split in SPLITS):
        return "betons"
    if formats.parquet_shards(folder, "train"):
        return "parquet"
    if formats.batches_folder(folder):
        return "batches"
    if formats.split_folder(folder, "train") and any(formats.class_folders(folder, "train")):
        return "imagefolder"
    return None


def candidates(name: str, root: str | None) -> Iterator[tuple[str, Path]]:
    """(why, folder) in the order that data.source=auto searches, after betons that were converted before."""
    if root is not None:
        yield "data.root", Path(root)
        return
    if os.environ.get("FASTRESNET_DATA"):
        yield "FASTRESNET_DATA", Path(os.environ["FASTRESNET_DATA"])
    yield from (("data/", Path("data") / inner) for inner in (name, "."))


def resolve_auto(name: str = "cifar10", root: str | None = None) -> tuple[str, Path]:
    """(source, folder) for data.source=auto: data.root, FASTRESNET_DATA, data/, else the download into data/.

    The source may also be "betons". SourceError when a folder that the user named holds nothing that we
    can read.
    """
    for why, folder in candidates(name, root):
        found = detect(folder)
        if found:
            return found, folder
        if why != "data/":
            state = (
                "holds no betons, Parquet shards, CIFAR batches or train/<class>/ images"
                if folder.is_dir()
                else "is not a folder"
            )
            raise SourceError(f"{why}={folder} {state}")
    return "torchvision", Path("data")


def fingerprint(source: str, root: Path) -> str:
    """Changes when the files of a source change (names, sizes, times of modification); "" where there are no
    files to watch."""
    if source in ("synthetic", "torchvision"):
        return ""
    ends = {"parquet": (".parquet",), "batches": ("", ".bin", ".html", ".meta")}.get(
        source, formats.IMAGE_ENDS
    )
    seen = sorted(
        (str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.suffix.lower() in ends and path.is_file()
    )
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:32]


# Parts of a set --------------------------------------------------------------------------------------


def stratified_subset(labels: np.ndarray, count_or_share: float, seed: int) -> np.ndarray:
    """Sorted indices of a seeded subset with the classes in proportion: a count (1 or more) or a share
    (below 1).

    The exact number asked for comes back: places left over by rounding go to the classes with the largest
    remainders.
    """
    total = len(labels)
    wanted = int(round(count_or_share * total)) if count_or_share < 1 else int(count_or_share)
    if count_or_share >= 1 and count_or_share != wanted:
        raise SourceError(f"data.subset must be a whole count or a share below 1, got {count_or_share}")
    if not 1 <= wanted <= total:
        raise SourceError(f"data.subset={count_or_share:g} asks for {wanted} images, the set has {total}")
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * wanted / total
    take = np.floor(share).astype(int)
    rng = np.random.default_rng([seed, 2])
    leftover = np.lexsort((rng.permutation(len(classes)), take - share))[: wanted - take.sum()]
    take[leftover] += 1
    return np.sort(
        np.concatenate(
            [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in zip(classes, take, strict=True)]
        )
    )


def split_validation(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training indices, validation indices), sorted, disjoint, together everything; stratified, seeded."""
    if fraction == 0:
        return np.arange(len(labels)), np.arange(0)
    held = stratified_subset(labels, max(1, round(fraction * len(labels))), seed)
    return np.setdiff1d(np.arange(len(labels)), held, assume_unique=True), held
