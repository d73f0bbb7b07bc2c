"""Batches from a beton that stays on disk: FFCV decodes on CPU threads, our kernel augments on the device.

Order, crops and augmentation are pure functions of (seed, epoch). Copies to a GPU overlap with its work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastresnet import augment as augmentation
from fastresnet import beton
from fastresnet.augment import boxes
from fastresnet.augment.choices import Choices
from fastresnet.base.system import cores_usable
from fastresnet.loading.interface import Batch, Batching, Buffers, Loader, no_buffers, spread
from fastresnet.loading.upload import Decoded, uploaded

if TYPE_CHECKING:
    from fastresnet.loading.ffcv_epoch import Epoch

ORDERS = ("random", "quasi_random", "sequential")


@dataclass(frozen=True)
class Plan:
    """One pass: int64 (n,) samples of the beton in order, their boxes (n,4) or None for whole images.

    rows:  which of the loader's samples these are, on the device
    """

    samples: np.ndarray
    rows: Tensor
    choices: Choices
    boxes: np.ndarray | None


class StreamLoader(Loader):
    """A beton of (image, label), streamed.

    path:        the beton, images of one size or of several
    indices:     samples of the beton to use, sorted (None: all)
    order:       random, quasi_random (reads each page once: for files larger than memory) or sequential
    workers:     threads that decode (0: one a core; never more than cores)
    cache:       page (the system's page cache) or process (pages read ahead into the process); auto: process
                 for quasi_random, else page
    image_size:  height and width of batches: training crops at random and resizes, testing cuts the centre;
                 0: images as stored, all of one size
    label_field: as in beton.open_beton
    on_error:    raise: a corrupt JPEG ends the run, named by its sample; skip: it is left out, see `skipped`
    skipped:     the samples left out so far

    Where checksums lie beside the beton, a page is compared before the first batch of its images is given.
    FFCV compiles its pipeline in the first epoch or `warm_up`, which takes 5 to 40 s.
    """

    def __init__(
        self,
        path: str | Path,
        asked: Batching,
        *,
        indices: np.ndarray | None = None,
        order: str = "random",
        workers: int = 0,
        cache: str = "auto",
        image_size: int = 0,
        on_error: str = "raise",
        label_field: str | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"data.order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.layout = beton.open_beton(path, label_field)
        beside = beton.read_sidecar(self.layout)
        self.pages = beside[1] if beside else None
        self.samples = np.arange(len(self.layout)) if indices is None else np.asarray(indices, dtype=np.int64)
        super().__init__(asked, len(self.samples))
        self.order, self.on_error = order if asked.shuffle else "sequential", on_error
        self.image_size, self.workers = image_size, clamped_workers(workers)
        self.page_cache = cache == "page" or (cache == "auto" and self.order != "quasi_random")
        self.skipped: list[int] = []
        _check(self.layout, image_size)
        with keeping_threads():
            import fastresnet.loading.ffcv_epoch as ffcv_epoch

            size = image_size or None
            descriptor = self.layout.file.fileno() if self.page_cache else None
            self.ffcv = ffcv_epoch.open_loader(
                self.layout,
                self.batch_size,
                self.workers,
                self.page_cache,
                ffcv_epoch.Decoder(size, size, descriptor),
            )

    def plan(self, epoch: int) -> Plan:
        """What this rank's pass over an epoch shows, and how."""
        sequence, spec = self._sequence(epoch), self.asked.augment
        order = torch.from_numpy(np.searchsorted(self.samples, sequence)).to(self.device)
        kept, times = self.seen(order, epoch)
        sequence, order = sequence[kept.cpu().numpy()], order.index_select(0, kept)
        cut = self._boxes(sequence, epoch)
        choices = augmentation.no_choices(len(sequence))
        if spec is not None:
            spec = replace(spec, crop_padding_px=0) if cut is not None else spec
            sides = self.layout.heights, self.layout.widths
            height, width = (self.image_size or int(side[0]) for side in sides)
            given = spec, len(sequence), (height, width), self.seed, epoch, self.device
            choices = augmentation.draw(*given, samples=order, times=times)
        mine = self.asked.positions(len(sequence)).numpy()
        rows = order.index_select(0, self.mine)
        return Plan(sequence[mine], rows, choices.select(self.mine), None if cut is None else cut[mine])

    def _sequence(self, epoch: int) -> np.ndarray:
        """The samples of one epoch in order, of all ranks."""
        if self.order == "random":
            return self.samples[augmentation.order(len(self.samples), self.seed, epoch).numpy()]
        if self.order == "sequential":
            return self.samples
        import fastresnet.loading.ffcv_epoch as ffcv_epoch

        self.ffcv.indices = self.samples
        try:
            return ffcv_epoch.quasi_random_order(self.ffcv, self.seed, epoch)
        except ValueError as error:
            raise ValueError(f"{self.layout.path}: data.order=quasi_random: {error}") from None

    def _boxes(self, samples: np.ndarray, epoch: int | None) -> np.ndarray | None:
        """Which part of each sample is shown: a random one in a training epoch, else the centre."""
        if not self.image_size:
            return None
        sizes = self.layout.heights[samples], self.layout.widths[samples]
        if self.asked.augment is None or epoch is None:
            return boxes.centre_boxes(*sizes)
        return boxes.random_boxes(*sizes, self.seed, epoch)

    def epoch(self, epoch: int, out: Buffers = no_buffers) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0. Leaving early ends FFCV's thread.

        Where all images of a training batch are left out the batch before comes again: steps are counted.
        """
        plan = self.plan(epoch)
        shown: Batch | None = None
        with closing(self._decoded(plan.samples, plan.boxes)) as batches:
            for step, batch in enumerate(uploaded(batches, self.device)):
                start = step * self.batch_size
                choices = plan.choices.slice(start, start + len(batch.labels))
                if len(batch.rows):
                    shown = self._finished(batch, choices, self.size_at(epoch, step), out)
                    self.rows = plan.rows[start:].index_select(0, batch.rows_on(self.device))
                elif not self.asked.shuffle:
                    continue
                elif shown is None:
                    raise beton.BetonError(
                        f"{self.layout.path}: no image of an epoch's first batch can be read"
                    )
                yield shown

    def _finished(self, batch: Decoded, choices: Choices, size: int | None, out: Buffers) -> Batch:
        rows = batch.rows_on(self.device)
        some = choices if len(rows) == choices.count else choices.select(rows)
        return self.finished(batch.images, batch.labels, rows, some, size, out)

    def _decoded(self, samples: np.ndarray, cut: np.ndarray | None) -> Generator[Decoded, None, None]:
        """Batches as FFCV makes them, on the CPU; a corrupt sample raises or is left out."""
        running = self._started(samples, cut)
        try:
            for step, (images, labels, status) in enumerate(running):
                self.layout.file.check_unchanged()
                if self.pages is not None:
                    self.pages.check(samples[step * self.batch_size :][: self.batch_size], self.workers)
                self._look_at(samples[step * self.batch_size :][: len(status)], status)
                yield Decoded(images, labels, np.flatnonzero(status == 0))
        finally:
            with keeping_threads():
                running.close()

    def _look_at(self, samples: np.ndarray, status: np.ndarray) -> None:
        """BetonError names a sample that couldn't be read, or decoded where those aren't left out."""
        import fastresnet.loading.ffcv_epoch as ffcv_epoch

        unread, bad = samples[status == ffcv_epoch.CUT], samples[status == ffcv_epoch.CORRUPT]
        if len(unread):
            raise beton.BetonError(f"{self.layout.path}: sample {unread[0]} can't be read")
        if len(bad) and self.on_error == "raise":
            raise beton.BetonError(
                f"{self.layout.path}: the JPEG of sample {bad[0]} can't be decoded "
                "(data.on_error=skip leaves such images out)"
            )
        self.skipped += [int(sample) for sample in bad]

    def _started(self, samples: np.ndarray, cut: np.ndarray | None) -> Epoch:
        import fastresnet.loading.ffcv_epoch as ffcv_epoch

        self.layout.file.check_unchanged()
        try:
            with keeping_threads():
                return ffcv_epoch.Epoch(self.ffcv, samples, cut)
        except MemoryError:
            raise ValueError(
                f"{self.layout.path}: the pages of an epoch in {self.order} order don't fit into memory: use "
                "data.order=quasi_random"
            ) from None

    def some_images(self, count: int) -> Tensor:
        """See `Loader.some_images`."""
        samples = self.samples[spread(count, len(self.samples)).numpy()]
        with closing(self._decoded(samples, self._boxes(samples, None))) as batches:
            return torch.cat(
                [self.plain(x.images, x.rows_on(self.device)) for x in uploaded(batches, self.device)]
            )

    def warm_up(self) -> None:
        """Let FFCV compile, and make the first and the last batch of an epoch at each size."""
        plan = self.plan(0)
        last = self.num_samples - (len(self) - 1) * self.batch_size
        few = slice(self.batch_size)
        cut = None if plan.boxes is None else plan.boxes[few]
        with closing(self._decoded(plan.samples[few], cut)) as batches:
            batch = next(uploaded(batches, self.device))
            for count in {len(batch.rows), min(last, len(batch.rows))}:
                part = replace(batch, rows=batch.rows[:count])
                for size in self.asked.sizes:
                    self._finished(part, plan.choices.slice(0, len(batch.labels)), size, no_buffers)

    def close(self) -> None:
        """An epoch that is under way ends with its own iterator; none begins any more."""
        self.num_samples = 0


def _check(layout: beton.Layout, image_size: int) -> None:
    if not beton.can_write():
        raise ValueError(
            "data.loader=ffcv needs ffcv, which isn't installed: scripts/setup.sh installs it; "
            "a set that fits in memory needs no ffcv (data.loader=resident)"
        )
    if not image_size and not layout.uniform:
        raise ValueError(
            f"{layout.path} holds images from {layout.heights.min()}x{layout.widths.min()} to "
            f"{layout.heights.max()}x{layout.widths.max()} px: set data.image_size to what to train at"
        )


@contextmanager
def keeping_threads() -> Iterator[None]:
    """FFCV sets the number of threads of PyTorch when it is imported (one) and opened. Here it stays."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clamped_workers(workers: int) -> int:
    """Threads for FFCV: all usable cores for 0, never more than those (FFCV raises) or numba's limit."""
    import numba

    most = min(cores_usable(), int(vars(numba.config)["NUMBA_NUM_THREADS"]))
    return min(workers, most) if workers else most
