"""Reads a beton whole, with numpy alone; JPEGs on several threads. Needs no ffcv."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastresnet.base import pictures, words
from fastresnet.base.digest import Labels
from fastresnet.base.pictures import PictureError, Pixels
from fastresnet.beton.file import BetonError
from fastresnet.beton.layout import CHANNELS, JPEG, RAW, Layout, open_beton
from fastresnet.beton.pages import Page, PageCheck, Samples, each_page, stored_digest
from fastresnet.beton.sidecar import Facts, read_sidecar


def verify(path: str | Path, *, threads: int = 0, classes: int | None = None) -> tuple[Layout, Facts | None]:
    """Read, hash and decode everything, and compare it with the sidecar; BetonError names what is wrong.

    classes:  labels must lie in 0..classes-1 (None: in what the sidecar says)
    """
    layout = open_beton(path)
    beside = read_sidecar(layout)
    facts, check = beside if beside else (None, None)
    classes = len(facts["class_names"]) if facts and classes is None else classes
    if classes is not None:
        _check_labels(layout, classes)
    if facts is not None:
        check_digests(layout, facts, stored_digest(layout, check=check, threads=threads))
    _each_sample(layout, None, check, threads, skip=False)
    layout.file.check_unchanged()
    return layout, facts


def check_digests(layout: Layout, facts: Facts, stored: str) -> None:
    """BetonError unless the digest of what is stored is what the sidecar says of it, and of its images."""
    count, raw = len(layout), bool((layout.modes == RAW).all())
    if facts["count"] != count:
        raise BetonError(f"{layout.path} holds {count} samples and its sidecar speaks of {facts['count']}")
    if stored != facts["stored_digest"] or (raw and stored != facts["digest"]):
        raise BetonError(
            f"{layout.path}: its images are not those that its sidecar speaks of (digest {stored[:12]}…, said"
            f" to be {facts['digest'][:12]}…); convert again"
        )


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
    """(images uint8 (N,H,W,3), labels int64 (N,)) of a beton; BetonError where sizes differ, too.

    Pages are compared with the checksums beside it, where there are any.
    """
    layout = open_beton(path)
    beside = read_sidecar(layout)
    whole = read_whole(layout, beside[1] if beside else None, threads=threads)
    return whole.images, whole.labels


def read_whole(
    layout: Layout, check: PageCheck | None = None, *, threads: int = 0, on_error: str = "raise"
) -> Read:
    """All of an opened beton; on_error="skip" leaves out JPEGs that can't be decoded (but not all)."""
    images = _space_for(layout)
    skipped = _each_sample(layout, images, check, threads, skip=on_error == "skip")
    layout.file.check_unchanged()
    if not len(skipped):
        return Read(images, layout.labels, skipped)
    good = np.setdiff1d(np.arange(len(layout)), skipped)
    if not len(good):
        raise BetonError(f"{layout.path}: not one image can be decoded")
    return Read(images[good], layout.labels[good], skipped)


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


def _each_sample(
    layout: Layout, images: Pixels | None, check: PageCheck | None, threads: int, skip: bool
) -> Samples:
    """Decode all samples to their places in `images` (None: to see whether it works); those skipped."""
    skipped: list[int] = []

    def work(page: Page) -> None:
        raw = layout.modes[page.samples] == RAW
        if images is not None:
            _copy_raw(page, raw, images)
        for (sample, payload), is_raw in zip(page.payloads(), raw.tolist(), strict=True):
            if is_raw:
                continue
            try:
                image = _decoded(layout, sample, bytes(payload))
            except BetonError:
                if not skip:
                    raise
                skipped.append(sample)
            else:
                if images is not None:
                    images[sample] = image

    each_page(layout, work, check, threads)
    return np.asarray(sorted(skipped), np.int64)


def _copy_raw(page: Page, raw: NDArray[np.bool_], images: Pixels) -> None:
    """A page's raw images, all of one size, to their places: run by run of neighbours in one move each."""
    samples, offsets = page.samples[raw], page.offsets[raw]
    if not len(samples):
        return
    size = images[0].nbytes
    starts = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 1) != size)
    for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(samples)], strict=True):
        run = page.content[offsets[first] : offsets[first] + (last - first) * size]
        images[samples[first:last]] = run.reshape(-1, *images.shape[1:])


def read_one(layout: Layout, index: int) -> Pixels:
    """One image of an opened beton, uint8 (H,W,3); BetonError names the sample when it can't be decoded."""
    if layout.modes[index] == JPEG:
        return _decoded(layout, index, layout.payload(index))
    shape = int(layout.heights[index]), int(layout.widths[index]), CHANNELS
    return np.frombuffer(layout.payload(index), np.uint8).reshape(shape)


def _decoded(layout: Layout, index: int, payload: bytes) -> Pixels:
    try:
        return pictures.decode_jpeg(payload, (int(layout.heights[index]), int(layout.widths[index])))
    except PictureError as error:
        raise BetonError(f"{layout.path}: the JPEG of sample {index} can't be decoded: {error}") from None


def jpeg_payloads(layout: Layout, check: PageCheck | None = None, *, threads: int = 0) -> list[bytes]:
    """The encoded bytes of every image, for decoding on a device; BetonError when an image is stored raw."""
    if (layout.modes != JPEG).any():
        raw = int(np.argmax(layout.modes != JPEG))
        raise BetonError(f"{layout.path}: sample {raw} is stored raw, not as a JPEG")
    payloads = [b""] * len(layout)

    def work(page: Page) -> None:
        for sample, payload in page.payloads():
            payloads[sample] = bytes(payload)

    each_page(layout, work, check, threads)
    return payloads


def each_image(layout: Layout) -> Iterator[Pixels]:
    """Every image in sample order, uint8 (H,W,3), of one size or several; BetonError names a corrupt one."""
    return (read_one(layout, i) for i in range(len(layout)))
