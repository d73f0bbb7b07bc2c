"""A beton page by page: every page is hashed from the very bytes that are handed on. Decodes nothing.

The hash finds damage and mix-ups, by chance missing one in 2^33; it is no proof against forgers, who could
write a new sidecar as well. At 3 to 4 GB/s a core it takes less than half of SHA-256's time.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.digest import combined, is_wide, sample_digests
from fastresnet.base.system import on_threads
from fastresnet.beton.file import BetonError
from fastresnet.beton.layout import Layout

Samples = NDArray[np.int64]  # numbers of samples
ROW, ROWS_IN_CACHE = 1 << 16, 8  # bytes; rows summed before the next are touched
FACTORS = np.random.PCG64(0).random_raw(2 * ROW // 8).reshape(2, -1)  # the same in every version of numpy
_room = threading.local()


class Checksums(TypedDict):
    """The fingerprints of all bytes of a beton."""

    front: str  # header, fields and metadata, to the first page
    pages: list[str]
    table: str


@dataclass(frozen=True)
class Page:
    """One page in memory and the samples that lie in it, in the order of the file. Copy what you keep."""

    number: int
    content: NDArray[np.uint8]
    samples: Samples
    offsets: Samples  # in `content`, bytes
    sizes: Samples  # bytes

    def payloads(self) -> Iterator[tuple[int, memoryview]]:
        """(sample, its stored bytes) for each sample."""
        whole = self.content.data
        ends = (self.offsets + self.sizes).tolist()
        for sample, start, end in zip(self.samples.tolist(), self.offsets.tolist(), ends, strict=True):
            yield sample, whole[start:end]


@dataclass(frozen=True)
class PageCheck:
    """Compares each page with its checksum when it is first touched. Threads may share it.

    check:    for readers that find their own way to the data, as FFCV does: call it before they touch samples
    compare:  for those that bring the bytes
    """

    layout: Layout
    expected: Sequence[str]
    _sound: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, samples: Samples, threads: int = 0) -> None:
        """Read and compare those pages of the samples that weren't yet; BetonError names one that differs."""
        with self._lock:
            fresh = set(np.unique(_page_of(self.layout, samples)).tolist()) - self._sound
            on_threads(
                lambda number: self.compare(number, _content(self.layout, number)), sorted(fresh), threads
            )

    def compare(self, number: int, content: NDArray[np.uint8]) -> None:
        """BetonError when this page's content isn't what was written."""
        if fingerprint(content) != self.expected[number]:
            here = np.flatnonzero(_page_of(self.layout, np.arange(len(self.layout))) == number)
            held = f"samples {here.min()} to {here.max()}" if len(here) else "no samples"
            raise BetonError(
                f"{self.layout.path}: page {number} ({held}) is not what was written: the file is damaged or"
                " was changed; convert again"
            )
        self._sound.add(number)


def each_page(
    layout: Layout, work: Callable[[Page], None], check: PageCheck | None, threads: int = 0
) -> None:
    """work(page) for each page that holds samples, on threads; where there is a check, it comes first."""
    pages = _page_of(layout, np.arange(len(layout)))
    order = np.lexsort((layout.pointers, pages))
    starts = np.flatnonzero(np.diff(pages[order], prepend=-1))
    groups = np.split(order, starts[1:])

    def one(samples: Samples) -> None:
        number = int(pages[samples[0]])
        content = _content(layout, number)
        if check is not None:
            check.compare(number, content)
        offsets = layout.pointers[samples] - layout.data_start - number * layout.page_size
        work(Page(number, content, samples, offsets, layout.sizes[samples]))

    on_threads(one, groups, threads)


def checksums(layout: Layout, threads: int = 0) -> Checksums:
    """The checksums of an opened beton."""
    pages = (layout.table_start - layout.data_start) // layout.page_size
    digests = on_threads(lambda k: fingerprint(_content(layout, k)), range(pages), threads)
    return {**ends(layout), "pages": digests}


class Ends(TypedDict):
    """Checksums of what stands before and after the pages."""

    front: str
    table: str


def ends(layout: Layout) -> Ends:
    """The checksums of all that isn't data: where everything lies, and the labels."""
    file, end = layout.file, layout.table_start
    parts = file.read(0, layout.data_start), file.read(end, file.length - end)
    front, table = (fingerprint(np.frombuffer(part, np.uint8)) for part in parts)
    return {"front": front, "table": table}


def fingerprint(content: NDArray[np.uint8]) -> str:
    """SHA-256, as hex, of two 64-bit sums a row of 64 KiB: words times factors, upper halves times others.

    A multilinear hash (Carter and Wegman, 1979): whatever changes in a row, at most one choice of factors in
    2^33 hides it.
    """
    whole = np.pad(content, (0, -len(content) % ROW)) if len(content) % ROW else content
    words = whole.view("<u8").reshape(-1, ROW // 8)
    sums = np.empty((2, len(words)), "<u8")
    for start in range(0, len(words), ROWS_IN_CACHE):
        some = slice(start, start + ROWS_IN_CACHE)
        np.einsum("ij,j->i", words[some], FACTORS[0], out=sums[0, some])
        np.einsum("ij,j->i", words[some] >> np.uint64(32), FACTORS[1], out=sums[1, some])
    return hashlib.sha256(len(content).to_bytes(8, "little") + sums.tobytes()).hexdigest()


def stored_digest(
    layout: Layout, samples: Samples | None = None, check: PageCheck | None = None, threads: int = 0
) -> str:
    """Digest of labels and stored bytes of these samples (None: all), the same in any order.

    Where images are stored raw it is their content digest; JPEGs are hashed as they are stored, not decoded.
    BetonError where the file was changed since it was opened: then others may have been read before.
    """
    wanted = np.ones(len(layout), bool)
    if samples is not None:
        wanted[:] = False
        wanted[samples] = True
    wide, digests = is_wide(layout.labels[wanted]), []

    def work(page: Page) -> None:
        chosen = [(sample, payload) for sample, payload in page.payloads() if wanted[sample]]
        labels = [int(layout.labels[sample]) for sample, _ in chosen]
        digests.extend(sample_digests(labels, [payload for _, payload in chosen], wide))

    each_page(layout, work, check, threads)
    layout.file.check_unchanged()
    return combined(digests)


def _page_of(layout: Layout, samples: Samples) -> Samples:
    """The number of the page that each sample lies in."""
    return (layout.pointers[samples] - layout.data_start) // layout.page_size


def _content(layout: Layout, number: int) -> NDArray[np.uint8]:
    """One page's bytes, in memory that this thread uses again: fresh memory costs as much as the copy."""
    content: NDArray[np.uint8] | None = getattr(_room, "content", None)
    if content is None or len(content) != layout.page_size:
        content = _room.content = np.empty(layout.page_size, np.uint8)
    layout.file.read_into(layout.data_start + number * layout.page_size, content.data)
    return content
