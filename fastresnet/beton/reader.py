"""Reads a beton whole, with numpy alone; JPEGs on several threads. Needs no ffcv."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastresnet.base import pictures, words
from fastresnet.base.digest import Labels
from fastresnet.base.pictures import PictureError, Pixels
from fastresnet.base.threads import blocks, on_threads
from fastresnet.beton.layout import CHANNELS, JPEG, RAW, BetonError, Layout, open_beton

JPEG_BLOCK = 128  # images a thread decodes between looks at the queue
Samples = NDArray[np.int64]  # numbers of samples in a beton


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


def labels(path: str | Path) -> Labels:
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
    _decode_into(None, layout, jpegs, threads, skip=False)
    return _describe(layout)


def _check_labels(layout: Layout, classes: int) -> None:
    wrong = np.flatnonzero((layout.labels < 0) | (layout.labels >= classes))
    if len(wrong):
        first = f"label {layout.labels[wrong[0]]} of sample {wrong[0]}"
        raise BetonError(f"{layout.path}: {first} lies outside 0..{classes - 1}")


class Read(NamedTuple):
    """What was read of a beton."""

    images: Pixels  # (N,H,W,3)
    labels: Labels  # (N,)
    skipped: Samples  # those left out, sorted


def read(path: str | Path, *, threads: int = 0) -> tuple[Pixels, Labels]:
    """(images uint8 (N,H,W,3), labels int64 (N,)) of a beton; BetonError where sizes differ, too."""
    whole = read_whole(path, threads=threads)
    return whole.images, whole.labels


def read_whole(path: str | Path, *, threads: int = 0, on_error: str = "raise") -> Read:
    """As `read`; on_error="skip" leaves out JPEGs that can't be decoded (BetonError where none can)."""
    whole = _read(path, threads, skip=on_error == "skip")
    good = np.setdiff1d(np.arange(len(whole.labels)), whole.skipped)
    if not len(good):
        raise BetonError(f"{path}: not one image can be decoded")
    return whole if not len(whole.skipped) else Read(whole.images[good], whole.labels[good], whole.skipped)


def _read(path: str | Path, threads: int, skip: bool) -> Read:
    """All samples; what stands in the places of those skipped is undefined."""
    layout = open_beton(path)
    images = _space_for(layout)
    _copy_raw(layout, np.flatnonzero(layout.modes == RAW), images)
    skipped = _decode_into(images, layout, np.flatnonzero(layout.modes == JPEG), threads, skip)
    layout.file.check_unchanged()
    return Read(images, layout.labels, skipped)


def _space_for(layout: Layout) -> Pixels:
    """Memory for all images, which must be of one size."""
    if not layout.uniform:
        odd = int(np.argmax((layout.heights != layout.heights[0]) | (layout.widths != layout.widths[0])))
        raise BetonError(
            f"{layout.path}: images differ in size (sample 0 is {layout.size_text(0)}, sample {odd} is"
            f" {layout.size_text(odd)}); stream them with data.loader=ffcv and data.image_size"
        )
    shape = (len(layout), int(layout.heights[0]), int(layout.widths[0]), CHANNELS)
    try:
        return np.empty(shape, np.uint8)
    except MemoryError:
        size = words.size(int(np.prod(shape)))
        raise BetonError(f"{layout.path}: {size} of pixels don't fit in memory") from None


def _copy_raw(layout: Layout, samples: Samples, images: Pixels) -> None:
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


def read_one(layout: Layout, index: int) -> Pixels:
    """One image of an opened beton, uint8 (H,W,3); BetonError names the sample when it can't be decoded."""
    size = int(layout.heights[index]), int(layout.widths[index])
    if layout.modes[index] == RAW:
        return np.frombuffer(layout.payload(index), np.uint8).reshape(*size, CHANNELS)
    try:
        return pictures.decode_jpeg(layout.payload(index), size)
    except PictureError as error:
        raise BetonError(f"{layout.path}: the JPEG of sample {index} can't be decoded: {error}") from None


def _decode_into(images: Pixels | None, layout: Layout, jpegs: Samples, threads: int, skip: bool) -> Samples:
    """Decode these samples to their places in `images` (None: to see whether it works); those skipped."""

    def work(block: Samples) -> list[int]:
        skipped = []
        for index in block.tolist():
            try:
                image = read_one(layout, index)
            except BetonError:
                if not skip:
                    raise
                skipped.append(index)
            else:
                if images is not None:
                    images[index] = image
        return skipped

    found = on_threads(work, blocks(jpegs, JPEG_BLOCK), threads)
    return np.asarray(sorted(sum(found, [])), np.int64)


def jpeg_payloads(path: str | Path) -> list[bytes]:
    """The encoded bytes of every image, for decoding on a device; BetonError when an image is stored raw."""
    layout = open_beton(path)
    if (layout.modes != JPEG).any():
        raw = int(np.argmax(layout.modes != JPEG))
        raise BetonError(f"{path}: sample {raw} is stored raw, not as a JPEG")
    return [layout.payload(i) for i in range(len(layout))]


def each_image(path: str | Path) -> Iterator[Pixels]:
    """Every image in sample order, uint8 (H,W,3), of one size or several; BetonError names a corrupt one."""
    layout = open_beton(path)
    return (read_one(layout, i) for i in range(len(layout)))
