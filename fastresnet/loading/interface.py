"""What every loader is, what it is asked for, and which images of an epoch a rank gets. Opens nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastresnet import augment as augmentation
from fastresnet.augment.choices import Augment, Choices
from fastresnet.augment.dispatch import Stored

# Images (B,3,h,w) in the compute dtype and labels, both on the device: int64 (B,), or float32 (B,K), the
# weights of the classes, where images are mixed.
Batch = tuple[Tensor, Tensor]
# (B,3,h,w) of the next batch -> where to write it, as a captured graph wants it, or None for new tensors
Buffers = Callable[[tuple[int, ...]], Batch | None]
RGB = tuple[float, float, float]
# Kernels for which something else takes images once: there is nothing to compile, or no kernel.
PLAIN = {"compiled": "reference", "torchvision": "reference"}


def no_buffers(shape: tuple[int, ...]) -> Batch | None:
    """Every batch is a new one, free to keep."""
    return None


@dataclass(frozen=True)
class Batching:
    """How images become batches.

    batch_size:   images a step takes on this rank
    mean, std:    of the channels, in units of 0..1
    augment:      what happens to training images; None for testing
    shuffle:      a new order each epoch
    drop_last:    leave out the last, smaller batch
    share:        of the images, how many an epoch shows
    kernel:       see `augment.kernel_for`
    resolution:   step of the run -> height and width in px of that step's images; None keeps the stored size
    sizes:        all that `resolution` may say
    classes:      how many there are; needed where images are mixed
    rank, world_size:  this process's share: a global batch is world_size·batch_size images, rank by rank
    """

    batch_size: int
    mean: RGB
    std: RGB
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    augment: Augment | None = None
    shuffle: bool = False
    drop_last: bool = False
    share: float = 1.0
    seed: int = 0
    kernel: str = "auto"
    resolution: Callable[[int], int | None] = lambda step: None
    sizes: tuple[int | None, ...] = (None,)
    classes: int = 0
    rank: int = 0
    world_size: int = 1

    def check(self, count: int) -> None:
        """ValueError where no batch can come of `count` images."""
        whole = self.batch_size * self.world_size
        if not count:
            raise ValueError("the dataset holds no images")
        if self.batch_size < 1:
            raise ValueError(f"train.batch_size must be at least 1, got {self.batch_size}")
        if self.drop_last and whole > count:
            raise ValueError(
                f"train.batch_size={whole} is larger than the {count} images, and train.drop_last leaves out "
                "the only batch: take a smaller batch or train.drop_last=false"
            )
        if not self.drop_last and count % whole % self.world_size:
            raise ValueError(
                f"train.drop_last=false leaves {count % whole} images in an epoch's last batch, which don't "
                f"divide over {self.world_size} processes: take train.drop_last=true, or another batch"
            )

    def shown(self, count: int) -> int:
        """How many of `count` images an epoch shows."""
        return count if self.share == 1 else max(1, round(self.share * count))

    def positions(self, count: int) -> Tensor:
        """Places in an epoch's order of `count` images that this rank takes, batch after batch: int64."""
        whole = count // (self.batch_size * self.world_size)
        places = torch.arange(count)
        mine = places[: whole * self.batch_size * self.world_size]
        mine = mine.view(whole, self.world_size, self.batch_size)[:, self.rank].reshape(-1)
        if self.drop_last:
            return mine
        rest = count - whole * self.batch_size * self.world_size
        share = rest // self.world_size
        return torch.cat([mine, places[count - rest :][share * self.rank : share * (self.rank + 1)]])


class Loader(ABC):
    """Finished batches of one split; an epoch is a pure function of (seed, its number).

    asked:        how its images become batches
    seed:         what all random choices depend on; may be set between epochs
    num_samples:  images an epoch yields on this rank
    choose:       where it doesn't show all: (which image comes when, epoch) -> int64, places of those shown
                  and how often each has been shown before
    rows:         int64, which images the batch that was yielded last is of; not of torchvision's loader
    kernel, kernel_reason:  which kernel augments, and why that one
    """

    def __init__(self, asked: Batching, count: int) -> None:
        asked.check(asked.shown(count))
        self.asked, self.seed, self.batch_size = asked, asked.seed, asked.batch_size
        self.device = torch.device(asked.device)
        self.kernel, self.kernel_reason = augmentation.kernel_for(asked.kernel, self.device, asked.augment)
        self.mine = asked.positions(asked.shown(count)).to(self.device)
        self.num_samples = len(self.mine)
        self.choose: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None
        self.rows = self.mine[:0]

    def __len__(self) -> int:
        """Steps an epoch; the last may take fewer images than the others."""
        return -(-self.num_samples // self.batch_size)

    def count_at(self, step: int) -> int:
        """Images that this rank takes in a step of the run, counted from 0."""
        return min(self.batch_size, self.num_samples - step % len(self) * self.batch_size)

    def seen(self, order: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Places in `order` (N,), which image comes when, of those that the epoch shows: int64, rising.

        And how often each has been shown before, if that is known and not the epoch's number.
        """
        shown = self.asked.shown(len(order))
        if shown < len(order) and self.choose is not None:
            return self.choose(order, epoch)
        return torch.arange(shown, device=order.device), None

    @property
    def mixed_classes(self) -> int:
        """How many classes the labels weigh, where images are mixed; 0 where labels are numbers."""
        spec = self.asked.augment
        return self.asked.classes if spec is not None and spec.mixes else 0

    @abstractmethod
    def epoch(self, epoch: int, out: Buffers = no_buffers) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, each written where `out` says when it is made."""

    @abstractmethod
    def some_images(self, count: int) -> Tensor:
        """`count` images from all over the split, normalised and not augmented: float32 (count,3,H,W)."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compile all that epochs and `some_images` need, at every size, on batches that are thrown away."""

    @abstractmethod
    def close(self) -> None:
        """Give back memory, files and threads; the loader yields nothing afterwards."""

    def plain(self, stored: Stored, rows: Tensor) -> Tensor:
        """The images of `rows` as they are stored, normalised: float32."""
        return augmentation.apply(
            stored,
            rows,
            augmentation.no_choices(len(rows)),
            mean=self.asked.mean,
            std=self.asked.std,
            kernel=PLAIN.get(self.kernel, self.kernel),
        )

    def finished(
        self, stored: Stored, labels: Tensor, rows: Tensor, choices: Choices, size: int | None, out: Buffers
    ) -> Batch:
        """One batch: the images and labels of `rows`, augmented, at `size`, where `out` wants them."""
        asked, (height, width) = self.asked, stored.shape[1:3]
        shape = (len(rows), 3, height if size is None else size, width if size is None else size)
        images_out, labels_out = out(shape) or (None, None)
        images = augmentation.apply(
            stored,
            rows,
            choices,
            mean=asked.mean,
            std=asked.std,
            dtype=asked.dtype,
            size=size,
            channels_last=asked.channels_last,
            kernel=self.kernel,
            out=images_out,
        )
        if labels_out is not None and labels_out.dtype == labels.dtype:
            return images, torch.index_select(labels, 0, rows, out=labels_out)
        chosen = augmentation.mixed(labels.index_select(0, rows), choices, asked.classes)
        return images, chosen if labels_out is None else labels_out.copy_(chosen)

    def size_at(self, epoch: int, step: int) -> int | None:
        """Height and width of one step's images, None as stored."""
        return self.asked.resolution(epoch * len(self) + step)


def spread(count: int, total: int, device: torch.device | None = None) -> Tensor:
    """(count,) int64: places among `total`, evenly far apart, since folders hold one class after another."""
    return torch.arange(count, device=device) * total // count
