"""What happens to a batch of images between the dataset and the model, as kernels that all mean the same.

`reference` says what is meant, `fused` and `rows` say it fast for a CPU, `triton_augment` for a GPU. Random
choices are arguments. Imports nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

CROP_MODES = ("reflect", "zero", "mean")
FLIPS = ("none", "random", "alternating")


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image. The default is: nothing.

    crop_padding_px:  the image is padded by so much on each side, then a window of its own size is cut out at
                      random
    crop_mode:        what the padding holds: `reflect` mirrors without repeating the edge, `zero` is black,
                      `mean` is the mean colour, which is 0 after normalising
    flip:             mirroring left to right: `none`, `random`, or `alternating` (Jordan 2024,
                      arXiv:2404.00498: a coin for each image in epoch 0, then every image the other way each
                      epoch)
    cutout_px:        side of a square set to the mean colour, its centre anywhere in the image and its rim
                      clipped at the borders (DeVries & Taylor 2017, arXiv:1708.04552)
    brightness:       adds b, uniform in ±brightness, to all pixels (a share of the range black to white)
    contrast:         multiplies the distance from the mean colour by 1 + c, c uniform in ±contrast
    """

    crop_padding_px: int = 0
    crop_mode: str = "reflect"
    flip: str = "none"
    cutout_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (("crop_mode", CROP_MODES), ("flip", FLIPS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("crop_padding_px", "cutout_px", "brightness", "contrast"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Choices:
    """The random choices for n images, one row an image; None stands for «not done». Tensors of shape (n,) on
    one device.

    dy, dx:        int32, the window's corner in the padded image, 0 … 2·crop_padding_px
    flip:          bool, mirror the window (the crop is mirrored, not the padding: flip comes after crop)
    cut_y, cut_x:  int32, cutout's centre in the finished window
    brightness, contrast:  float32, b and c of `Augment`
    """

    count: int
    spec: Augment = Augment()
    dy: Tensor | None = None
    dx: Tensor | None = None
    flip: Tensor | None = None
    cut_y: Tensor | None = None
    cut_x: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None

    def slice(self, start: int, stop: int) -> Choices:
        """The choices of images start … stop-1, as views."""
        return self._each(lambda rows: rows[start:stop], max(0, min(stop, self.count) - start))

    def select(self, rows: Tensor) -> Choices:
        """The choices of the images at positions `rows` (int64)."""
        return self._each(lambda values: values.index_select(0, rows), len(rows))

    def to(self, device: torch.device | str) -> Choices:
        """The choices on `device`: one copy each, asynchronous from pinned memory where that is a GPU."""
        device = torch.device(device)
        if device.type != "cuda":
            return self._each(lambda rows: rows.to(device), self.count)
        return self._each(
            lambda rows: (rows if rows.is_cuda else rows.pin_memory()).to(device, non_blocking=True),
            self.count,
        )

    def _each(self, change: Callable[[Tensor], Tensor], count: int) -> Choices:
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("spec", "count")}
        moved: dict[str, Any] = {name: change(value) for name, value in held.items() if value is not None}
        return replace(self, count=count, **moved)
