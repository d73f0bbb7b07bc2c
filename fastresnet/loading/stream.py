"""Batches from a beton that stays on disk: FFCV's Loader decodes on CPU threads, our kernel augments on the
device.

Order, crops and augmentation are pure functions of (seed, epoch). Copies to a GPU overlap with what it
computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastresnet import augment as augmentation
from fastresnet import beton
from fastresnet.augment import boxes
from fastresnet.augment.dispatch import Augment, Choices
from fastresnet.base.cores import cores_usable
from fastresnet.loading.resident import Batch, Loader, check_batch_size, positions

ORDERS = ("random", "quasi_random", "sequential")


class StreamLoader(Loader):
    """A beton of (image, label), streamed; keywords as in ResidentLoader, and these:

    path:        the beton, images of one size or of several
    indices:     samples of the beton to use (None: all)
    order:       random, quasi_random (reads each page once: for files larger than memory) or sequential
    workers:     threads that decode (0: one a core; never more than cores)
    cache:       page (the system's page cache) or process (pages read ahead into the process); auto: process
                 for quasi_random, else page
    image_size:  height and width of batches: training crops at random and resizes, testing cuts the centre;
                 0: images as stored, all of one size
    on_error:    raise: a corrupt JPEG ends the run, named by its sample; skip: it is left out, see `skipped`
    skipped:     the samples left out so far

    FFCV compiles its pipeline in the first epoch, which takes 5 to 40 s.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        augment: Augment | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        channels_last: bool = True,
        kernel: str = "auto",
        resolution: Callable[[int], int | None] | None = None,
        rank: int = 0,
        world_size: int = 1,
        indices: np.ndarray | None = None,
        order: str = "random",
        workers: int = 0,
        cache: str = "auto",
        image_size: int = 0,
        on_error: str = "raise",
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"data.order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.layout = beton.open_beton(path)
        self.samples = np.arange(len(self.layout)) if indices is None else np.asarray(indices, dtype=np.int64)
        check_batch_size(batch_size, len(self.samples), drop_last, world_size)
        self.device, self.dtype, self.channels_last = torch.device(device), dtype, channels_last
        self.batch_size, self.rank, self.world_size, self.drop_last = batch_size, rank, world_size, drop_last
        self.spec, self.mean, self.std, self.seed, self.shuffle = (
            augment,
            tuple(mean),
            tuple(std),
            seed,
            shuffle,
        )
        self.kernel, self.kernel_reason = augmentation.kernel_for(kernel, self.device)
        self.order, self.on_error, self.resolution = order if shuffle else "sequential", on_error, resolution
        self.image_size = image_size
        self.skipped: list[int] = []
        self.workers = clamped_workers(workers)
        self.page_cache = cache == "page" or (cache == "auto" and self.order != "quasi_random")
        self.num_samples = len(positions(len(self.samples), batch_size, drop_last, rank, world_size))
        self.ffcv = self._open()

    def _open(self) -> Any:
        if not beton.can_write():
            raise ValueError(
                "data.loader=ffcv needs ffcv, which isn't installed: scripts/setup.sh installs it; "
                "a set that fits in memory needs no ffcv (data.loader=resident)"
            )
        layout = self.layout
        if not self.image_size and not layout.uniform:
            raise ValueError(
                f"{layout.path} holds images from {layout.heights.min()}x{layout.widths.min()} to "
                f"{layout.heights.max()}x{layout.widths.max()} px: "
                "set data.image_size to the size to train at"
            )
        with keeping_threads():
            from fastresnet.loading import ffcv_epoch

            size = self.image_size or None
            decoder = ffcv_epoch.Decoder(size, size)
            return ffcv_epoch.open_loader(
                str(layout.path), self.batch_size, self.workers, self.page_cache, decoder
            )

    def plan(self, epoch: int) -> tuple[np.ndarray, Choices, np.ndarray | None]:
        """Samples of the beton in the order of this rank's epoch, their choices, their boxes (None: whole
        images)."""
        count = len(self.samples)
        if self.order == "quasi_random":
            sequence = self._quasi_random(epoch)
        elif self.order == "random":
            sequence = self.samples[augmentation.order(count, self.seed, epoch).numpy()]
        else:
            sequence = self.samples
        layout, spec = self.layout, self.spec
        cut = None
        height, width = (
            (self.image_size,) * 2 if self.image_size else (int(layout.heights[0]), int(layout.widths[0]))
        )
        if self.image_size:
            sizes = layout.heights[sequence], layout.widths[sequence]
            if spec is None:
                cut = boxes.centre_boxes(*sizes)
            else:
                cut, spec = boxes.random_boxes(*sizes, self.seed, epoch), replace(spec, crop_padding_px=0)
        choices = (
            augmentation.no_choices(count)
            if spec is None
            else augmentation.draw(
                spec, count, (height, width), self.seed, epoch, samples=torch.from_numpy(sequence)
            )
        )
        mine = positions(count, self.batch_size, self.drop_last, self.rank, self.world_size)
        return sequence[mine.numpy()], choices.select(mine), None if cut is None else cut[mine.numpy()]

    def _quasi_random(self, epoch: int) -> np.ndarray:
        from fastresnet.loading import ffcv_epoch

        self.ffcv.indices = self.samples
        try:
            return ffcv_epoch.quasi_random_order(self.ffcv, self.seed, epoch)
        except ValueError as error:
            raise ValueError(f"{self.layout.path}: data.order=quasi_random: {error}") from None

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch. Each is a new tensor; leaving early ends FFCV's thread."""
        from fastresnet.loading import ffcv_epoch

        self.layout.file.check_unchanged()
        sequence, choices, cut = self.plan(epoch)
        choices = choices.to(self.device)
        try:
            with keeping_threads():
                running = ffcv_epoch.Epoch(self.ffcv, sequence, cut)
        except MemoryError:
            raise ValueError(
                f"{self.layout.path}: the pages of an epoch in {self.order} order don't fit into memory: use "
                "data.order=quasi_random"
            ) from None
        try:
            yield from self._finished(self._uploaded(self._checked(running, sequence)), choices, epoch)
        finally:
            with keeping_threads():
                running.close()

    def _checked(
        self, running: Any, sequence: np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor, np.ndarray | None]]:
        """Batches as FFCV makes them and the rows to keep (None: all); a corrupt sample raises or is left
        out."""
        for step, (images, labels, status) in enumerate(running):
            self.layout.file.check_unchanged()
            keep = None
            if status.any():
                bad = sequence[step * self.batch_size + np.flatnonzero(status)]
                if self.on_error == "raise":
                    raise beton.BetonError(
                        f"{self.layout.path}: the JPEG of sample {bad[0]} can't be decoded "
                        "(data.on_error=skip leaves such images out)"
                    )
                self.skipped += [int(s) for s in bad]
                keep = np.flatnonzero(status == 0)
            yield images, labels, keep

    def _uploaded(
        self, batches: Iterator[tuple[Tensor, Tensor, Any]]
    ) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """The same on the device. On a GPU the next batch is copied, on a stream of its own, while one is in
        use."""
        if self.device.type != "cuda":
            yield from batches
            return
        stream, waiting = torch.cuda.Stream(self.device), None
        for images, labels, keep in batches:
            with torch.cuda.stream(stream):
                there = [x.pin_memory().to(self.device, non_blocking=True) for x in (images, labels)]
                copied = torch.cuda.Event()
                copied.record(stream)
            if waiting is not None:
                yield self._received(waiting)
            waiting = (there, keep, copied)
        if waiting is not None:
            yield self._received(waiting)

    def _received(self, waiting: tuple[list[Tensor], Any, torch.cuda.Event]) -> tuple[Tensor, Tensor, Any]:
        (images, labels), keep, copied = waiting
        here = torch.cuda.current_stream(self.device)
        here.wait_event(copied)
        for tensor in (images, labels):
            tensor.record_stream(here)
        return images, labels, keep

    def _finished(
        self, batches: Iterator[tuple[Tensor, Tensor, Any]], choices: Choices, epoch: int
    ) -> Iterator[Batch]:
        for step, (images, labels, keep) in enumerate(batches):
            start = step * self.batch_size
            rows, some = (
                torch.arange(len(labels), device=self.device),
                choices.slice(start, start + len(labels)),
            )
            if keep is not None:
                rows = torch.from_numpy(keep).to(self.device)
                some = some.select(rows)
            if not len(rows):
                continue
            size = None if self.resolution is None else self.resolution(epoch * len(self) + step)
            done = augmentation.apply(
                images,
                rows,
                some,
                mean=self.mean,
                std=self.std,
                dtype=self.dtype,
                size=size,
                channels_last=self.channels_last,
                kernel=self.kernel,
            )
            yield done, labels.index_select(0, rows)

    def close(self) -> None:
        self.num_samples = 0


@contextmanager
def keeping_threads() -> Iterator[None]:
    """FFCV sets the number of threads of PyTorch when it is imported (one) and opened. Here it stays."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clamped_workers(workers: int) -> int:
    """Threads for FFCV: all cores this process may use for 0, never more than those (FFCV raises) or numba's
    limit."""
    import numba

    most = min(cores_usable(), int(vars(numba.config)["NUMBA_NUM_THREADS"]))
    return min(workers, most) if workers else most
