"""Batches from memory: the dataset lives on the device as uint8, and a batch is one kernel call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastresnet import augment as augmentation
from fastresnet.augment.choices import Choices
from fastresnet.augment.dispatch import Stored
from fastresnet.augment.padding import padded_bytes
from fastresnet.loading.interface import Batch, Batching, Buffers, Loader, no_buffers, spread
from fastresnet.machine import memory

PADDED_SHARE = 0.5  # of the free memory that the set may take once more, padded and mirrored


class ResidentLoader(Loader):
    """The dataset on the device. The host waits for nothing: order and choices of an epoch are drawn there.

    images_NHWC:  uint8 (N,H,W,3), array or tensor, copied to the device once (shared where it is there)
    labels:       int (N,)
    """

    def __init__(
        self, images_NHWC: np.ndarray | Tensor, labels: np.ndarray | Tensor, asked: Batching
    ) -> None:
        _check(images_NHWC, labels)
        super().__init__(asked, len(labels))
        images = _as_tensor(images_NHWC).to(self.device).contiguous()
        self.stored = self._stored(images)
        self.labels = _as_tensor(labels).to(self.device, torch.int64)

    def _stored(self, images: Tensor) -> Stored:
        """The images as the kernel reads them fastest, where there is room for that."""
        spec, (count, height, width) = self.asked.augment or augmentation.Augment(), images.shape[:3]
        if padded_bytes(count, height, width, spec) > PADDED_SHARE * memory.free_bytes(self.device):
            return images
        return augmentation.stored_for(images, spec, self.kernel)

    def plan(self, epoch: int) -> tuple[Tensor, Choices]:
        """Which image comes when on this rank, int64 (num_samples,), and its choices, on the device."""
        asked, count, (height, width) = self.asked, len(self.labels), self.stored.shape[1:3]
        if asked.shuffle:
            sequence = augmentation.order(count, self.seed, epoch, self.device)
        else:
            sequence = torch.arange(count, device=self.device)
        kept, times = self.seen(sequence, epoch)
        if len(kept) < count:
            sequence, count = sequence.index_select(0, kept), len(kept)
        choices = augmentation.no_choices(count)
        if asked.augment is not None:
            size = (height, width)
            choices = augmentation.draw(
                asked.augment, count, size, self.seed, epoch, self.device, samples=sequence, times=times
            )
        if len(self.mine) < count or asked.world_size > 1:
            sequence, choices = sequence.index_select(0, self.mine), choices.select(self.mine)
        return sequence, choices

    def epoch(self, epoch: int, out: Buffers = no_buffers) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, each written where `out` says when it is made."""
        sequence, choices = self.plan(epoch)
        for step, start in enumerate(range(0, self.num_samples, self.batch_size)):
            stop = min(start + self.batch_size, self.num_samples)
            some, size = choices.slice(start, stop), self.size_at(epoch, step)
            self.rows = sequence[start:stop]
            yield self.finished(self.stored, self.labels, self.rows, some, size, out)

    def some_images(self, count: int) -> Tensor:
        """See `Loader.some_images`."""
        return self.plain(self.stored, spread(count, len(self.labels), self.device))

    def warm_up(self) -> None:
        """Make the first and the last batch of an epoch at each size, and `some_images`."""
        sequence, choices = self.plan(0)
        last = self.num_samples - (len(self) - 1) * self.batch_size
        for size in self.asked.sizes:
            for count in {min(self.batch_size, self.num_samples), last}:
                rows, some = sequence[:count], choices.slice(0, count)
                self.finished(self.stored, self.labels, rows, some, size, no_buffers)
        self.some_images(1)

    def close(self) -> None:
        self.stored, self.labels = torch.empty((0, 1, 1, 3), dtype=torch.uint8), self.labels[:0]
        self.num_samples = 0


def _as_tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    # A read-only array (a memory map) is copied: PyTorch has no read-only tensors.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _check(images: np.ndarray | Tensor, labels: np.ndarray | Tensor) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or str(images.dtype).removeprefix("torch.") != "uint8":
        raise ValueError(f"images must be uint8 (N,H,W,3), got {images.dtype} {tuple(images.shape)}")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: there must be one label an image")
