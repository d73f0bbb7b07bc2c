"""A caller's own network, loss and augmentation, in the place of what settings name.

Knows no settings and no files; `names` says what a record tells of these parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Own:
    """Parts that a caller hands in; None leaves each to the settings.

    model:    a network, whose weights are where training starts; or a function (classes, image size in px)
              -> network, called anew for each seed
    loss:     (logits (B,K) fp32, labels (B,) int64) -> a scalar, the batch's mean or sum as
              train.loss_reduction says
    augment:  images (B,3,h,w), normalised, on the device -> the same shape; after all that the settings name
    """

    model: nn.Module | Callable[[int, int], nn.Module] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    augment: Callable[[Tensor], Tensor] | None = None

    def check(self) -> None:
        """Raises ValueError for what can't be called."""
        for name in ("model", "loss", "augment"):
            part = getattr(self, name)
            if part is not None and not callable(part):
                raise ValueError(f"{name} must be callable, got {type(part).__name__}")

    def new_model(self, classes: int, image_size: int) -> nn.Module:
        """A network of its own for each call. Raises ValueError where it answers in another shape."""
        model = copy.deepcopy(self.model) if isinstance(self.model, nn.Module) else self.model
        if model is not None and not isinstance(model, nn.Module):
            model = model(classes, image_size)
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module or give one, got {type(model).__name__}")
        was_training = model.training
        with torch.no_grad():
            logits = model.eval()(torch.zeros(2, 3, image_size, image_size))
        if not isinstance(logits, Tensor) or logits.shape != (2, classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"model must map images (N,3,{image_size},{image_size}) to logits (N,{classes}): "
                f"two images gave {found}"
            )
        return model.train(was_training)

    def names(self) -> list[str]:
        """What a record says of these parts: `model: mine:Net`, `loss: mine:focal`."""
        parts = {"model": self.model, "loss": self.loss, "augment": self.augment}
        return [f"{name}: {place(part)}" for name, part in parts.items() if part is not None]

    def augmented(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches after `augment`. Raises ValueError where it changes their shape."""
        assert self.augment is not None
        for images, labels in batches:
            shown = self.augment(images)
            if shown.shape != images.shape:
                raise ValueError(f"augment gave {tuple(shown.shape)} for images {tuple(images.shape)}")
            yield shown, labels


def place(part: object) -> str:
    """`module:name` of a function, a class, or an object's class."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    name = str(getattr(kind, "__qualname__", "")).rpartition(".")[2].strip("<>")
    return f"{getattr(kind, '__module__', None) or 'unknown'}:{name}"


NOTHING = Own()
