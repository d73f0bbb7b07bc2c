"""Reads the file formats in which image sets are handed around: pixels uint8, labels int64, class names. Decides nothing.

SourceError is the caller's; here every complaint about a file is a plain ValueError that names the file.
"""

import io
import json
import pickle
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_ENDS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
SPLIT_ALIASES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
Pixels = tuple[np.ndarray, np.ndarray, tuple[str, ...]]  # images (N,H,W,3) uint8, labels (N,) int64, class names
MEMORY_LIMIT = 4 << 30  # bytes: folders larger than this are not read whole


def decode(payload: bytes, what: str) -> np.ndarray:
    """An encoded image as uint8 (H,W,3); ValueError names `what` when it can't be decoded."""
    from PIL import Image
    try:
        with Image.open(io.BytesIO(payload)) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{what} is not a readable image: {error}") from None


def decode_all(payloads: list[bytes], names: Callable[[int], str], workers: int) -> np.ndarray:
    """Encoded images of one size as uint8 (N,H,W,3), decoded on `workers` threads."""
    if not payloads:
        return np.empty((0, 0, 0, 3), np.uint8)
    first = decode(payloads[0], names(0))
    images = np.empty((len(payloads), *first.shape), np.uint8)

    def work(start: int) -> None:
        for i in range(start, min(start + 256, len(payloads))):
            image = decode(payloads[i], names(i))
            if image.shape != first.shape:
                raise ValueError(f"{names(i)} is {_size(image.shape)} but {names(0)} is {_size(first.shape)}; all images of "
                                 "this source must be of one size")
            images[i] = image
    _in_threads(work, range(0, len(payloads), 256), workers)
    return images


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} px"


def _in_threads(work: Callable[[int], Any], items: Iterable[int], workers: int) -> list[Any]:
    """work(item) for every item on `workers` threads, results in order; the first error ends it."""
    if workers == 1:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)


# Parquet, in the layout of the Hugging Face hub -----------------------------------------------------------------------------

def parquet_shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, in the folder itself or one level down; ValueError when a numbered shard is missing."""
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))
    for alias in SPLIT_ALIASES[split]:
        found = [path for path in files if re.match(rf"{alias}([-_.]|$)", path.name) or path.parent.name == alias != folder.name]
        if found:
            numbered = [re.search(r"-(\d+)-of-(\d+)\.parquet$", path.name) for path in found]
            if all(numbered):
                have = {int(match.group(1)) for match in numbered if match}
                missing = sorted(set(range(int(numbered[0].group(2)))) - have) if numbered[0] else []
                if missing:
                    raise ValueError(f"{folder}: {split} shard {missing[0]} is missing ({len(have)} of {len(have) + len(missing)} there)")
            return found
    return []


def read_parquet(folder: Path, split: str, workers: int) -> Pixels:
    """A split of `struct<bytes, path>` images and integer labels, from one or many shards."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError("reading Parquet needs pyarrow: pip install pyarrow") from None
    shards = parquet_shards(folder, split)
    if not shards:
        raise ValueError(f"{folder}: no Parquet shard for the {split} split (looked for {split}*.parquet)")
    payloads: list[bytes] = []
    labels: list[np.ndarray] = []
    classes: tuple[str, ...] = ()
    for shard in shards:
        try:
            schema = parquet.read_schema(shard)
            image, label = _image_and_label(schema, shard)
            table = parquet.read_table(shard, columns=[image, label], use_threads=workers > 1)
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{shard} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
        column = table.column(image).combine_chunks()
        payloads += (column.field("bytes") if arrow.types.is_struct(column.type) else column).to_pylist()
        if table.column(label).null_count:
            raise ValueError(f"{shard}: column {label} has rows without a label")
        labels.append(table.column(label).to_numpy().astype(np.int64))
        classes = classes or _hub_class_names(schema, label)
    if None in payloads:
        raise ValueError(f"{folder}: {split} row {payloads.index(None)} holds no image bytes (only a path?)")
    images = decode_all(payloads, lambda i: f"{folder} {split} row {i}", workers)
    return images, np.concatenate(labels), classes


def _image_and_label(schema: Any, shard: Path) -> tuple[str, str]:
    """The names of the image column (struct with bytes, or binary) and of the label column (integer)."""
    from pyarrow import types
    images = [field.name for field in schema if types.is_binary(field.type) or types.is_large_binary(field.type)
              or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)]
    labels = [field.name for field in schema if types.is_integer(field.type) and "label" in field.name]
    labels.sort(key=lambda name: ("label", "labels", "fine_label").index(name) if name in ("label", "labels", "fine_label") else 9)
    if not images or not labels:
        raise ValueError(f"{shard}: needs an image column (struct with bytes) and an integer label column, "
                         f"found {', '.join(f'{field.name}: {field.type}' for field in schema)}")
    return images[0], labels[0]


