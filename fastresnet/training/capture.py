"""Compiled and captured work: one CUDA graph holds a whole training step, or the evaluation of a batch.

A replay is one launch. Capturing has to run the work first: a Snapshot puts everything back that those runs
changed, in place, because the graph keeps the addresses.
"""

from __future__ import annotations

import itertools
from typing import Callable, Generic, Iterable, ParamSpec, Sequence, TypeVar

import torch
from torch import Tensor, nn

from fastresnet.optim.optimizers import Optimizers

# before a capture, on its stream: lazily created states and workspaces must exist by then
WARM_UP_STEPS = 3
# kinds of batches that one function may be compiled for, all experiments of a process together: beyond eight,
# PyTorch would go on without compiling
KINDS = 200
# tensors that an expression may read and still be computed twice: a gradient, norm and activation read six
READS = 6

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result], mode: str) -> Callable[Arguments, Result]:
    """`function` compiled in torch.compile's `mode` for each shape apart; itself where that is "off"."""
    if mode == "off":
        return function
    config = torch._dynamo.config
    # the latter in PyTorch 2.6
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(KINDS, getattr(config, limit)))
    _save_passes_over_memory()
    return torch.compile(function, mode=mode, dynamic=False)


def _save_passes_over_memory() -> None:
    """Two settings of PyTorch's compiler, for all that the process compiles: docs/costs.md has what it saves.

    A max-pool's gradient is gathered, as older PyTorch does it, not added to zeros place by place. Norm and
    activation are computed again where the backward pass needs them, not stored.
    """
    from torch._inductor import config, decomposition

    for table in (decomposition.decompositions, decomposition.select_decomp_table()):  # the latter is a copy
        table.pop(torch.ops.aten.max_pool2d_with_indices_backward.default, None)
    config.realize_reads_threshold = max(READS, config.realize_reads_threshold)


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


def recorded(body: Callable[[], Result], device: torch.device) -> tuple[Callable[[], None], Result]:
    """What plays `body` again as one CUDA graph, and the result that it writes anew each time."""
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            body()
    here.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):  # where gradients were made before: no node waits elsewhere
        result = body()
    return graph.replay, result


class Captured(Generic[Result]):
    """One graph of some work on inputs of one kind; inputs and result stay at their addresses.

    body:     inputs -> result, without host synchronisation
    inputs:   of that kind; the graph has buffers of its own like them
    restore:  puts back, in place, everything that `body` changes
    """

    def __init__(
        self,
        body: Callable[..., Result],
        inputs: Sequence[Tensor],
        restore: Callable[[], None] = lambda: None,
    ) -> None:
        self.inputs = tuple(given.clone(memory_format=torch.preserve_format) for given in inputs)
        self._play, self.result = recorded(lambda: body(*self.inputs), self.inputs[0].device)
        restore()

    def replay(self, *inputs: Tensor) -> Result:
        """Run the work on inputs that are copied into the graph's, unless they lie there already."""
        for own, given in zip(self.inputs, inputs, strict=True):
            if given is not own:
                own.copy_(given)
        self._play()
        return self.result
