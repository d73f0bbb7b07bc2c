"""FFCV's Loader, its traps contained: a decoder that reports, an epoch that fails aloud and ends its thread.

Imports ffcv, so it is imported late, by `stream`. Knows FFCV 1.0.2.
"""

from __future__ import annotations

import ctypes
import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.libffcv import lib, memcpy, resize_crop
from ffcv.loader import Loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.transforms import Squeeze, ToTensor
from torch import Tensor

from fastresnet.beton import Layout

BATCHES_AHEAD = 2  # FFCV keeps two more in memory: the one in use and the one being written
PATIENCE_SECONDS = 0.2  # between looks at whether the thread that makes the batches still lives
JPEG = 0
DECODED, CORRUPT, CUT = 0, 1, 2  # what became of a sample; CUT: the file ended in it, or its disk failed

# libjpeg-turbo, which FFCV is linked with. FFCV's own call takes the fast and inexact transform, up to 20
# levels off what Pillow decodes; called as here, it gives the same pixels.
tj_init, tj_header, tj_decode, tj_destroy = (
    lib.tjInitDecompress,
    lib.tjDecompressHeader3,
    lib.tjDecompress2,
    lib.tjDestroy,
)
_pointer, _int, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
tj_init.restype, tj_init.argtypes = _pointer, []
tj_header.argtypes = [_pointer, _pointer, _size, _pointer, _pointer, _pointer, _pointer]
tj_decode.argtypes = [_pointer, _pointer, _size, _pointer, _int, _int, _int, _int, _int]
tj_destroy.argtypes = [_pointer]
read_at = ctypes.CDLL(None).pread
read_at.restype, read_at.argtypes = ctypes.c_ssize_t, [_int, _pointer, ctypes.c_size_t, ctypes.c_int64]
RGB, EXACT = 0, 0  # TJPF_RGB; no flags, so neither TJFLAG_FASTDCT nor TJFLAG_FASTUPSAMPLE


def decode_jpeg(stored: np.ndarray, target: np.ndarray, height: int, width: int) -> int:
    """Decode into `target`, uint8 (height·width·3,) or more; not 0 where that failed or the size differs."""
    found = np.zeros(4, np.int32)  # width, height, subsampling, colour space
    decoder = tj_init()
    wrong: int = tj_header(
        decoder,
        stored.ctypes.data,
        stored.size,
        found[0:].ctypes.data,
        found[1:].ctypes.data,
        found[2:].ctypes.data,
        found[3:].ctypes.data,
    )
    if wrong == 0 and (found[0] != width or found[1] != height):
        wrong = 1
    if wrong == 0:
        wrong = tj_decode(
            decoder, stored.ctypes.data, stored.size, target.ctypes.data, width, 0, height, RGB, EXACT
        )
    tj_destroy(decoder)
    return wrong


_never_freed: list[tuple[Callable[..., Any], ...]] = []  # numba fails where it frees them at exit


def _compiled() -> tuple[Callable[..., Any], ...]:
    """The C functions as numba sees them, for one pipeline: where two share them its type inference fails."""
    functions = tuple(Compiler.compile(function) for function in (decode_jpeg, resize_crop, memcpy))
    _never_freed.append(functions)
    return functions


def _reader(descriptor: int) -> Callable[..., Any]:
    """What finds a stored sample for FFCV, by pread: fewer bytes come where the file ends before.

    FFCV's own looks into memory that the file is mapped to, where a file that was cut kills the process.
    """

    def read(address, state):
        size = state[2][np.searchsorted(state[1], address)]
        stored = np.empty(size, np.uint8)
        return stored[: max(0, read_at(descriptor, stored.ctypes.data, size, address))]

    compiled = Compiler.compile(read)
    _never_freed.append((compiled,))
    return compiled


