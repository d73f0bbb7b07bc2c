"""What a set of labelled images hashes to, whatever their order; and the seal at the end of a weights file.

Knows no formats: a sample is a label and bytes, a sealed file bytes and their SHA-256 behind them.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
SEAL = b"fastresnet checkpoint, SHA-256 of all before: "
SEAL_BYTES = len(SEAL) + 64
CHUNK = 2**20
WIDE = 255  # where a label is larger, all are written as eight bytes


def sample_digests(labels: Sequence[int], samples: Iterable[bytes | memoryview], wide: bool) -> list[bytes]:
    """sha256 of each label (one byte, or eight little-endian bytes where `wide`) followed by its bytes."""
    sha256, size = hashlib.sha256, 8 if wide else 1
    return [
        sha256(b"".join((label.to_bytes(size, "little"), sample))).digest()
        for label, sample in zip(labels, samples, strict=True)
    ]


def combined(digests: Iterable[bytes]) -> str:
    """sha256 over the sorted digests of all samples, as hex: the same in any order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def is_wide(labels: Labels) -> bool:
    """Whether these labels need more than a byte each."""
    return bool(len(labels)) and int(labels.max()) > WIDE


def content_digest(images: Iterable[NDArray[np.uint8]], labels: Labels) -> str:
    """The digest of images uint8 (H,W,3), of one size or several, and labels int64 (N,) from 0."""
    pixels = (np.ascontiguousarray(image).data for image in images)
    return combined(sample_digests(labels.tolist(), pixels, is_wide(labels)))


# ---- sealed files ------------------------------------------------------------------------------------------


def seal(path: Path) -> None:
    """Seal a zip archive, as `torch.save` writes it: the seal is its comment, which others pass over."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment ends an archive that has none yet
        file.write(struct.pack("<H", SEAL_BYTES))
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.write(SEAL + _digest(path, size))


def is_sealed(path: Path) -> bool:
    """Whether the file ends with a seal, be it right or not."""
    return _seal_of(path).startswith(SEAL)


def verify(path: Path) -> None:
    """Raises ValueError unless the file carries its seal and the seal fits."""
    found = _seal_of(path)
    if not found.startswith(SEAL):
        raise ValueError(
            f"{path}: damaged, or not a checkpoint of this release: it doesn't end with the seal of one "
            "(bare weights go to model.pretrained)"
        )
    if found != SEAL + _digest(path, path.stat().st_size - SEAL_BYTES):
        raise ValueError(f"{path}: damaged, its bytes don't fit its seal: take another checkpoint of the run")


def _seal_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - SEAL_BYTES, 0))
        return file.read(SEAL_BYTES)


def _digest(path: Path, size: int) -> bytes:
    """SHA-256, as 64 hexadecimal digits, of the first `size` bytes as the file holds them now."""
    hashed, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            hashed.update(chunk)
            left -= len(chunk)
    return hashed.hexdigest().encode()
