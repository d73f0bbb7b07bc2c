"""A 3x3 convolution whose weights learn by our kernel; all else is PyTorch's.

It reaches PyTorch's dispatcher under a name of its own, so that profilers and counters see it.
"""

import importlib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from fastresnet.cpu.arrays import array

ROWS, COLUMNS = 8, 32  # the kernel's tile: channels of images and of gradients are multiples of these
LLVM = 17  # the first that knows the instruction's operands as brain floats
BACKWARD = torch.ops.aten.convolution_backward.default
# stride, padding, dilation, whether it is transposed and the padding then, groups
GEOMETRY = [1, 1], [1, 1], [1, 1], False, [0, 0], 1


@lru_cache(maxsize=1)
def obstacle() -> str:
    """Why this machine can't run the kernel, or nothing; to be asked where numba is."""
    binding = importlib.import_module("llvmlite.binding")
    if not binding.get_host_cpu_features().get("avx512bf16"):
        return "this processor has no AVX512-BF16"
    return "" if binding.llvm_version_info[0] >= LLVM else "numba's LLVM is too old"


def fits(x: Tensor, weight: Tensor, layer: nn.Conv2d) -> bool:
    """Whether `convolve` may stand for the layer: bf16 images, channels last, whose 3x3 filters learn."""
    shape = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
    usual = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    plain = layer.padding_mode == "zeros" and layer.bias is None
    learns = weight.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    dense = x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last)
    divides = weight.shape[1] % ROWS == weight.shape[0] % COLUMNS == 0
    here = x.device.type == "cpu" and type(x) is Tensor and not obstacle()
    return usual and plain and learns and dense and divides and here


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution of x (N,I,h,w) bf16 with the weight (O,I,3,3) of any float dtype -> (N,O,h,w) bf16."""
    y: Tensor = _Convolution.apply(x, weight)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rounded = weight.to(x.dtype)
        ctx.save_for_backward(x, rounded)
        ctx.dtype = weight.dtype
        return torch.conv2d(x, rounded, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gy = gy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        gx = by_weight = None
        if ctx.needs_input_grad[0]:
            gx = BACKWARD(gy, x, weight, None, *GEOMETRY, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(x, gy).to(ctx.dtype)
        return gx, by_weight


# Who sums up a profile knows it by this name.
@torch.library.custom_op("fastresnet::convolution_by_weight", mutates_args=(), device_types="cpu")
def _by_weight(x: Tensor, gy: Tensor) -> Tensor:
    """The gradient of the weight (O,I,3,3), fp32, from x (N,I,h,w) and gy (N,O,h,w)."""
    threads = torch.get_num_threads()
    sums = torch.zeros(threads, 9, x.shape[1], gy.shape[1])
    kernel = importlib.import_module("fastresnet.cpu.weight_gradient")  # late: numba takes a second to import
    kernel.weight_gradient(array(x), array(gy), sums.numpy(), threads)
    return sums.sum(0).view(3, 3, x.shape[1], gy.shape[1]).permute(3, 2, 0, 1).contiguous()


@register_flop_formula(torch.ops.fastresnet.convolution_by_weight)
def _flops(x: torch.Size, gy: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * 9 * x[1] * gy.numel()
