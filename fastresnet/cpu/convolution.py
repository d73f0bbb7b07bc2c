"""3x3 convolutions: by Winograd's method, or PyTorch's with weights that learn by our kernel.

It reaches PyTorch's dispatcher under a name of its own, so that profilers and counters see it.
"""

import importlib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from fastresnet.cpu.arrays import array
from fastresnet.cpu.winograd import by_tiles, places, tile_of

ROWS, COLUMNS = 8, 32  # the kernel's tile: channels of images and of gradients are multiples of these
LLVM = 17  # the first that knows the instruction's operands as brain floats
BACKWARD = torch.ops.aten.convolution_backward.default
# stride, padding, dilation, whether it is transposed and the padding then, groups
GEOMETRY = [1, 1], [1, 1], [1, 1], False, [0, 0], 1


@lru_cache(maxsize=1)
def obstacle() -> str:
    """Why this machine had better not run what is for bf16, or nothing; to be asked where numba is."""
    binding = importlib.import_module("llvmlite.binding")
    features = binding.get_host_cpu_features()
    if not features.get("avx512bf16"):
        return "this processor has no AVX512-BF16"
    if features.get("amx-bf16"):
        return "this processor has AMX, by which PyTorch's convolutions are faster"
    return "" if binding.llvm_version_info[0] >= LLVM else "numba's LLVM is too old"


def own(x: Tensor, weight: Tensor, layer: nn.Conv2d, tiles: bool) -> Tensor | None:
    """The layer's result by our operations where they fit: 3x3, channels last, while a net learns.

    x:      (N,I,h,w), bf16 or fp32
    tiles:  whether Winograd's method may be taken
    """
    learning = layer.training and not torch.compiler.is_compiling()
    dense = x.is_contiguous(memory_format=torch.channels_last)
    asked = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    known = x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and not obstacle())
    here = x.device.type == "cpu" and type(x) is Tensor and x.dtype == asked and known
    if not (_usual(layer) and learning and dense and here):
        return None
    outputs, inputs = weight.shape[:2]
    if tiles and weight.dtype == torch.float32 and (size := tile_of(inputs, outputs, *x.shape[2:])):
        return by_tiles(x, weight, size)
    divides = inputs % ROWS == outputs % COLUMNS == 0
    return convolve(x, weight) if divides and weight.requires_grad and x.dtype == torch.bfloat16 else None


def products(layer: nn.Conv2d, height: int, width: int) -> int:
    """How many an image of such a result takes by Winograd's method while the layer learns, if it does."""
    if not (getattr(layer, "tiles", False) and _usual(layer)):
        return 0
    inputs, outputs = layer.in_channels, layer.out_channels
    size = tile_of(inputs, outputs, height, width)
    return inputs * outputs * places(size, height, width) if size else 0


def _usual(layer: nn.Conv2d) -> bool:
    shape = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
    plain = layer.padding_mode == "zeros" and layer.bias is None
    return plain and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)


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
