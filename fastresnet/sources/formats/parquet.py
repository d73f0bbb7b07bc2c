"""Parquet shards in the layout of the Hugging Face hub: struct<bytes, path> images and integer labels."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastresnet.sources.formats.decode import Pixels, decode_all
from fastresnet.sources.formats.names import SPLIT_ALIASES


def parquet_shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, in the folder itself or one level down; ValueError when a numbered shard
    is missing."""
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))
    for alias in SPLIT_ALIASES[split]:
        found = [
            path
            for path in files
            if re.match(rf"{alias}([-_.]|$)", path.name) or path.parent.name == alias != folder.name
        ]
        if found:
            numbered = [re.search(r"-(\d+)-of-(\d+)\.parquet$", path.name) for path in found]
            if all(numbered):
                have = {int(match.group(1)) for match in numbered if match}
                missing = sorted(set(range(int(numbered[0].group(2)))) - have) if numbered[0] else []
                if missing:
                    raise ValueError(
                        f"{folder}: {split} shard {missing[0]} is missing ({len(have)} of"
                        f" {len(have) + len(missing)} there)"
                    )
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
            raise ValueError(
                f"{shard} is not a readable Parquet file: {str(error).splitlines()[0]}"
            ) from None
        column = table.column(image).combine_chunks()
        payloads += (column.field("bytes") if arrow.types.is_struct(column.type) else column).to_pylist()
        if table.column(label).null_count:
            raise ValueError(f"{shard}: column {label} has rows without a label")
        labels.append(table.column(label).to_numpy().astype(np.int64))
        classes = classes or _hub_class_names(schema, label)
    empty = next((row for row, payload in enumerate(payloads) if payload is None), None)
    if empty is not None:
        raise ValueError(f"{folder}: {split} row {empty} holds no image bytes (only a path?)")
    images = decode_all(payloads, lambda i: f"{folder} {split} row {i}", workers)
    return images, np.concatenate(labels), classes


def _image_and_label(schema: Any, shard: Path) -> tuple[str, str]:
    """The names of the image column (struct with bytes, or binary) and of the label column (integer)."""
    from pyarrow import types

    images = [
        field.name
        for field in schema
        if types.is_binary(field.type)
        or types.is_large_binary(field.type)
        or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    labels = [field.name for field in schema if types.is_integer(field.type) and "label" in field.name]
    labels.sort(
        key=lambda name: (
            ("label", "labels", "fine_label").index(name) if name in ("label", "labels", "fine_label") else 9
        )
    )
    if not images or not labels:
        raise ValueError(
            f"{shard}: needs an image column (struct with bytes) and an integer label column, "
            f"found {', '.join(f'{field.name}: {field.type}' for field in schema)}"
        )
    return images[0], labels[0]


def _hub_class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Class names from the hub's schema metadata, where there are any."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
