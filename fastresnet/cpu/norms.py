"""Max-pool, batch norm, a sum and activation as one differentiable operation, in few passes over memory.

PyTorch makes four of them and keeps what lies between, with eight bytes for the place of each maximum. It
reaches PyTorch's dispatcher under names of its own, so that profilers and counters see it.
"""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastresnet.cpu.arrays import array

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "RELU", nn.SiLU: "SILU", nn.GELU: "GELU"}
DTYPES = (torch.bfloat16, torch.float32)


def fits(x: Tensor, norm: nn.Module, act: nn.Module, skip: Tensor | None = None) -> bool:
    """Whether `norm_act` may stand for the modules with these images: where a network learns on a CPU."""
    fixed = isinstance(norm, nn.BatchNorm2d) and not norm.weight.requires_grad  # it is 1 then
    exact = norm.bias.dtype == torch.float32 and norm.momentum is not None
    learns = norm.training and not torch.compiler.is_compiling()
    known = type(act) in ACTIVATIONS and getattr(act, "approximate", "none") == "none"
    given = (x,) if skip is None else (x, skip)
    dense = all(one.is_contiguous(memory_format=torch.channels_last) for one in given)
    alike = x.dtype in DTYPES and (skip is None or skip.dtype == x.dtype)
    here = x.is_cpu and type(x) is Tensor and len(x) > 1
    return fixed and exact and learns and known and dense and alike and here


def norm_act(
    x: Tensor, norm: nn.BatchNorm2d, act: nn.Module, *, pooled: bool, skip: Tensor | None = None
) -> Tensor:
    """act(norm(x) + skip), or act(norm(max_pool2d(x, 2)) + skip) where `pooled`, as in training.

    x:     (N,C,H,W), channels last, bf16 or fp32, which the result is too
    norm:  its weight is 1 and doesn't learn; its running statistics move on
    skip:  as the result is; nothing is added without it
    """
    y: Tensor = _NormAct.apply(x, norm.bias, skip, norm, ACTIVATIONS[type(act)], pooled)
    return y


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, skip: Tensor | None, norm: nn.BatchNorm2d, kind: str, pooled: bool
    ) -> Tensor:
        y, small, which, statistics = _forward(x, bias, skip, norm.eps, kind, pooled)
        _move(norm, statistics, y.numel() // y.shape[1])
        ctx.save_for_backward(small if pooled else x, which, bias, skip, statistics)
        ctx.rest = norm.eps, kind, list(x.shape[2:])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        gy = gy.contiguous(memory_format=torch.channels_last)
        gx, gbias, gskip = _backward(*ctx.saved_tensors, gy, *ctx.rest)
        return gx, gbias, gskip if ctx.needs_input_grad[2] else None, None, None, None


# Who sums up a profile finds norms by such names.
@torch.library.custom_op("fastresnet::pool_act_batch_norm", mutates_args=(), device_types="cpu")
def _forward(
    x: Tensor, bias: Tensor, skip: Tensor | None, eps: float, kind: str, pooled: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> y, the maxima and which they were (nothing without `pooled`), and mean and variance (2,C) fp64."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, height // 2, width // 2) if pooled else (0, channels, 1, 1)
    small, which = _images(shape, x.dtype), _images(shape, torch.uint8)
    kept = small if pooled else x
    y, statistics = torch.empty_like(kept), torch.empty(2, channels, dtype=torch.float64)
    passes, places = _passes(), _lines(which) if pooled else None
    passes.forward(
        torch.get_num_threads(), array(x), _lines(kept), places, None if skip is None else _lines(skip),
        getattr(passes, kind), bias.detach().numpy(), eps, statistics.numpy(), _lines(y),
    )  # fmt: skip
    return y, small, which, statistics


@torch.library.custom_op("fastresnet::pool_act_batch_norm_backward", mutates_args=(), device_types="cpu")
def _backward(
    x: Tensor,
    which: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    statistics: Tensor,
    gy: Tensor,
    eps: float,
    kind: str,
    size: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `x`, or of the images of `size` that it was pooled from, of the bias, and of skip."""
    passes, gz, gbias = _passes(), torch.empty_like(x), torch.empty_like(bias)
    pooled = len(which) > 0
    gx = _images((*x.shape[:2], *size), x.dtype)
    passes.backward(
        torch.get_num_threads(), _lines(x), _lines(which) if pooled else None,
        None if skip is None else _lines(skip), getattr(passes, kind), bias.detach().numpy(), eps,
        statistics.numpy(), _lines(gy), _lines(gz), array(gx) if pooled else _lines(gx), gbias.numpy(),
    )  # fmt: skip
    return gx, gbias, gz


@torch.no_grad()
def _move(norm: nn.BatchNorm2d, statistics: Tensor, count: int) -> None:
    """The running statistics, as PyTorch moves them: the variance without bias."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    mean, variance = statistics
    norm.running_mean.lerp_(mean.float(), norm.momentum)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).float(), norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1


def _passes() -> ModuleType:
    return importlib.import_module("fastresnet.cpu.norm_passes")  # late: numba takes a second to import


def _images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def _lines(x: Tensor) -> np.ndarray:
    """(N,C,H,W) channels last -> the same memory as (N H,W,C)."""
    return array(x).reshape(-1, x.shape[3], x.shape[1])
