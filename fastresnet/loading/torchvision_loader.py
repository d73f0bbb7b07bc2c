"""The plain rival and fallback: torch's DataLoader, and torchvision's v2 transforms on one image at a time.

Takes the same choices as the resident loader, so its batches are the same to the last bit or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastresnet.augment.choices import Choices
from fastresnet.augment.dispatch import finish, mixed
from fastresnet.base.system import cores_usable
from fastresnet.loading.interface import RGB, Batch, Batching, Buffers, no_buffers
from fastresnet.loading.resident import ResidentLoader


class TorchvisionLoader(ResidentLoader):
    """Arguments as in ResidentLoader, and `workers`: processes that augment (0: one a core; -1: this one).

    The images stay on the CPU, whatever the device is; finished batches are copied there.
    """

    def __init__(
        self,
        images_NHWC: np.ndarray | Tensor,
        labels: np.ndarray | Tensor,
        asked: Batching,
        *,
        workers: int = 0,
    ) -> None:
        super().__init__(images_NHWC, labels, replace(asked, device="cpu", kernel="reference"))
        self.target = torch.device(asked.device)
        self.workers = 0 if workers < 0 else min(workers or cores_usable(), cores_usable())
        self.kernel, self.kernel_reason = "torchvision", "v2 transforms in DataLoader's processes"

    def epoch(self, epoch: int, out: Buffers = no_buffers) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0; leaving early ends the processes."""
        assert isinstance(self.stored, Tensor)
        sequence, choices = self.plan(epoch)
        shown = AugmentedImages(self.stored, self.labels, sequence, choices, self.asked.mean, self.asked.std)
        batches = DataLoader(
            shown,
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=self.target.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the global one
        )
        for step, (images, labels) in enumerate(batches):
            size, start = self.size_at(epoch, step), step * self.batch_size
            if size is not None:
                images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear")
            some = choices.slice(start, start + len(labels))
            images = finish(images, some, self.asked.mean, self.asked.std)
            yield self._there(images, mixed(labels, some, self.asked.classes), out)

    def _there(self, images: Tensor, labels: Tensor, out: Buffers) -> Batch:
        if buffers := out(tuple(images.shape)):
            return buffers[0].copy_(images, non_blocking=True), buffers[1].copy_(labels, non_blocking=True)
        memory = torch.channels_last if self.asked.channels_last else torch.contiguous_format
        there = images.to(self.target, self.asked.dtype, non_blocking=True, memory_format=memory)
        return there, labels.to(self.target, non_blocking=True)

    def some_images(self, count: int) -> Tensor:
        """See `Loader.some_images`; on the device."""
        return super().some_images(count).to(self.target)

    def warm_up(self) -> None:
        """Nothing is compiled here."""


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Item i: the image at place i of an epoch, float32 (3,H,W), finished but for extras, and its label."""

    def __init__(
        self, images_NHWC: Tensor, labels: Tensor, sequence: Tensor, choices: Choices, mean: RGB, std: RGB
    ) -> None:
        self.images, self.labels = images_NHWC.permute(0, 3, 1, 2), labels
        self.sequence, self.choices = sequence.tolist(), choices
        self.mean, self.std = list(mean), list(std)

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        number = self.sequence[place]
        one, last = self.choices.slice(place, place + 1), self.choices.spec.crop_mode == "mean"
        image = self.images[number] if last else self._padded(self.images[number], one)
        image = self._normalised(image, one)  # the mean is 0 once normalised: mode mean pads then
        return _cut(self._padded(image, one) if last else image, one, self.images.shape[2:]), self.labels[
            number
        ]

    def _padded(self, image: Tensor, one: Choices) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        if one.dy is None:
            return image
        mode = "reflect" if one.spec.crop_mode == "reflect" else "constant"
        padded: Tensor = tv.pad(image, [one.spec.crop_padding_px], padding_mode=mode)
        return padded

    def _normalised(self, image: Tensor, one: Choices) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        image = tv.to_dtype(image, torch.float32, scale=True)
        if one.contrast is not None:
            mean = torch.tensor(self.mean).view(3, 1, 1)
            image = (image - mean) * (1 + one.contrast) + mean
        if one.brightness is not None:
            image = image + one.brightness
        normalised: Tensor = tv.normalize(image, self.mean, self.std)
        return normalised


def _cut(image: Tensor, one: Choices, size_hw: torch.Size) -> Tensor:
    """The window of a padded image, mirrored and with its square erased, as one row of choices says."""
    from torchvision.transforms.v2 import functional as tv

    height, width = size_hw
    if one.dy is not None and one.dx is not None:
        image = tv.crop(image, int(one.dy), int(one.dx), height, width)
    if one.flip is not None and bool(one.flip):
        image = tv.horizontal_flip(image)
    if one.cut_y is not None and one.cut_x is not None:
        side = one.spec.cutout_px
        top, left = int(one.cut_y) - side // 2, int(one.cut_x) - side // 2
        rows = min(top + side, height) - max(top, 0)
        cols = min(left + side, width) - max(left, 0)
        image = tv.erase(image, max(top, 0), max(left, 0), rows, cols, torch.zeros(3, 1, 1))
    return image
