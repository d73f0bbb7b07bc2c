"""A CUDA graph's stand-in on the CPU: what is recorded once is played again, on the same memory.

Python runs while it is recorded and no more, as with a graph: `monkeypatch` it over `capture.recorded`.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Keeps each operation that reaches the dispatcher, with its arguments and what it gave."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def play(self):
        """Every operation again, its results where they were the first time."""
        for func, args, kwargs, result in self.calls:
            for old, new in zip(tensors(result), tensors(func(*args, **kwargs))):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def recorded(body, device):
    """What plays `body` again, and the result that it writes anew: see `capture.recorded`."""
    body()  # as before a graph's capture: lazily created states exist afterwards
    with Tape() as tape:
        result = body()
    return tape.play, result
