"""Further augmentations, a module and a line each: plain PyTorch, composed after any kernel's pass.

Refuses to know the others: an extra gets finished images and the rows that it drew, nothing else.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from fastresnet.augment.counter import Draws


class Extra(Protocol):
    """What a module of this folder offers."""

    def draw(self, draws: Draws, share: float) -> Tensor:
        """The choices of an epoch, a row an image, of which `share` are to be changed."""

    def apply(self, images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """The images changed as was drawn: float32 (B,3,h,w), normalised by mean and std."""


class Mixing(Extra, Protocol):
    """One that mixes each image with the one before it in its rank's batch, and labels likewise."""

    def own_share(self, drawn: Tensor) -> Tensor:
        """The weight of an image's own label: float32 (B,)."""


# The modules of this folder; adding one is a file and a line.
NAMES = [
    "erasing",  # a rectangle of the mean colour
    "grayscale",  # images without colour
    "trivial",  # one of ten: sheared, shifted, turned, brighter, fewer shades, ...
    "mixup",  # two images over each other, labels too
    "cutmix",  # a square of another image, labels too
]
EXTRAS = {name: cast(Extra, importlib.import_module(f"{__name__}.{name}")) for name in NAMES}
MIXING = {name: cast(Mixing, extra) for name, extra in EXTRAS.items() if hasattr(extra, "own_share")}
