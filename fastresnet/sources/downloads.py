"""What torchvision downloads: CIFAR-10, CIFAR-100, SVHN, STL-10. Tries again; says what to do offline."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from fastresnet.base.pictures import Pixels
from fastresnet.sources.image_set import ImageSet, SourceError, numbered
from fastresnet.sources.known import COUNTS, is_cifar10
from fastresnet.sources.request import Request, Source

ATTEMPTS = 3


class _Downloaded(Protocol):
    """What torchvision's data sets have in common; labels are called `targets` or `labels`."""

    data: Pixels


def read(request: Request, split: str) -> ImageSet:
    """A split, downloaded into data.root (default: data/; torchvision checks the file) when not there yet."""
    name, root = request.name, request.root or Path("data")
    data = _downloaded(name, root, _maker(name, root, split))
    pixels = np.asarray(data.data)
    planar = pixels.shape[1] == 3
    labels = np.asarray(getattr(data, "targets", None) or getattr(data, "labels", ())).astype(np.int64)
    classes: Sequence[str] = getattr(data, "classes", ())
    images = ImageSet(
        np.ascontiguousarray(pixels.transpose(0, 2, 3, 1) if planar else pixels),
        labels,
        tuple(classes) or numbered(10),
        name,
        split,
        "torchvision",
    )
    _check(images)
    return images


def _maker(name: str, root: Path, split: str) -> Callable[[], _Downloaded]:
    """The call that downloads and reads a split of the data set `name`."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: operator torchvision::nms does not exist
        raise SourceError(
            f"torchvision can't be imported ({str(error).splitlines()[0]}); install the torchvision that"
            " matches this torch, or use data.source=parquet, batches or imagefolder with data.root"
        ) from None
    train, folder = split == "train", str(root)
    makers = {
        "cifar10": lambda: datasets.CIFAR10(folder, train=train, download=True),
        "cifar100": lambda: datasets.CIFAR100(folder, train=train, download=True),
        "svhn": lambda: datasets.SVHN(folder, split=split, download=True),
        "stl10": lambda: datasets.STL10(folder, split=split, download=True),
    }
    if name not in makers:
        raise SourceError(f"torchvision source: data.name must be one of {', '.join(makers)}, got {name}")
    return cast("Callable[[], _Downloaded]", makers[name])


def _downloaded(name: str, root: Path, make: Callable[[], _Downloaded]) -> _Downloaded:
    """make(), tried ATTEMPTS times. URLError is an OSError; a checksum that differs is a RuntimeError."""
    for attempt in range(ATTEMPTS):
        try:
            return make()
        except ModuleNotFoundError as error:
            raise SourceError(
                f"{name} through torchvision needs {error.name}: pip install {error.name}"
            ) from None
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            time.sleep(2**attempt * 0.5)
    raise SourceError(
        f"can't download {name} into {root} ({ATTEMPTS} attempts): {reason}. Offline? Point FASTRESNET_DATA"
        " or data.root at a folder with Parquet shards, CIFAR batches or betons, or ask for drawn images with"
        " --data.source=synthetic"
    )


def _check(images: ImageSet) -> None:
    """SourceError where what was downloaded isn't what was asked for."""
    expected, again = COUNTS[images.name][images.split], "delete the files and download them again"
    if images.name == "cifar10" and not is_cifar10(images):
        raise SourceError(
            f"cifar10 {images.split}: the downloaded images are not those of CIFAR-10 (content digest"
            f" differs); {again}"
        )
    if len(images) != expected:
        raise SourceError(
            f"{images.name} {images.split}: expected {expected} images, found {len(images)}; {again}"
        )


SOURCE = Source(read, origin=lambda request: {"name": request.name})
