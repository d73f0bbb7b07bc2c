"""Reads a beton whole, with numpy alone; JPEGs through Pillow on several threads. Needs no ffcv."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np

from fastresnet.base import words
from fastresnet.base.cores import cores_usable
from fastresnet.beton.layout import CHANNELS, JPEG, RAW, BetonError, Layout, open_beton

_JPEG_BLOCK = 128  # images a thread decodes between looks at the queue


@dataclass(frozen=True)
class BetonInfo:
    """What a beton holds, without decoding it. Height and width are 0 where images differ in size."""

    num_samples: int
    height: int
    width: int
    uniform: bool
    modes: dict[str, int]  # images stored as "jpg" and as "raw"
    nbytes_pixels: int  # decoded size of everything, bytes
    nbytes_file: int
    page_size: int
    max_height: int
    max_width: int
    labels: tuple[int, int]  # smallest and largest


def inspect(path: str | Path) -> BetonInfo:
    """Sizes and modes of a checked beton; BetonError when it is not one."""
    return _describe(open_beton(path))


def _describe(layout: Layout) -> BetonInfo:
    uniform = layout.uniform
    jpegs = int((layout.modes == JPEG).sum())
    return BetonInfo(
        len(layout),
        int(layout.heights[0]) * uniform,
        int(layout.widths[0]) * uniform,
        uniform,
        {"jpg": jpegs, "raw": len(layout) - jpegs},
        int((layout.heights * layout.widths).sum()) * CHANNELS,
        layout.file.length,
        layout.page_size,
        int(layout.heights.max()),
        int(layout.widths.max()),
        (int(layout.labels.min()), int(layout.labels.max())),
    )


def labels(path: str | Path) -> np.ndarray:
    """The labels alone, int64 (N,)."""
    return open_beton(path).labels


def verify(path: str | Path, *, threads: int = 0, decode: int = -1, classes: int | None = None) -> BetonInfo:
    """Check everything a beton promises; BetonError names the first thing that is wrong.

    decode: so many JPEGs, evenly spread, are decoded too (-1: all); classes: labels must lie in 0..classes-1.
    """
    layout = open_beton(path)
    if classes is not None:
        _check_labels(layout, classes)
    jpegs = np.flatnonzero(layout.modes == JPEG)
    if 0 <= decode < len(jpegs):
        jpegs = jpegs[np.linspace(0, len(jpegs) - 1, decode).astype(np.int64)]
    _each_jpeg(layout, jpegs, lambda index, image: None, threads, "raise")
    return _describe(layout)


def _check_labels(layout: Layout, classes: int) -> None:
    wrong = np.flatnonzero((layout.labels < 0) | (layout.labels >= classes))
    if len(wrong):
        raise BetonError(
            f"{layout.path}: label {layout.labels[wrong[0]]} of sample {wrong[0]} lies outside"
            f" 0..{classes - 1}"
        )


@overload
def read(
    path: str | Path, *, threads: int = 0, on_error: Literal["raise"] = "raise"
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def read(path: str | Path, *, threads: int = 0, on_error: str) -> tuple[np.ndarray, ...]: ...


def read(path: str | Path, *, threads: int = 0, on_error: str = "raise") -> tuple[np.ndarray, ...]:
    """(images uint8 (N,H,W,3), labels int64 (N,)) of a beton with images of one size.

    With on_error="skip" a JPEG that can't be decoded is left out, and a third array holds the numbers of the
    samples left out     (int64, sorted). BetonError otherwise, and for images of several sizes.
    """
    layout = open_beton(path)
    if not layout.uniform:
        odd = int(np.argmax((layout.heights != layout.heights[0]) | (layout.widths != layout.widths[0])))
        raise BetonError(
            f"{path}: images differ in size (sample 0 is {layout.widths[0]}x{layout.heights[0]} px, sample"
            f" {odd} is {layout.widths[odd]}x{layout.heights[odd]} px); stream them with data.loader=ffcv and"
            " data.image_size"
        )
    shape = (len(layout), int(layout.heights[0]), int(layout.widths[0]), CHANNELS)
    jpegs = np.flatnonzero(layout.modes == JPEG)
    try:
        images = np.empty(shape, np.uint8)
    except MemoryError:
        raise BetonError(f"{path}: {words.size(int(np.prod(shape)))} of pixels don't fit in memory") from None
    _copy_raw(layout, np.flatnonzero(layout.modes == RAW), images)

    def keep(index: int, image: np.ndarray) -> None:
        images[index] = image

    skipped = _each_jpeg(layout, jpegs, keep, threads, on_error)
    layout.file.check_unchanged()
    if on_error == "raise":
        return images, layout.labels
    if len(skipped) == len(layout):
        raise BetonError(f"{path}: not one image can be decoded")
    good = np.setdiff1d(np.arange(len(layout)), skipped)
    return (
        (images, layout.labels, skipped) if not len(skipped) else (images[good], layout.labels[good], skipped)
    )


def _copy_raw(layout: Layout, samples: np.ndarray, images: np.ndarray) -> None:
    """Raw images into their places, straight from the file: one read for each run of neighbouring samples."""
    if not len(samples):
        return
    size = images[0].nbytes
    pointers = layout.pointers[samples]
    even = (np.diff(pointers) == size) & (np.diff(samples) == 1)
    starts = np.concatenate([[0], np.flatnonzero(~even) + 1])
    ends = np.append(starts[1:], len(samples))
    flat = images.reshape(len(images), size)
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        run = flat[samples[first] : samples[first] + last - first].reshape(-1)
        layout.file.read_into(int(pointers[first]), memoryview(run))


def read_one(layout: Layout, index: int) -> np.ndarray:
    """One image of an opened beton, uint8 (H,W,3); BetonError names the sample when it can't be decoded."""
    height, width = int(layout.heights[index]), int(layout.widths[index])
    if layout.modes[index] == RAW:
        return np.frombuffer(layout.payload(index), np.uint8).reshape(height, width, CHANNELS)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(layout.payload(index)), formats=("JPEG",)) as image:
            if image.size != (width, height):
                raise BetonError(
                    f"{layout.path}: sample {index} is a JPEG of {image.size[0]}x{image.size[1]} px but"
                    f" should be {width}x{height} px"
                )
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except BetonError:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise BetonError(f"{layout.path}: the JPEG of sample {index} can't be decoded: {error}") from None


