"""First weights that follow from a seed and their names alone, drawn where they lie: no device gives others.

PyTorch's generators have other numbers on a GPU than on a CPU, and what the host draws must be uploaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import methodcaller
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fastresnet.augment.counter import Draws

QUANTILES = 1 << 16
PIECE = 1 << 15  # numbers that a CPU draws at once: they stay in its cache


@torch.no_grad()
def draw(model: nn.Module, seed: int, he_normal: bool = False) -> None:
    """Draw the convolutions and linear layers of `model` in place, and set its batch norms to one and zero.

    Uniformly within ±1/sqrt(fan in), as PyTorch does; with `he_normal` convolutions are normal with variance
    2/(fan out) (He et al. 2015, arXiv 1502.01852).
    """
    table = torch.tensor(_quantiles(), device=next(model.parameters()).device) if he_normal else None
    for path, module in model.named_modules():
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            module.reset_parameters()
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = module.weight[0].numel() ** -0.5
            for name, values in module.named_parameters(path, recurse=False):
                if table is not None and values.ndim == 4:
                    normal = functools.partial(_normal, purpose=name, table=table)
                    made = _drawn(values, seed, normal) * (2 / values[:, 0].numel()) ** 0.5
                else:
                    made = (_drawn(values, seed, methodcaller("uniform", name)) - 0.5) * (2 * bound)
                values.copy_(made.view(values.shape))


@contextmanager
def undrawn() -> Iterator[None]:
    """Convolutions and linear layers made meanwhile hold whatever lay in memory.

    For the making of a network that draws all of its own: PyTorch's draws, number after number, take longer.
    """
    with _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        by_pytorch = func in (nn.init.kaiming_uniform_, nn.init.uniform_)
        return None if by_pytorch else func(*args, **(kwargs or {}))


def _drawn(like: Tensor, seed: int, draw_some: Callable[[Draws], Tensor]) -> Tensor:
    """A number for each of `like`'s: float32 (n,), on its device."""
    places = torch.arange(like.numel(), device=like.device)
    pieces = places.split(PIECE) if like.device.type == "cpu" else (places,)
    return torch.cat([draw_some(Draws(seed, 0, some)) for some in pieces])


def _normal(draws: Draws, purpose: str, table: Tensor) -> Tensor:
    """float32 (n,), normal up to 4.3 standard deviations: looked up, for a GPU's logarithms are others."""
    return table.index_select(0, draws.below(purpose, QUANTILES))


@functools.cache
def _quantiles() -> npt.NDArray[np.float32]:
    """Of the normal distribution, in the middle of 65,536 equal shares."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse((place + 0.5) / QUANTILES) for place in range(QUANTILES)], np.float32)
