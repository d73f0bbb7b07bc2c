"""Captured training steps: one CUDA graph holds rates, forward, backward and optimizer, and a replay is one
launch.

Capturing has to run the step first. A Snapshot puts everything back that those runs changed, in place,
because the graph keeps the addresses.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

# before a capture, on a side stream: lazily created states and workspaces must exist by then
WARM_UP_STEPS = 3


def optimizer_parts(optimizer: Any) -> Sequence[Any]:
    """The torch optimizers behind a joined one (Muon beside SGD); a plain optimizer is its own only part."""
    return getattr(optimizer, "parts", None) or [optimizer]


def forget(optimizer: Any) -> None:
    """Set every state to zero, in place, which is what a fresh state means for SGD, Adam and Muon."""
    for value in optimizer_states(optimizer):
        value.zero_()


def optimizer_states(optimizer: Any) -> list[Tensor]:
    """The tensors that the optimizer keeps from step to step."""
    return [
        value
        for part in optimizer_parts(optimizer)
        for state in part.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]


class Snapshot:
    """Copies of weights, buffers, optimizer states and `more` tensors; `restore` writes them back in place.

    Optimizer states that were made after the snapshot become zero, which is what a fresh state means for
    SGD, Adam and Muon.
    """

    def __init__(self, model: nn.Module, optimizer: Any, more: Iterable[Tensor]) -> None:
        self.optimizer = optimizer
        tensors = itertools.chain(model.parameters(), model.buffers(), more, optimizer_states(optimizer))
        self.kept = [(value, value.detach().clone()) for value in tensors]

    def restore(self) -> None:
        known = {id(value) for value, _ in self.kept}
        with torch.no_grad():
            for value, old in self.kept:
                value.copy_(old)
            for value in optimizer_states(self.optimizer):
                if id(value) not in known:
                    value.zero_()


class CapturedStep:
    """One graph of the whole step for one input shape.

    update:    images, labels -> one optimizer step, without host synchronisation
    advance:   moves learning rates one step on, on the device
    restore:   puts back, in place, everything that `update` and `advance` change
    """

    def __init__(
        self,
        update: Callable[[Tensor, Tensor], None],
        advance: Callable[[], None],
        restore: Callable[[], None],
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self.images, self.labels = images.clone(memory_format=torch.preserve_format), labels.clone()
        here = torch.cuda.current_stream(images.device)
        side = torch.cuda.Stream(images.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                update(self.images, self.labels)
        here.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            advance()
            update(self.images, self.labels)
        restore()

    def replay(self, images: Tensor, labels: Tensor) -> None:
        """Copy one batch into the graph's buffers and run the step."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
