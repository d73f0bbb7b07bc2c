"""What may happen to a training image, and what was drawn for each image of an epoch.

Touches no pixel: `dispatch.apply` does, by one of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from fastresnet.augment.counter import Draws
from fastresnet.augment.extras import EXTRAS, MIXING

CROP_MODES = ("reflect", "zero", "mean")
FLIPS = ("none", "random", "alternating")


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image. The default is: nothing.

    crop_padding_px:  padding on each side, from which a window of the image's own size is cut at random
    crop_mode:        what the padding holds: `reflect` mirrors without repeating the edge, `zero` is black,
                      `mean` is the mean colour, which is 0 after normalising
    flip:             mirroring left to right: `none`, `random`, or `alternating`, a coin for each image,
                      then the other way each time that it is shown (Jordan 2024, arXiv:2404.00498)
    cutout_px:        side of a square set to the mean colour, its centre anywhere in the image and its rim
                      clipped at the borders (DeVries & Taylor 2017, arXiv:1708.04552)
    brightness:       adds b, uniform in ±brightness, to all pixels (a share of the range black to white)
    contrast:         multiplies the distance from the mean colour by 1 + c, c uniform in ±contrast
    extras:           (name, share of the images) of further ones, in their order: see `augment.extras`
    """

    crop_padding_px: int = 0
    crop_mode: str = "reflect"
    flip: str = "none"
    cutout_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    extras: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in (("crop_mode", CROP_MODES), ("flip", FLIPS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("crop_padding_px", "cutout_px", "brightness", "contrast"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name, share in self.extras:
            if name not in EXTRAS:
                raise ValueError(f"train.extras knows {', '.join(EXTRAS)}, got {name!r}")
            if not 0 <= share <= 1:
                raise ValueError(f"train.extras: {name} must lie between 0 and 1, got {share}")
        if twice := len(self.extras) - len(dict(self.extras)):
            raise ValueError(f"train.extras names {twice} of its augmentations again, each is drawn once")

    @property
    def mixes(self) -> bool:
        """Whether labels become weights of several classes."""
        return any(name in MIXING for name, _ in self.extras)

    def check_size(self, height: int, width: int) -> None:
        """ValueError where the padding can't be reflected from so small an image."""
        if self.crop_mode == "reflect" and self.crop_padding_px >= min(height, width):
            raise ValueError(
                f"crop_padding_px={self.crop_padding_px} can't be reflected from images of {height}x{width} "
                f"px: it must be at most {min(height, width) - 1} (or crop_mode zero or mean)"
            )


def from_settings(train: object) -> Augment:
    """The augmentation of a run: each field of `Augment` is the setting of that name in the section `train`.

    train.extras is a list of texts, a name and a share each: ["erasing 0.25", "grayscale 0.1"].
    """
    asked: dict[str, Any] = {one.name: getattr(train, one.name) for one in fields(Augment)}
    extras = (text.partition(" ") for text in asked["extras"])
    return Augment(**asked | {"extras": tuple((name, float(share)) for name, _, share in extras)})


@dataclass(frozen=True)
class Choices:
    """The random choices for n images, one row an image; None stands for «not done». All on one device.

    dy, dx:        int32 (n,), the window's corner in the padded image, 0 … 2·crop_padding_px
    flip:          bool (n,), mirror the window (the crop is mirrored, not the padding: flip comes after crop)
    cut_y, cut_x:  int32 (n,), cutout's centre in the finished window
    brightness, contrast:  float32 (n,), b and c of `Augment`
    extras:        name -> what that extra drew, n rows
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
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def slice(self, start: int, stop: int) -> Choices:
        """The choices of images start … stop-1, as views."""
        return self._each(lambda rows: rows[start:stop], max(0, min(stop, self.count) - start))

    def select(self, rows: Tensor) -> Choices:
        """The choices of the images at positions `rows` (int64)."""
        return self._each(lambda values: values.index_select(0, rows), len(rows))

    def _each(self, change: Callable[[Tensor], Tensor], count: int) -> Choices:
        drawn: dict[str, Any] = {
            k: change(rows) for k, rows in vars(self).items() if isinstance(rows, Tensor)
        }
        extras = {name: change(rows) for name, rows in self.extras.items()}
        return replace(self, count=count, extras=extras, **drawn)


def no_choices(count: int) -> Choices:
    """What evaluation applies: nothing but normalising."""
    return Choices(count)


def order(count: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """A permutation of 0 … count-1, int64, a pure function of (seed, epoch)."""
    return Draws(seed, epoch, torch.arange(count, device=device)).permutation("order")


def draw(
    spec: Augment,
    count: int,
    size_hw: tuple[int, int],
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
    *,
    samples: Tensor | None = None,
    times: Tensor | None = None,
) -> Choices:
    """All random choices of one epoch, a pure function of (seed, epoch), drawn on `device` without a wait.

    count:    images that the epoch shows
    size_hw:  height and width of the stored images
    samples:  int64 (count,), which stored image each one is (None: 0 … count-1); alternating flips go by it
    times:    int64 (count,), how often each has been shown before (None: in every epoch)
    Raises ValueError where the padding can't be reflected from so small an image.
    """
    spec.check_size(*size_hw)
    places = torch.arange(count, device=device)
    draws = Draws(seed, epoch, places)
    crop, cut = 2 * spec.crop_padding_px + 1, spec.cutout_px

    def around(purpose: str, limit: float) -> Tensor | None:
        return (draws.uniform(purpose) * 2 - 1) * limit if limit else None

    return Choices(
        count,
        spec,
        dy=draws.below("dy", crop) if crop > 1 else None,
        dx=draws.below("dx", crop) if crop > 1 else None,
        flip=_flips(spec.flip, draws, places if samples is None else samples.to(device), times),
        cut_y=draws.below("cut_y", size_hw[0]) if cut else None,
        cut_x=draws.below("cut_x", size_hw[1]) if cut else None,
        brightness=around("brightness", spec.brightness),
        contrast=around("contrast", spec.contrast),
        extras={name: EXTRAS[name].draw(draws, share) for name, share in spec.extras},
    )


def _flips(kind: str, draws: Draws, samples: Tensor, times: Tensor | None) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "random":
        return draws.coin("flip")
    turned = draws.epoch % 2 == 1 if times is None else times % 2 == 1
    return Draws(draws.seed, 0, samples).coin("alternating") ^ turned
