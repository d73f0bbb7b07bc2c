"""The .json beside a beton: what the images are. A sidecar that does not fit its beton is an error, not a
hint."""

import hashlib
import json
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from fastresnet.base import files
from fastresnet.beton.layout import BetonError, open_beton

SEALED_BLOCKS, SEALED_BLOCK = 64, 4096  # so many pieces of so many bytes of the data
KEYS = {
    "name": str,
    "split": str,
    "digest": str,
    "class_names": list,
    "mean": list,
    "std": list,
    "count": int,
    "source": str,
    "synthetic": bool,
    "seal": str,
}


class Stored(TypedDict, total=False):
    """How a beton was made; all that changes its pixels."""

    mode: str  # raw, jpg, proportion or smart
    quality: int  # of its JPEGs
    origin: dict[str, str | int]  # of its images: the source, its files, a size they were shrunk to


class Facts(Stored):
    """What a beton's images are. mean and std are the training set's, per channel, in 0..1 units."""

    name: str
    split: str
    digest: str  # content_digest of the images before any JPEG compression
    class_names: list[str]
    mean: list[float]
    std: list[float]
    count: int
    source: str
    synthetic: bool


def sidecar_path(path: str | Path) -> Path:
    """train.beton -> train.beton.json"""
    return Path(f"{path}.json")


def seal(path: str | Path) -> str:
    """Identifies the bytes of a beton in milliseconds: sha256 of header, metadata, table, blocks of data."""
    layout = open_beton(path)
    file, start, end = layout.file, layout.data_start, layout.table_start
    hashed = hashlib.sha256(str(file.length).encode())
    hashed.update(file.read(0, start))
    hashed.update(file.read(end, file.length - end))
    for block in np.linspace(start, end - SEALED_BLOCK, SEALED_BLOCKS).astype(np.int64).tolist():
        hashed.update(file.read(block, SEALED_BLOCK))
    return hashed.hexdigest()


def read_sidecar(path: str | Path) -> Facts | None:
    """The checked facts beside the beton at `path`, or None where there is no sidecar.

    Keys: name, split, digest (content_digest of the images before any JPEG compression), class_names,
    mean and std (0..1 units, per channel), count, source, synthetic.
    BetonError when it is broken or belongs to another beton.
    """
    file = sidecar_path(path)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BetonError(f"{file} is not readable JSON ({error}); delete it or convert again") from None
    wrong = [
        key
        for key, kind in KEYS.items()
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind)
    ]
    if wrong:
        raise BetonError(
            f"{file}: {wrong[0]} is missing or of the wrong type; delete the file or convert again"
        )
    if any(
        len(facts[key]) != 3 or not all(isinstance(x, float) and 0 <= x <= 1 for x in facts[key])
        for key in ("mean", "std")
    ):
        raise BetonError(f"{file}: mean and std must be three numbers between 0 and 1")
    if facts["seal"] != seal(path):
        raise BetonError(
            f"{file} belongs to another beton than {Path(path).name} (count, labels or bytes differ); convert"
            " again"
        )
    return cast(Facts, facts)


def write_sidecar(path: str | Path, facts: Facts, sealed: str) -> None:
    """Write the facts beside `path`, atomically, with the seal of the beton they describe."""
    files.write_text(sidecar_path(path), json.dumps({**facts, "seal": sealed}, indent=1) + "\n")
