"""CIFAR's own python and binary batches. Pickles are read so that no code in them can run."""

import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels
from fastresnet.sources.image_set import ImageSet, SourceError, numbered
from fastresnet.sources.request import Request, Source


class _Layout(NamedTuple):
    """One way in which CIFAR is handed around."""

    name: str  # the data set
    classes: int
    marker: str  # a file that gives the layout away
    train: tuple[str, ...]
    test: tuple[str, ...]
    class_names: str  # file of class names
    key: str = ""  # python: key of the labels
    label_bytes: int = 0  # binary: bytes before the pixels, of which the last is the label


_FIVE = tuple(f"data_batch_{k}" for k in range(1, 6))
_FIVE_BIN = tuple(f"{file}.bin" for file in _FIVE)
_LAYOUTS = (
    _Layout("cifar10", 10, _FIVE[0], _FIVE, ("test_batch",), "batches.meta", key="labels"),
    _Layout("cifar100", 100, "meta", ("train",), ("test",), "meta", key="fine_labels"),
    _Layout("cifar10", 10, _FIVE_BIN[0], _FIVE_BIN, ("test_batch.bin",), "batches.meta.txt", label_bytes=1),
    _Layout(
        "cifar100", 100, "train.bin", ("train.bin",), ("test.bin",), "fine_label_names.txt", label_bytes=2
    ),
)
_FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
_PIXELS = 3 * 32 * 32  # bytes of an image, one colour after another


def read(request: Request, split: str) -> ImageSet:
    """A split of the python or binary batches of CIFAR-10 or CIFAR-100."""
    folder = request.folder("batches")
    found = _find(folder)
    if found is None:
        raise SourceError(
            f"{folder}: no CIFAR batches (looked for data_batch_1, data_batch_1.bin, meta, train.bin)"
        )
    where, layout = found
    files = layout.train if split == "train" else layout.test
    missing = [file for file in files if not (where / file).is_file()]
    if missing:
        raise SourceError(f"{where / missing[0]} is missing: the {split} split needs {', '.join(files)}")
    parts = [_batch(where / file, layout) for file in files]
    planar = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planar.transpose(0, 2, 3, 1))
    labels = np.concatenate([targets for _, targets in parts])
    names = _class_names(where / layout.class_names, layout.key) or numbered(layout.classes)
    return ImageSet(images, labels, names, layout.name, split, "batches")


def _find(folder: Path) -> tuple[Path, _Layout] | None:
    """(folder, layout) of CIFAR-10 or CIFAR-100 batches in `folder` or its usual subfolders, else None."""
    for where in (folder / inner for inner in _FOLDERS):
        for layout in _LAYOUTS:
            if (where / layout.marker).is_file() and (where / layout.train[0]).is_file():
                return where, layout
    return None


def _batch(path: Path, layout: _Layout) -> tuple[Pixels, Labels]:
    """(pixels (N,3072), labels) of one file."""
    return _python_batch(path, layout.key) if layout.key else _binary_batch(path, layout.label_bytes)


def _python_batch(path: Path, key: str) -> tuple[Pixels, Labels]:
    content = restricted_unpickle(path)
    if not isinstance(content, dict) or b"data" not in content or key.encode() not in content:
        raise SourceError(f"{path}: a CIFAR batch needs data and {key}")
    try:
        pixels, targets = content[b"data"], np.asarray(content[key.encode()])
    except ValueError:  # lists of several lengths
        raise SourceError(f"{path}: {key} must be a list of whole numbers") from None
    are_pixels = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2
    if (
        not are_pixels
        or pixels.shape[1] != _PIXELS
        or targets.shape != (len(pixels),)
        or targets.dtype.kind not in "iu"
    ):
        raise SourceError(f"{path}: data must be uint8 (N, {_PIXELS}) with N whole-number labels")
    return pixels, targets.astype(np.int64)


def _binary_batch(path: Path, label_bytes: int) -> tuple[Pixels, Labels]:
    record = label_bytes + _PIXELS  # CIFAR-100 has a coarse label before the fine one
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % record:
        raise SourceError(
            f"{path}: {len(content)} bytes is not a whole number of {record}-byte records; the file is cut"
            " off or foreign"
        )
    rows = content.reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _class_names(path: Path, key: str) -> tuple[str, ...]:
    """From the text file beside binary batches (no key) or the pickle beside python ones; () without."""
    if not path.is_file():
        return ()
    if not key:
        return tuple(path.read_text(encoding="utf-8", errors="replace").split())
    content = restricted_unpickle(path)
    names = content.get(f"{key.removesuffix('s')}_names".encode()) if isinstance(content, dict) else None
    if not isinstance(names, (list, tuple)):
        return ()
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


class _ArraysOnly(pickle.Unpickler):
    """Builds numbers, text, lists, dicts and numpy arrays; anything else is refused, so no code runs."""

    def find_class(self, module: str, name: str) -> object:
        reconstruct, frombuffer = np.zeros(0).__reduce__()[0], np.zeros(0).__reduce_ex__(5)[0]
        allowed: dict[tuple[str, str], object] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core", "numpy._core"):
            allowed[core + ".multiarray", "_reconstruct"] = reconstruct
            allowed[core + ".numeric", "_frombuffer"] = frombuffer
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which has no place in a batch of images"
            )
        return allowed[module, name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of protocol 2 call to carry bytes."""
    return text.encode("latin1")


# All that damaged bytes have been seen to raise in there.
_UNPICKLING = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError)
_FAILING = (*_UNPICKLING, OverflowError, MemoryError, ImportError)


def restricted_unpickle(path: Path) -> object:
    """The content of a pickle of plain data and numpy arrays, keys as bytes; SourceError for any other."""
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="bytes").load()
    except _FAILING as error:
        raise SourceError(f"{path} is not a readable batch: {str(error) or type(error).__name__}") from None


SOURCE = Source(
    read, holds=lambda folder: _find(folder) is not None, endings=("", ".bin", ".html", ".meta", ".txt")
)