def _hub_class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Class names from the hub's schema metadata, where there are any."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


# CIFAR's own batches ----------------------------------------------------------------------------------------------------------

_BATCH_FILES = {
    # layout: (marker file, train files, test files, file of class names, label key or label byte, data set)
    "python10": ("data_batch_1", [f"data_batch_{k}" for k in range(1, 6)], ["test_batch"], "batches.meta", "labels", "cifar10"),
    "python100": ("meta", ["train"], ["test"], "meta", "fine_labels", "cifar100"),
    "binary10": ("data_batch_1.bin", [f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"], "batches.meta.txt", 1,
                 "cifar10"),
    "binary100": ("train.bin", ["train.bin"], ["test.bin"], "fine_label_names.txt", 2, "cifar100"),
}
_BATCH_FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")


def batches_folder(folder: Path) -> tuple[Path, str] | None:
    """(folder, layout) of CIFAR-10 or CIFAR-100 batches in `folder` or its usual subfolders, else None."""
    for inner in _BATCH_FOLDERS:
        for layout, (marker, *_) in _BATCH_FILES.items():
            if (folder / inner / marker).is_file() and (layout != "python100" or (folder / inner / "train").is_file()):
                return folder / inner, layout
    return None


def read_batches(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str]:
    """A split of the python or binary batches, and the data set that this layout belongs to ("cifar10", "cifar100")."""
    found = batches_folder(folder)
    if found is None:
        raise ValueError(f"{folder}: no CIFAR batches (looked for data_batch_1, data_batch_1.bin, meta, train.bin)")
    where, layout = found
    _, train, test, names_file, label, name = _BATCH_FILES[layout]
    images, labels = [], []
    for file in train if split == "train" else test:
        path = where / file
        if not path.is_file():
            raise ValueError(f"{path} is missing: the {split} split needs {', '.join(train if split == 'train' else test)}")
        pixels, targets = _python_batch(path, str(label)) if layout.startswith("python") else _binary_batch(path, int(label))
        images.append(pixels)
        labels.append(targets)
    planar = np.concatenate(images).reshape(-1, 3, 32, 32)
    target = np.concatenate(labels)
    classes = _batch_class_names(where / names_file, label) or tuple(str(k) for k in range(10 if name == "cifar10" else 100))
    return np.ascontiguousarray(planar.transpose(0, 2, 3, 1)), target, classes, name


def _python_batch(path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    content = restricted_unpickle(path)
    if not isinstance(content, dict) or b"data" not in content or key.encode() not in content:
        raise ValueError(f"{path}: a CIFAR batch needs data and {key}")
    pixels, targets = content[b"data"], np.asarray(content[key.encode()])
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 \
            or targets.shape != (len(pixels),) or targets.dtype.kind not in "iu":
        raise ValueError(f"{path}: data must be uint8 (N, 3072) with N whole-number labels")
    return pixels, targets.astype(np.int64)


def _binary_batch(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    record = label_bytes + 3072  # CIFAR-100 has a coarse label before the fine one
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % record:
        raise ValueError(f"{path}: {len(content)} bytes is not a whole number of {record}-byte records; the file is cut off or foreign")
    rows = content.reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _batch_class_names(path: Path, label: str | int) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    if isinstance(label, int):
        return tuple(path.read_text().split())
    content = restricted_unpickle(path)
    names = content.get(b"label_names" if label == "labels" else b"fine_label_names") if isinstance(content, dict) else None
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names or ())


class _ArraysOnly(pickle.Unpickler):
    """Builds numbers, text, lists, dicts and numpy arrays; any other object in the file is refused, so no code runs."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct, frombuffer = np.zeros(0).__reduce__()[0], np.zeros(0).__reduce_ex__(5)[0]
        allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _latin1}
        for core in ("numpy.core", "numpy._core"):
            allowed[core + ".multiarray", "_reconstruct"] = reconstruct
            allowed[core + ".numeric", "_frombuffer"] = frombuffer
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which has no place in a batch of images")
        return allowed[module, name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of protocol 2 call to carry bytes."""
    return text.encode("latin1")


def restricted_unpickle(path: Path) -> Any:
    """The content of a pickle that holds plain data and numpy arrays; ValueError for anything else. Keys are bytes."""
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
            MemoryError, ImportError) as error:
        raise ValueError(f"{path} is not a readable batch: {str(error) or type(error).__name__}") from None


# Folders of images --------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class FolderSet:
    """One split of an image folder, decoded image by image: a sequence of uint8 (H,W,3) whose sizes may differ."""

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

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`; ValueError names the file when it can't be read, IndexError ends an iteration."""
        return decode(self.paths[index].read_bytes(), str(self.paths[index]))


def split_folder(folder: Path, split: str) -> Path | None:
    """The subfolder that holds a split, under any of its usual names."""
    return next((folder / alias for alias in SPLIT_ALIASES[split] if (folder / alias).is_dir()), None)


def class_folders(folder: Path, split: str) -> list[Path]:
    """The class folders of a split, sorted by name; hidden ones are left out."""
    where = split_folder(folder, split)
    return sorted(path for path in where.iterdir() if path.is_dir() and not path.name.startswith(".")) if where else []


def read_imagefolder(folder: Path, split: str, image_size: int, workers: int, on_error: str) -> Pixels | FolderSet:
    """<split>/<class>/*.png|jpg…; a FolderSet when sizes differ or memory is short, which needs image_size > 0."""
    paths, labels, classes = list_imagefolder(folder, split)
    sizes = _in_threads(lambda i: _header_size(paths[i], on_error), range(len(paths)), workers)
    good = [i for i, size in enumerate(sizes) if size]
    if not good:
        raise ValueError(f"{folder}: no image of the {split} split can be read")
    shapes = tuple((sizes[i][1], sizes[i][0], 3) for i in good)
    files = FolderSet(tuple(paths[i] for i in good), shapes, labels[good], classes, folder.resolve().name, split)
    odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if image_size and (odd is not None or len(files) * int(np.prod(shapes[0])) > MEMORY_LIMIT):
        return files
    if odd is not None:
        raise ValueError(f"{files.paths[odd]} is {_size(shapes[odd])} but {files.paths[0]} is {_size(shapes[0])}; "
                         "set data.image_size to crop images of several sizes")
    images = np.empty((len(files), *shapes[0]), np.uint8)
    kept = np.ones(len(files), bool)

    def work(i: int) -> None:
        try:
            images[i] = files[i]
        except ValueError:
            if on_error == "raise":
                raise
            kept[i] = False
    _in_threads(work, range(len(files)), workers)
    return (images, files.labels, classes) if kept.all() else (images[kept], files.labels[kept], classes)


def list_imagefolder(folder: Path, split: str) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """(paths, labels, class names) of a split; classes come from the training folder and must be the same in test."""
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
        raise ValueError(f"{where}: " + (f"class folder {missing[0]} is missing, it is in train/" if missing else
                                         f"class folder {extra[0]} is not in train/"))
    paths: list[Path] = []
    labels: list[int] = []
    for label, inner in enumerate(here):
        files = sorted(p for p in inner.rglob("*") if p.suffix.lower() in IMAGE_ENDS and not p.name.startswith("."))
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


# torchvision's downloads ----------------------------------------------------------------------------------------------------------

def read_torchvision(name: str, root: Path, split: str, attempts: int = 3) -> Pixels:
    """A split of CIFAR-10, CIFAR-100, SVHN or STL-10, downloaded into `root` (checksum by torchvision) when not there yet."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: operator torchvision::nms does not exist
        raise ValueError(f"torchvision can't be imported ({str(error).splitlines()[0]}); install the torchvision that matches this torch, "
                         "or use data.source=parquet, batches or imagefolder with data.root") from None
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
            raise ValueError(f"{name} through torchvision needs {error.name}: pip install {error.name}") from None
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a checksum that differs is a RuntimeError
            if attempt == attempts - 1:
                raise ValueError(
                    f"can't download {name} into {root} ({attempts} attempts): {str(error).splitlines()[0]}. Offline? Point "
                    "FASTRESNET_DATA or data.root at a folder with Parquet shards, CIFAR batches or betons, or ask for drawn images with "
                    "--data.source=synthetic") from None
            time.sleep(2 ** attempt * 0.5)
    pixels = np.asarray(data.data)
    labels = np.asarray(data.targets if hasattr(data, "targets") else data.labels).astype(np.int64)
    classes = tuple(getattr(data, "classes", ())) or tuple(str(k) for k in range(10))
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels), labels, classes
