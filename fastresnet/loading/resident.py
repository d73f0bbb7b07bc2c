"""Batches for training and testing: the dataset lives on the device as uint8, and a batch is one gather and
one kernel call.

Every loader has the same face: `len(loader)` steps an epoch, `loader.epoch(k)` yields (images, labels) of
epoch k as a pure function of (seed, k), `loader.close()` gives its resources back. Files are opened
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastresnet import augment as augmentation
from fastresnet.augment.dispatch import Augment, Choices
from fastresnet.base import words
from fastresnet.machine import memory

RESIDENT_SHARE = 0.6  # of the free memory that a resident set may take: the network needs some too
Batch = tuple[Tensor, Tensor]  # images (B,3,h,w) in the compute dtype, labels (B,) int64, both on the device


class Loader:
    """What every loader is.

    batch_size:   images a step takes on this rank (the last step of an epoch may have fewer)
    num_samples:  images an epoch yields on this rank
    """

    batch_size: int
    num_samples: int
    kernel: str
    kernel_reason: str
    device: torch.device
    seed: int

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-self.num_samples // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        raise AssertionError(f"{type(self).__name__} yields no batches")

    def close(self) -> None:
        """Give back memory, files and threads; the loader yields nothing afterwards."""


class ResidentLoader(Loader):
    """The dataset on the device. No host synchronisation a batch: order and choices of an epoch go up once.

    images_NHWC:  uint8 (N,H,W,3), array or tensor, copied to `device` once (shared where it is there already)
    labels:       int (N,)
    batch_size:   images a step takes on this rank
    augment:      what happens to training images; None for testing
    mean, std:    of the channels, in units of 0..1
    shuffle:      a new order each epoch
    drop_last:    leave out the last, smaller batch (of several ranks', what doesn't divide in any case)
    kernel:       auto, triton, compiled, reference, rows: see `augment.kernel_for`
    resolution:   step of the run -> height and width in px of that step's images; None keeps the stored size
    rank, world_size:  this process's share: each global batch holds world_size·batch_size images, rank after
                       rank
    """

    def __init__(
        self,
        images_NHWC: np.ndarray | Tensor,
        labels: np.ndarray | Tensor,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        augment: Augment | None = None,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        channels_last: bool = True,
        kernel: str = "auto",
        resolution: Callable[[int], int | None] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check(images_NHWC, labels)
        check_batch_size(batch_size, len(labels), drop_last, world_size)
        self.device, self.dtype, self.channels_last = torch.device(device), dtype, channels_last
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.spec, self.mean, self.std = augment, tuple(mean), tuple(std)
        self.shuffle, self.drop_last, self.seed, self.resolution = shuffle, drop_last, seed, resolution
        self.kernel, self.kernel_reason = augmentation.kernel_for(kernel, self.device)
        self.images = _as_tensor(images_NHWC).to(self.device).contiguous()
        self.labels = _as_tensor(labels).to(self.device, torch.int64)
        self.num_samples = len(self._mine())

    def _mine(self) -> Tensor:
        return positions(len(self.labels), self.batch_size, self.drop_last, self.rank, self.world_size)

    def plan(self, epoch: int) -> tuple[Tensor, Choices]:
        """Which stored image comes when on this rank, int64 (num_samples,), and its choices, both on the
        device."""
        count = len(self.labels)
        sequence = augmentation.order(count, self.seed, epoch) if self.shuffle else torch.arange(count)
        height, width = self.images.shape[1:3]
        choices = (
            augmentation.no_choices(count)
            if self.spec is None
            else augmentation.draw(self.spec, count, (height, width), self.seed, epoch, samples=sequence)
        )
        mine = self._mine()
        if len(mine) < count or self.world_size > 1:
            sequence, choices = sequence.index_select(0, mine), choices.select(mine)
        if self.device.type == "cuda":
            sequence = sequence.pin_memory()
        return sequence.to(self.device, non_blocking=True), choices.to(self.device)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch. Each is a new tensor, free to keep."""
        sequence, choices = self.plan(epoch)
        for step, start in enumerate(range(0, self.num_samples, self.batch_size)):
            stop = min(start + self.batch_size, self.num_samples)
            size = None if self.resolution is None else self.resolution(epoch * len(self) + step)
            yield self.batch(sequence[start:stop], choices.slice(start, stop), size=size)

    def batch(
        self, indices: Tensor, choices: Choices, *, size: int | None = None, out: Tensor | None = None
    ) -> Batch:
        """One batch of chosen images, for callers that plan their own (a captured graph passes its buffer as
        `out`)."""
        images = augmentation.apply(
            self.images,
            indices,
            choices,
            mean=self.mean,
            std=self.std,
            dtype=self.dtype,
            size=size,
            channels_last=self.channels_last,
            kernel=self.kernel,
            out=out,
        )
        return images, self.labels.index_select(0, indices)

    def close(self) -> None:
        self.images, self.labels, self.num_samples = self.images[:0], self.labels[:0], 0


def positions(count: int, batch_size: int, drop_last: bool, rank: int = 0, world_size: int = 1) -> Tensor:
    """Places in an epoch's order of `count` images that a rank takes, batch after batch: int64."""
    stride = batch_size * world_size
    whole = count // stride * stride
    mine = torch.arange(whole).view(-1, world_size, batch_size)[:, rank].reshape(-1)
    if drop_last:
        return mine
    share = (count - whole) // world_size  # equal on all ranks, which must all make the same steps
    return torch.cat([mine, torch.arange(share) + whole + share * rank])


def choose(name: str, nbytes: int, device: torch.device, batch_bytes: int = 0) -> tuple[str, str]:
    """Which loader `name` (data.loader) means for a set of `nbytes` decoded bytes on `device`, and why.

    batch_bytes: of one finished batch; two of them must fit beside the set
    Returns resident, ffcv or torchvision, and the reason in words, with the sizes.
    """
    if name != "auto":
        return name, "asked for"
    free, needed = memory.free_bytes(device), nbytes + 2 * batch_bytes
    sizes = f"{words.size(needed)} with two batches, {words.size(free)} free on {device.type}"
    if needed <= RESIDENT_SHARE * free:
        return "resident", f"the set fits on the device: {sizes}"
    return "ffcv", f"the set doesn't fit on the device beside the network: {sizes}; streaming from the beton"


def _as_tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    # A read-only array (a memory map) is copied: PyTorch has no read-only tensors.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _check(images: Any, labels: Any) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or str(images.dtype).removeprefix("torch.") != "uint8":
        raise ValueError(f"images must be uint8 (N,H,W,3), got {images.dtype} {tuple(images.shape)}")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: there must be one label an image")


def check_batch_size(batch_size: int, count: int, drop_last: bool, world_size: int) -> None:
    """ValueError where no batch can come of `count` images."""
    if not count:
        raise ValueError("the dataset holds no images")
    if batch_size < 1:
        raise ValueError(f"train.batch_size must be at least 1, got {batch_size}")
    if drop_last and batch_size * world_size > count:
        raise ValueError(
            f"train.batch_size={batch_size * world_size} is larger than the {count} images, and "
            "train.drop_last leaves out the only batch: take a smaller batch or train.drop_last=false"
        )
