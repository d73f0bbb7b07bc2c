"""Encoded images to pixels, one or many, on threads. Knows no file layout."""

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Pixels = tuple[
    np.ndarray, np.ndarray, tuple[str, ...]
]  # images (N,H,W,3) uint8, labels (N,) int64, class names


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
                raise ValueError(
                    f"{names(i)} is {size_text(image.shape)} but {names(0)} is {size_text(first.shape)}; all"
                    " images of this source must be of one size"
                )
            images[i] = image

    in_threads(work, range(0, len(payloads), 256), workers)
    return images


def size_text(shape: tuple[int, ...]) -> str:
    """(H,W,...) as people say it: 640x480 px."""
    return f"{shape[1]}x{shape[0]} px"


def in_threads(work: Callable[[int], Any], items: Iterable[int], workers: int) -> list[Any]:
    """work(item) for every item on `workers` threads, results in order; the first error ends it."""
    if workers == 1:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
