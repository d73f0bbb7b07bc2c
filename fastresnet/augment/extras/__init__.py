"""Further augmentations, a module and a line each: plain PyTorch, composed after any kernel's pass.

Refuses to know the others: an extra gets finished images and the rows that it drew, nothing else.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fastresnet.augment.counter import Draws
from fastresnet.augment.extras import erasing, grayscale


class Extra(Protocol):
    """What a module of this folder offers."""

    def draw(self, draws: Draws, share: float) -> Tensor:
        """The choices of an epoch, a row an image, of which `share` are to be changed."""

    def apply(self, images: Tensor, drawn: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """The images changed as was drawn: float32 (B,3,h,w), normalised by mean and std."""


EXTRAS: dict[str, Extra] = {"erasing": erasing, "grayscale": grayscale}
