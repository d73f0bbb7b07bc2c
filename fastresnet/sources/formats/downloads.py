"""What torchvision downloads: CIFAR-10, CIFAR-100, SVHN, STL-10. Retries; says what to do offline."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastresnet.sources.formats.decode import Pixels


def read_torchvision(name: str, root: Path, split: str, attempts: int = 3) -> Pixels:
    """A split of CIFAR-10, CIFAR-100, SVHN or STL-10, downloaded into `root` (checksum by torchvision) when
    not there yet."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: operator torchvision::nms does not exist
        raise ValueError(
            f"torchvision can't be imported ({str(error).splitlines()[0]}); install the torchvision that"
            " matches this torch, or use data.source=parquet, batches or imagefolder with data.root"
        ) from None
    makers: dict[str, Callable[[], Any]] = {
        "cifar10": lambda: datasets.CIFAR10(str(root), train=split == "train", download=True),
        "cifar100": lambda: datasets.CIFAR100(str(root), train=split == "train", download=True),
        "svhn": lambda: datasets.SVHN(str(root), split=split, download=True),
        "stl10": lambda: datasets.STL10(str(root), split=split, download=True),
    }
    if name not in makers:
        raise ValueError(f"torchvision source: data.name must be one of {', '.join(makers)}, got {name}")
    for attempt in range(attempts):
        try:
            data = makers[name]()
            break
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{name} through torchvision needs {error.name}: pip install {error.name}"
            ) from None
        except (
            OSError,
            RuntimeError,
        ) as error:  # URLError is an OSError; a checksum that differs is a RuntimeError
            if attempt == attempts - 1:
                raise ValueError(
                    f"can't download {name} into {root} ({attempts} attempts): {str(error).splitlines()[0]}."
                    " Offline? Point FASTRESNET_DATA or data.root at a folder with Parquet shards, CIFAR"
                    " batches or betons, or ask for drawn images with --data.source=synthetic"
                ) from None
            time.sleep(2**attempt * 0.5)
    pixels = np.asarray(data.data)
    labels = np.asarray(data.targets if hasattr(data, "targets") else data.labels).astype(np.int64)
    classes = tuple(getattr(data, "classes", ())) or tuple(str(k) for k in range(10))
    return (
        np.ascontiguousarray(pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels),
        labels,
        classes,
    )
