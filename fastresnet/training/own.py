"""A caller's own network, loss and augmentation, in the place of what settings name.

Knows no settings and no files; `names` says what a record tells of these parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.base import parts
from fastresnet.training.selection import Batch


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

    def check(self, members: int = 1) -> None:
        """Raises ValueError for what can't be called, and where one network would have to be `members`."""
        if self.model is not None and members > 1:
            raise ValueError(f"model.members={members} is for model.arch, and a network was handed in")
        for name in ("model", "loss", "augment"):
            part = getattr(self, name)
            if part is not None and not callable(part):
                raise ValueError(f"{name} must be callable, got {type(part).__name__}")

    def new_model(self, classes: int, image_size: int) -> nn.Module:
        """A network of its own for each call, on the CPU. Raises ValueError where none comes of it."""
        given = self.model
        if isinstance(given, nn.Module):
            return parts.called("model: copied to the CPU", lambda: copy.deepcopy(given).cpu())
        assert given is not None
        how = f"model: {place(given)}({classes}, {image_size}), classes and image size"
        model = parts.called(how, given, classes, image_size)
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module or give one, got {type(model).__name__}")
        return model

    def try_out(self, images: Tensor, classes: int, mixed: bool) -> None:
        """Call augment and loss once; PyTorch's random state stays as it was.

        images:  a few, as the step gets them
        mixed:   labels are weights (B,K)
        Raises ValueError where one fails, or answers in another form.
        """
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            if self.augment is not None:
                _check_shown(parts.called("augment", self.augment, images), images)
            if self.loss is not None:
                labels = torch.arange(len(images), device=images.device) % classes
                labels = F.one_hot(labels, classes).float() if mixed else labels
                logits = torch.zeros(len(images), classes, device=images.device, requires_grad=True)
                _check_loss(parts.called("loss", self.loss, logits, labels))

    def names(self) -> list[str]:
        """What a record says of these parts: `model: mine:Net`, `loss: mine:focal`."""
        given = {"model": self.model, "loss": self.loss, "augment": self.augment}
        return [f"{name}: {place(part)}" for name, part in given.items() if part is not None]

    def repeatable(
        self, batches: Iterator[Batch], words: tuple[int, ...], device: torch.device
    ) -> Iterator[Batch]:
        """The batches after `augment`, each with PyTorch's random state set by `words` and its place alone.

        So dropout and whatever else the caller's code draws follows the seed, and goes on exactly from any
        step. Afterwards the state is what it was. Raises ValueError where augment changes the images' shape.
        """
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for step, (images, labels) in enumerate(batches):
                drawn = np.random.SeedSequence([*words, step]).generate_state(1, np.uint64)
                torch.manual_seed(int(drawn[0]))
                shown = images if self.augment is None else self.augment(images)
                _check_shown(shown, images)
                yield shown, labels


def answering(model: nn.Module, classes: int, shape: tuple[int, int]) -> nn.Module:
    """The same. Raises ValueError where it gives no logits of so many classes for (h,w), or can't learn."""
    was_training, images = model.training, torch.zeros(2, 3, *shape)
    with torch.no_grad():
        logits = parts.called(f"model: on two images {tuple(images.shape)}", model.eval(), images)
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        raise ValueError(
            f"model must map images (N,3,{shape[0]},{shape[1]}) to logits (N,{classes}): "
            f"two images gave {_form(logits)}"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model has no parameter that learns (requires_grad)")
    return model.train(was_training)


def _check_shown(shown: object, images: Tensor) -> None:
    floating = isinstance(shown, Tensor) and shown.is_floating_point()
    if not isinstance(shown, Tensor) or shown.shape != images.shape or not floating:
        raise ValueError(f"augment gave {_form(shown)} for {_form(images)}")


def _check_loss(found: object) -> None:
    if not isinstance(found, Tensor) or found.ndim or not found.requires_grad:
        told = _form(found) if not isinstance(found, Tensor) or found.ndim else "one without"
        raise ValueError(f"loss must give a scalar with a gradient, got {told}")


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def place(part: object) -> str:
    """`module:name` of a function, a class, or an object's class."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    name = str(getattr(kind, "__qualname__", "")).rpartition(".")[2].strip("<>")
    return f"{getattr(kind, '__module__', None) or 'unknown'}:{name}"


NOTHING = Own()
