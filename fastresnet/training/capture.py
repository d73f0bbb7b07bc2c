"""Compiled and captured training steps: one CUDA graph holds rates, forward, backward and optimizer.

A replay is one launch. Capturing has to run the step first: a Snapshot puts everything back that those runs
changed, in place, because the graph keeps the addresses.
"""

from __future__ import annotations

import itertools
from typing import Callable, Iterable, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from fastresnet.optim.optimizers import Optimizers

# before a capture, on a side stream: lazily created states and workspaces must exist by then
WARM_UP_STEPS = 3

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result], mode: str) -> Callable[Arguments, Result]:
    """`function` compiled in torch.compile's `mode` for each shape apart; itself where that is "off"."""
    return function if mode == "off" else torch.compile(function, mode=mode, dynamic=False)


class Snapshot:
    """Copies of weights, buffers, optimizer states and `more` tensors; `restore` writes them back in place.

    Optimizer states that were made after the snapshot become zero, which is what a fresh state means for SGD,
    Adam and Muon.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizers, more: Iterable[Tensor]) -> None:
        self.optimizer = optimizer
        tensors = itertools.chain(model.parameters(), model.buffers(), more, optimizer.states())
        self.kept = [(value, value.detach().clone()) for value in tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Write everything back."""
        known = {id(value) for value, _ in self.kept}
        for value, old in self.kept:
            value.copy_(old)
        for value in self.optimizer.states():
            if id(value) not in known:
                value.zero_()


class CapturedStep:
    """One graph of the whole step for one kind of batch.

    body:     images, labels -> one optimizer step and the rates of the next, without host synchronisation
    restore:  puts back, in place, everything that `body` changes
    """

    def __init__(
        self,
        body: Callable[[Tensor, Tensor], None],
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
                body(self.images, self.labels)
        here.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            body(self.images, self.labels)
        restore()

    def replay(self, images: Tensor, labels: Tensor) -> None:
        """Run the step on one batch, copied into the graph's buffers unless it lies there already."""
        if images is not self.images:
            self.images.copy_(images)
        if labels is not self.labels:
            self.labels.copy_(labels)
        self.graph.replay()
