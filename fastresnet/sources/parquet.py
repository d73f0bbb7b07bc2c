"""Parquet shards in the layout of the Hugging Face hub: struct<bytes, path> images and integer labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastresnet.base import pictures
from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels
from fastresnet.base.system import on_threads
from fastresnet.sources.image_set import SPLIT_ALIASES, ImageSet, SourceError, numbered
from fastresnet.sources.request import Request, Source

if TYPE_CHECKING:
    import pyarrow

LABEL_COLUMNS = ("label", "labels", "fine_label")  # preferred in this order
BLOCK = 256  # images that a thread decodes between two looks at the queue


def read(request: Request, split: str) -> ImageSet:
    """A split of one or many shards; SourceError names the file, the shard or the row that is wrong."""
    folder = request.folder("parquet")
    paths = shards(folder, split)
    if not paths:
        raise SourceError(f"{folder}: no Parquet shard for the {split} split (looked for {split}*.parquet)")
    parts = [_read_shard(path, request) for path in paths]
    payloads = [payload for part, _, _ in parts for payload in part]
    labels = np.concatenate([labels for _, labels, _ in parts])
    told = next((names for _, _, names in parts if names), ())
    names = told or numbered(int(labels.max(initial=0)) + 1, f"{folder} {split} set")
    images = _decoded(payloads, f"{folder} {split} row", request)
    return ImageSet(images, labels, names, folder.resolve().name, split, "parquet")


def shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, here or one folder down; SourceError when a numbered one is missing."""
    files = _files(folder, "*.parquet") or _files(folder, "*/*.parquet")
    for alias in SPLIT_ALIASES[split]:
        named = re.compile(rf"{alias}([-_.]|$)")
        found = [path for path in files if named.match(path.name) or path.parent.name == alias != folder.name]
        if found:
            _check_complete(folder, split, found)
            return found
    return []


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files alone: a pipe would be waited for."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _check_complete(folder: Path, split: str, found: list[Path]) -> None:
    """SourceError when shards are numbered, as train-00000-of-00003, and one isn't there."""
    matches = [re.search(r"-(\d+)-of-(\d+)\.parquet$", path.name) for path in found]
    numbers = [(int(match[1]), int(match[2])) for match in matches if match]
    if len(numbers) < len(found):
        return
    missing = sorted(set(range(numbers[0][1])) - {number for number, _ in numbers})
    if missing:
        raise SourceError(
            f"{folder}: {split} shard {missing[0]} is missing ({len(numbers)} of {numbers[0][1]} there)"
        )


def _read_shard(path: Path, request: Request) -> tuple[Sequence[bytes | None], Labels, tuple[str, ...]]:
    """(encoded images, labels, class names or ()) of one file."""
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError:
        raise SourceError("reading Parquet needs pyarrow: pip install pyarrow") from None
    try:
        schema = parquet.read_schema(path)
        image, label = _columns(schema, path)
        table = _table(path, [image, label], request)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    column = table.column(image).combine_chunks()
    if table.column(label).null_count:
        raise SourceError(f"{path}: column {label} has rows without a label")
    payloads = column.field("bytes") if types.is_struct(column.type) else column
    labels = table.column(label).to_numpy().astype(np.int64)
    return payloads.to_pylist(), labels, _hub_class_names(schema, label)


def _table(path: Path, columns: list[str], request: Request) -> pyarrow.Table:
    """These columns of a file; what they take is checked on the way: far more than the file, where packed."""
    import pyarrow
    from pyarrow import parquet

    batches, taken = [], 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BLOCK, columns=columns):
            batches.append(batch)
            taken += batch.nbytes
            request.check_memory(str(path), taken)
        return pyarrow.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()


def _columns(schema: pyarrow.Schema, path: Path) -> tuple[str, str]:
    """The names of the image column (struct with bytes, or binary) and of the label column (integer)."""
    from pyarrow import types

    def are_bytes(kind: pyarrow.DataType) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def holds_images(kind: pyarrow.DataType) -> bool:
        if not types.is_struct(kind):
            return are_bytes(kind)
        place = kind.get_field_index("bytes")
        return bool(place >= 0) and are_bytes(kind.field(place).type)

    def rank(name: str) -> int:
        return LABEL_COLUMNS.index(name) if name in LABEL_COLUMNS else len(LABEL_COLUMNS)

    images = [field.name for field in schema if holds_images(field.type)]
    labels = [field.name for field in schema if types.is_integer(field.type) and "label" in field.name]
    if not images or not labels:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise SourceError(
            f"{path}: needs an image column (struct with bytes) and an integer label column, found {found}"
        )
    return images[0], min(labels, key=rank)


def _hub_class_names(schema: pyarrow.Schema, label: str) -> tuple[str, ...]:
    """Class names from the hub's schema metadata, where there are any."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return ()


def _decoded(payloads: Sequence[bytes | None], what: str, request: Request) -> Pixels:
    """Encoded images of one size as uint8 (N,H,W,3); `what` and the row's number name one that is wrong."""
    if not payloads:
        return np.empty((0, 0, 0, 3), np.uint8)
    first = _one(payloads[0], f"{what} 0")
    request.check_memory(what.removesuffix(" row"), len(payloads) * first.nbytes)
    images = np.empty((len(payloads), *first.shape), np.uint8)

    def work(start: int) -> None:
        for row in range(start, min(start + BLOCK, len(payloads))):
            image = _one(payloads[row], f"{what} {row}")
            if image.shape != first.shape:
                raise SourceError(
                    f"{what} {row} is {_size(image)} but {what} 0 is {_size(first)};"
                    " all images of this source must be of one size"
                )
            images[row] = image

    on_threads(work, range(0, len(payloads), BLOCK), request.workers)
    return images


def _one(payload: bytes | None, name: str) -> Pixels:
    if payload is None:
        raise SourceError(f"{name} holds no image bytes (only a path?)")
    return pictures.decode(payload, name)


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]} px"


SOURCE = Source(read, holds=lambda folder: bool(shards(folder, "train")), endings=(".parquet",))
