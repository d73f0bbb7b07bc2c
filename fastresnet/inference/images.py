"""Image files as the network wants them: uint8, RGB, square. Runs no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastresnet.base import pictures
from fastresnet.base.pictures import ENDINGS, Pixels

LONGEST = 100  # times its shorter side: a narrower strip would be blown up to gigabytes


def find(names: Sequence[str]) -> list[Path]:
    """The image files that `names` mean; a folder stands for all images in and below it, in order.

    Raises ValueError for a name that doesn't exist, and for a folder without images.
    """
    return [path for name in names for path in _meant(Path(name))]


def _meant(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"{path}: no such file{' or folder' if not path.exists() else ': a pipe or a device'}"
        )
    inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    if not inside:
        raise ValueError(f"{path}: a folder without images ({', '.join(ENDINGS[:5])}, ...)")
    return inside


def read(source: Path | bytes, size: int, *, name: str = "standard input") -> Pixels:
    """One image as uint8 (size, size, 3): the shorter side is resized to `size`, the centre is kept.

    Raises ValueError as `pictures.decode`, which says how any picture becomes RGB, and for a strip.
    """
    name = str(source) if isinstance(source, Path) else name
    return fitted(pictures.decode(source, name), size, name)


def fitted(picture: Pixels, size: int, name: str) -> Pixels:
    """The same of a picture (H,W,3) in memory, which messages call `name`."""
    from PIL import Image

    upright = Image.fromarray(picture)
    if max(upright.size) > LONGEST * min(upright.size):
        shape = "x".join(map(str, upright.size))
        raise ValueError(f"{name}: a strip of {shape} px, more than {LONGEST} times as long as wide")
    scale = size / min(upright.size)
    sides = (max(size, round(upright.width * scale)), max(size, round(upright.height * scale)))
    resized = upright.resize(sides, Image.Resampling.LANCZOS) if upright.size != sides else upright
    left, top = ((side - size) // 2 for side in sides)
    return np.array(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


def read_all(paths: Sequence[Path], size: int) -> Pixels:
    """uint8 (N, size, size, 3); raises like `read`, and ValueError for no paths."""
    if not paths:
        raise ValueError("no images to read")
    return np.stack([read(path, size) for path in paths])
