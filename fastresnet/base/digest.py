"""What a set of labelled images hashes to, whatever their order: the name that no two sets share.

Knows neither files nor formats: a sample is a label and bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
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