class Decoder(SimpleRGBImageDecoder):
    """Decodes each image, cuts the box given for it and resizes that (by area) to (height, width).

    FFCV's own decoders draw their boxes unseeded and leave the last batch's pixels where a JPEG is corrupt.
    Here boxes come in through memory that `Epoch` fills, and a status byte a sample goes out.
    height, width:  None: images of one size, as stored
    descriptor:     of the beton, to be read sample by sample; None: FFCV's memory holds it
    """

    def __init__(
        self, height: int | None = None, width: int | None = None, descriptor: int | None = None
    ) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.size = (height, width) if height and width else None

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        """What FFCV allocates for each sample: pixels, room to decode, a box and a status."""
        heights, widths = self.metadata["height"], self.metadata["width"]
        most = int((heights.astype(np.int64) * widths).max()) * 3
        self.shape = (*(self.size or (int(heights[0]), int(widths[0]))), 3)
        state = replace(previous_state, jit_mode=True, shape=self.shape, dtype=np.dtype("<u1"))
        scratch = most if self.size else 1
        return state, (
            AllocationQuery(self.shape, np.dtype("<u1")),
            AllocationQuery((scratch,), np.dtype("<u1")),
            AllocationQuery((4,), np.dtype("<i8")),
            AllocationQuery((1,), np.dtype("<u1")),
        )

    def generate_code(self) -> Callable[..., Any]:
        """The function over one batch that FFCV compiles."""
        read = self.memory_read if self.descriptor is None else _reader(self.descriptor)
        span = Compiler.get_iterator()
        decode_one, resize, copy = _compiled()
        boxed = self.size is not None

        def decode(batch_indices, storage, metadata, storage_state):
            images, scratch, boxes, status = storage
            for row in span(len(batch_indices)):
                field = metadata[batch_indices[row]]
                stored = read(field["data_ptr"], storage_state)
                height, width = np.uint32(field["height"]), np.uint32(field["width"])
                status[row, 0] = DECODED
                target = scratch[row] if boxed else images[row].reshape(-1)
                if stored.size == 0 or (field["mode"] != JPEG and stored.size < 3 * height * width):
                    status[row, 0] = CUT
                elif field["mode"] == JPEG:
                    if decode_one(stored, target, height, width) != 0:
                        status[row, 0] = CORRUPT
                elif boxed:
                    target = stored
                else:
                    copy(stored, target)
                if boxed and status[row, 0] == DECODED:
                    whole = target[: 3 * height * width].reshape(height, width, 3)
                    top, left, rows, cols = boxes[row]
                    resize(whole, top, top + rows, left, left + cols, images[row])
            return images[: len(batch_indices)]

        decode.is_parallel = True  # type: ignore[attr-defined]  # FFCV looks for it there
        return decode


def open_loader(layout: Layout, batch_size: int, workers: int, page_cache: bool, decoder: Decoder) -> Loader:
    """FFCV's Loader of (image uint8, label int64), whatever the file calls them; `Epoch` brings the order."""
    fields = {
        layout.image_field: [decoder, ToTensor()],
        layout.label_field: [IntDecoder(), ToTensor(), Squeeze(1)],
    }
    return Loader(
        str(layout.path),
        batch_size,
        num_workers=workers,
        os_cache=page_cache,
        seed=0,
        drop_last=False,
        pipelines={name: fields.get(name) for name in layout.field_names},  # None: not read
        batches_ahead=BATCHES_AHEAD,
    )


def quasi_random_order(loader: Loader, seed: int, epoch: int) -> np.ndarray:
    """FFCV's order that reads each page once; a pure function of (seed, epoch)."""
    from ffcv.traversal_order import QuasiRandom

    order = QuasiRandom(loader)
    order.seed = seed
    samples: np.ndarray = order.sample_order(epoch)
    return samples


class Epoch(EpochIterator):
    """One pass. Yields (images, labels, status): views that the next step may overwrite.

    boxes:  int64 (n,4), top, left, height and width of each sample's box in the order of the pass, or None
    Raises what went wrong in the thread. `close` ends the thread and waits for it.
    """

    failure: BaseException | None = None
    done = False
    closed: bool  # FFCV sets it when it starts

    def __init__(self, loader: Loader, order: np.ndarray, boxes: np.ndarray | None) -> None:
        self.boxes = boxes
        super().__init__(loader, order.astype(np.uint64))

    def run(self) -> None:
        """The thread: FFCV's, whose exception is kept."""
        try:
            super().run()
        except BaseException as error:  # to be raised where the batches are taken, whatever it is
            self.failure = error

    def run_pipeline(
        self, b_ix: int, batch_indices: np.ndarray, batch_slot: int, cuda_event: object
    ) -> tuple[Any, ...]:
        """One batch: boxes in, status out."""
        _, _, boxes, status = next(
            m for m in self.memory_allocations["operation"].values() if isinstance(m, tuple)
        )
        count = len(batch_indices)
        if self.boxes is not None:
            first = b_ix * self.loader.batch_size
            boxes[batch_slot][:count] = self.boxes[first : first + count]
        one, other = super().run_pipeline(b_ix, batch_indices, batch_slot, cuda_event)
        images, labels = (one, other) if one.ndim == 4 else (other, one)  # in the file's order of fields
        return images, labels, status[batch_slot][:count, 0].copy()

    def __next__(self) -> tuple[Tensor, Tensor, np.ndarray]:
        while not self.done:
            try:
                item = self.output_queue.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                if self.is_alive() or not self.output_queue.empty():
                    continue
                self.done = True
                if self.failure is not None:
                    raise self.failure from None
                raise RuntimeError("the thread that makes batches ended without a word") from None
            if item is None:
                self.done = True
                break
            batch: tuple[Tensor, Tensor, np.ndarray] = item[1]
            return batch
        raise StopIteration

    def close(self) -> None:
        if self.closed or self.ident is None:  # never started: there was no memory for it
            return
        self.done = True
        self.terminate_event.set()
        while self.is_alive():  # it may be waiting to put a batch, or the end, into a full queue
            try:
                self.output_queue.get(timeout=0.05)
            except queue.Empty:
                pass
        self.memory_context.__exit__(None, None, None)
        self.closed = True

    def __iter__(self) -> Iterator[Any]:
        return self
