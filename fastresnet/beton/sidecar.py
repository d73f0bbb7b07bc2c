"""The .json beside a beton: what the images are, and checksums of every byte. A wrong one is an error."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, TypedDict, cast

from fastresnet.base import files
from fastresnet.base.sinks import harmless
from fastresnet.beton.file import BetonError
from fastresnet.beton.layout import Layout
from fastresnet.beton.pages import Checksums, PageCheck, ends


class Stored(TypedDict, total=False):
    """How a beton was made; all that changes its pixels."""

    mode: str  # raw, jpg, proportion or smart
    quality: int  # of its JPEGs
    origin: dict[str, str | int | float]  # of its images: the source, its files, a size they were shrunk to
    stored_digest: str  # of labels and images as they are stored; equal to `digest` where all are raw
    test_drawn: dict[str, float]  # how a source without a test set was cut: fraction, seed, duplicates
    counted: int  # images that mean and std are of, where not all


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


TEXTS = ("name", "split", "digest", "stored_digest", "source", "seal")
LISTS = ("class_names", "mean", "std")
KINDS: dict[str, type] = {key: str for key in TEXTS} | {key: list for key in LISTS}
DRAWN = {"fraction", "seed", "duplicates"}  # what `test_drawn` holds, if anything
KINDS |= {"count": int, "synthetic": bool, "checksums": dict}
MAY_HOLD: dict[str, type] = {"mode": str, "quality": int, "origin": dict, "counted": int}


def sidecar_path(path: str | Path) -> Path:
    """train.beton -> train.beton.json"""
    return Path(f"{path}.json")


def read_sidecar(layout: Layout) -> tuple[Facts, PageCheck] | None:
    """The facts beside an opened beton and what checks its pages, or None where there is no sidecar.

    BetonError when it is broken, was edited, or belongs to another beton.
    """
    file = sidecar_path(layout.path)
    content = _content(file)
    if content is None:
        return None
    sums: Checksums = content["checksums"]
    pages = (layout.table_start - layout.data_start) // layout.page_size
    same_ends = ends(layout) == {"front": sums["front"], "table": sums["table"]}
    if not same_ends or len(sums["pages"]) != pages or content["count"] != len(layout):
        raise BetonError(
            f"{file} belongs to another beton than {layout.path.name} (count, labels or bytes differ);"
            " convert again"
        )
    told = harmless({key: content[key] for key in content if key != "origin"})
    return cast(Facts, {**content, **told}), PageCheck(layout, sums["pages"])


def write_sidecar(path: str | Path, facts: Facts, sums: Checksums) -> None:
    """Write the facts beside `path`, atomically, with the checksums of the beton they describe."""
    content = {**facts, "checksums": sums}
    files.write_text(sidecar_path(path), json.dumps({**content, "seal": _seal(content)}, indent=1) + "\n")


def _seal(content: dict[str, Any]) -> str:
    """Of all that a sidecar says: what was edited no longer bears it."""
    text = json.dumps({key: content[key] for key in content if key != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(file: Path) -> dict[str, Any] | None:
    """All that a sidecar says, checked as far as it goes without the beton; None where there is none."""
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is a pipe, a device or a folder")
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BetonError(f"{file} is not readable JSON ({error}); delete it or convert again") from None
    wrong = [
        key for key in KINDS if not isinstance(content, dict) or not isinstance(content.get(key), KINDS[key])
    ]
    wrong = wrong or [key for key, kind in MAY_HOLD.items() if not isinstance(content.get(key, kind()), kind)]
    if wrong:
        raise BetonError(
            f"{file}: {wrong[0]} is missing or of the wrong type; convert again, or delete the file"
        )
    if not _are_facts(content):
        raise BetonError(
            f"{file}: classes are names, mean and std three numbers from 0 to 1, test_drawn three "
            "numbers, checksums texts"
        )
    if content["seal"] != _seal(content):
        raise BetonError(f"{file} was edited since it was written; convert again, or delete the file")
    return content


def _are_facts(content: dict[str, Any]) -> bool:
    """Whether what lies inside the lists of a sidecar is what should lie there."""
    sums, shares = content["checksums"], (content["mean"], content["std"])
    drawn = content.get("test_drawn", dict.fromkeys(DRAWN, 0))
    if not isinstance(drawn, dict) or set(drawn) != DRAWN or not all(map(_is_number, drawn.values())):
        return False
    texts = [*content["class_names"], sums.get("front"), sums.get("table"), *(sums.get("pages") or [None])]
    numbers = all(
        len(values) == 3 and all(isinstance(x, float) and 0 <= x <= 1 for x in values) for values in shares
    )
    return numbers and all(isinstance(text, str) for text in texts)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