def _each_jpeg(
    layout: Layout, samples: np.ndarray, keep: Callable[[int, np.ndarray], None], threads: int, on_error: str
) -> np.ndarray:
    """keep(index, image) for each JPEG, on threads; returns the samples that were skipped."""
    skipped: list[int] = []

    def work(block: np.ndarray) -> None:
        for index in block.tolist():
            try:
                keep(index, read_one(layout, index))
            except BetonError:
                if on_error == "raise":
                    raise
                skipped.append(index)

    blocks = [samples[i : i + _JPEG_BLOCK] for i in range(0, len(samples), _JPEG_BLOCK)]
    threads = min(threads or cores_usable(), len(blocks))
    if threads <= 1:
        for block in blocks:
            work(block)
    else:
        pool = ThreadPoolExecutor(threads)
        try:
            list(pool.map(work, blocks))
        finally:
            pool.shutdown(cancel_futures=True)
    return np.asarray(sorted(skipped), np.int64)


def jpeg_payloads(path: str | Path) -> list[bytes]:
    """The encoded bytes of every image, for decoding on a device; BetonError when an image is stored raw."""
    layout = open_beton(path)
    if (layout.modes != JPEG).any():
        raise BetonError(
            f"{path}: sample {int(np.argmax(layout.modes != JPEG))} is stored raw, not as a JPEG"
        )
    return [layout.payload(i) for i in range(len(layout))]


def each_image(path: str | Path) -> Iterator[np.ndarray]:
    """Every image in sample order, uint8 (H,W,3), of one size or several; BetonError names what can't be
    decoded."""
    layout = open_beton(path)
    return (read_one(layout, i) for i in range(len(layout)))
