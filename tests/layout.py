"""Counts where a training step leaves channels-last: each such place costs a copy of an activation."""

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LayoutWatch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.left = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for out in tree_leaves(result):
            if isinstance(out, torch.Tensor) and out.ndim == 4 and min(out.shape[1:]) > 1:
                if not out.is_contiguous(memory_format=torch.channels_last):
                    self.left.append((str(func), tuple(out.shape), out.stride()))
        return result


def count_layout_changes(model, dtype, size=32):
    """Operations of a forward and backward pass that give a 4-D tensor in another layout than NHWC."""
    model = model.train().to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(4)
    with _LayoutWatch() as watch:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
    return watch.left
