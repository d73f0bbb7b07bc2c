"""The plain rival and fallback: torch's DataLoader, and torchvision's v2 transforms on one image at a time.

Takes the same choices as the resident loader, so its batches are the same to the last bit or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastresnet.augment.dispatch import Choices
from fastresnet.base.cores import cores_usable
from fastresnet.loading.resident import Batch, ResidentLoader


class TorchvisionLoader(ResidentLoader):
    """Keywords as in ResidentLoader, and `workers`: processes that augment (0: one a core; -1: this one).

    The images stay on the CPU, whatever `device` is; finished batches are copied there.
    """

    def __init__(
        self, images_NHWC: Any, labels: Any, *, workers: int = 0, kernel: str = "auto", **keywords: Any
    ):
        self.target = torch.device(keywords.pop("device", "cpu"))
        self.workers = 0 if workers < 0 else min(workers or cores_usable(), cores_usable())
        super().__init__(images_NHWC, labels, device="cpu", kernel="reference", **keywords)
        self.kernel, self.kernel_reason = "torchvision", "v2 transforms in DataLoader's processes"

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; leaving early ends the processes."""
        sequence, choices = self.plan(epoch)
        shown = AugmentedImages(self.images, self.labels, sequence, choices, self.mean, self.std)
        batches = iter(
            DataLoader(
                shown,
                batch_size=self.batch_size,
                num_workers=self.workers,
                pin_memory=self.target.type == "cuda",
                generator=torch.Generator(),  # or it would draw from the global one
            )
        )
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        for step, (images, labels) in enumerate(batches):
            size = None if self.resolution is None else self.resolution(epoch * len(self) + step)
            if size is not None:
                images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear")
            yield (
                images.to(self.target, self.dtype, non_blocking=True, memory_format=memory),
                labels.to(self.target, non_blocking=True),
            )


class AugmentedImages(Dataset):
    """Item i: the image shown at place i of an epoch, finished, float32 (3,H,W), and its label."""

    def __init__(
        self,
        images_NHWC: Tensor,
        labels: Tensor,
        sequence: Tensor,
        choices: Choices,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.images, self.labels = images_NHWC.permute(0, 3, 1, 2), labels
        self.sequence, self.choices = sequence.tolist(), choices
        self.mean, self.std = list(mean), list(std)

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        from torchvision.transforms.v2 import functional as tv

        number, choices, spec = self.sequence[place], self.choices, self.choices.spec
        image = self.images[number]
        height, width = image.shape[1:]
        pad, last = spec.crop_padding_px, spec.crop_mode == "mean"  # the mean is 0 once normalised: pad then
        if choices.dy is not None and not last:
            image = tv.pad(
                image, [pad], padding_mode="reflect" if spec.crop_mode == "reflect" else "constant"
            )
        image = tv.to_dtype(image, torch.float32, scale=True)
        if choices.contrast is not None:
            mean = torch.tensor(self.mean).view(3, 1, 1)
            image = (image - mean) * (1 + choices.contrast[place]) + mean
        if choices.brightness is not None:
            image = image + choices.brightness[place]
        image = tv.normalize(image, self.mean, self.std)
        if choices.dy is not None and choices.dx is not None:
            image = tv.pad(image, [pad]) if last else image
            image = tv.crop(image, int(choices.dy[place]), int(choices.dx[place]), height, width)
        if choices.flip is not None and bool(choices.flip[place]):
            image = tv.horizontal_flip(image)
        if choices.cut_y is not None and choices.cut_x is not None:
            side = spec.cutout_px
            top, left = int(choices.cut_y[place]) - side // 2, int(choices.cut_x[place]) - side // 2
            rows = min(top + side, height) - max(top, 0)
            cols = min(left + side, width) - max(left, 0)
            image = tv.erase(image, max(top, 0), max(left, 0), rows, cols, torch.zeros(3, 1, 1))
        return image, self.labels[number]
