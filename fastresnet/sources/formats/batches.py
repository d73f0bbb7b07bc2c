"""CIFAR's own python and binary batches. Pickles are read so that no code in them can run."""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class _Layout(NamedTuple):
    """One way in which CIFAR is handed around."""

    name: str  # the data set
    marker: str  # a file that gives the layout away
    train: tuple[str, ...]
    test: tuple[str, ...]
    class_names: str  # file of class names
    key: str  # python: key of the labels
    label_bytes: int  # binary: bytes before the pixels, of which the last is the label


_FIVE = tuple(f"data_batch_{k}" for k in range(1, 6))
_LAYOUTS = (
    _Layout("cifar10", "data_batch_1", _FIVE, ("test_batch",), "batches.meta", "labels", 0),
    _Layout("cifar100", "meta", ("train",), ("test",), "meta", "fine_labels", 0),
    _Layout(
        "cifar10",
        "data_batch_1.bin",
        tuple(f"{file}.bin" for file in _FIVE),
        ("test_batch.bin",),
        "batches.meta.txt",
        "",
        1,
    ),
    _Layout("cifar100", "train.bin", ("train.bin",), ("test.bin",), "fine_label_names.txt", "", 2),
)
_BATCH_FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")


def batches_folder(folder: Path) -> tuple[Path, _Layout] | None:
    """(folder, layout) of CIFAR-10 or CIFAR-100 batches in `folder` or its usual subfolders, else None."""
    for inner in _BATCH_FOLDERS:
        for layout in _LAYOUTS:
            if (folder / inner / layout.marker).is_file() and (
                layout.marker != "meta" or (folder / inner / "train").is_file()
            ):
                return folder / inner, layout
    return None


def read_batches(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str]:
    """A split of the python or binary batches, and the data set of this layout ("cifar10", "cifar100")."""
    found = batches_folder(folder)
    if found is None:
        raise ValueError(
            f"{folder}: no CIFAR batches (looked for data_batch_1, data_batch_1.bin, meta, train.bin)"
        )
    where, layout = found
    files = layout.train if split == "train" else layout.test
    missing = [file for file in files if not (where / file).is_file()]
    if missing:
        raise ValueError(f"{where / missing[0]} is missing: the {split} split needs {', '.join(files)}")
    parts = [
        _python_batch(where / file, layout.key)
        if layout.key
        else _binary_batch(where / file, layout.label_bytes)
        for file in files
    ]
    planar = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([targets for _, targets in parts])
    classes = _batch_class_names(where / layout.class_names, layout.key)
    numbered = tuple(str(k) for k in range(10 if layout.name == "cifar10" else 100))
    return np.ascontiguousarray(planar.transpose(0, 2, 3, 1)), labels, classes or numbered, layout.name


def _python_batch(path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    content = restricted_unpickle(path)
    if not isinstance(content, dict) or b"data" not in content or key.encode() not in content:
        raise ValueError(f"{path}: a CIFAR batch needs data and {key}")
    pixels, targets = content[b"data"], np.asarray(content[key.encode()])
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
        or targets.shape != (len(pixels),)
        or targets.dtype.kind not in "iu"
    ):
        raise ValueError(f"{path}: data must be uint8 (N, 3072) with N whole-number labels")
    return pixels, targets.astype(np.int64)


def _binary_batch(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    record = label_bytes + 3072  # CIFAR-100 has a coarse label before the fine one
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % record:
        raise ValueError(
            f"{path}: {len(content)} bytes is not a whole number of {record}-byte records; the file is cut"
            " off or foreign"
        )
    rows = content.reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _batch_class_names(path: Path, key: str) -> tuple[str, ...]:
    """From the text file beside binary batches (no key) or the pickle beside python ones; () without."""
    if not path.is_file():
        return ()
    if not key:
        return tuple(path.read_text().split())
    content = restricted_unpickle(path)
    names = (
        content.get(b"label_names" if key == "labels" else b"fine_label_names")
        if isinstance(content, dict)
        else None
    )
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names or ())


class _ArraysOnly(pickle.Unpickler):
    """Builds numbers, text, lists, dicts and numpy arrays; any other object in the file is refused, so no
    code runs."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct, frombuffer = np.zeros(0).__reduce__()[0], np.zeros(0).__reduce_ex__(5)[0]
        allowed = {
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


def restricted_unpickle(path: Path) -> Any:
    """The content of a pickle that holds plain data and numpy arrays; ValueError for anything else. Keys are
    bytes."""
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="bytes").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
        ImportError,
    ) as error:
        raise ValueError(f"{path} is not a readable batch: {str(error) or type(error).__name__}") from None
