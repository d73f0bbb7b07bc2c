"""Pieces that the networks share: activations, channel counts, convolution with batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.cpu import convolution
from fastresnet.models.weights import draw

# What the logits are multiplied by where model.head_scale doesn't say; by 1 in the other families.
HEAD_SCALES = {"speednet": 1 / 9, "resnet9": 1 / 8, "resnet9_ffcv": 1 / 5}


def activation(name: str) -> nn.Module:
    """relu (in place: nothing before it needs its input), gelu (exact, by the error function) or silu."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "gelu":
        return nn.GELU()
    if name == "silu":
        return nn.SiLU(inplace=False)
    raise ValueError(f"model.activation must be one of relu, gelu, silu, got {name!r}")


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 and at least 8; `channels` where width is 1.

    Matrix units and vector registers work on multiples of 8.
    """
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


class Conv2d(nn.Conv2d):
    """PyTorch's; with `own_kernels` ours where they fit (see `cpu`), by Winograd's method where `tiles`."""

    own_kernels = tiles = False

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = convolution.own(x, weight, self, self.tiles) if self.own_kernels else None
        return super()._conv_forward(x, weight, bias) if y is None else y


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias; height and width stay, or are divided by the stride, rounded up."""
    return Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class PaddedConv2d(Conv2d):
    """A convolution between channels of which the last hold zeros; its parameters know nothing of these.

    So the number of channels can be one that matrix units like. (N,C,h,w) -> (N,D,h',w').

    more_inputs, more_outputs:  how many hold zeros, beyond the filters' own `inputs` and `outputs`
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        padding: int = 0,
        bias: bool = False,
        more_inputs: int = 0,
        more_outputs: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding, bias=bias)
        self.more = more_inputs, more_outputs

    def forward(self, x: Tensor) -> Tensor:
        more_inputs, more_outputs = self.more
        if not (more_inputs or more_outputs):
            return super().forward(x)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_inputs, 0, more_outputs))
        bias = None if self.bias is None else F.pad(self.bias, (0, more_outputs))
        return self._conv_forward(x, weight, bias)


class Network(nn.Module):
    """What `models.build` gives: images (N,3,h,w) floating point -> logits (N,K).

    pretrained_report:  what model.pretrained gave, in one line; None where the network starts from nothing
    counted:            whether `reset_parameters` has drawn all its weights, so that it can draw others
    he_normal:          how convolutions begin: see `weights.draw`
    smallest:           height and width in px below which a pool or convolution would have nothing left
    """

    pretrained_report: str | None = None
    counted = he_normal = False
    smallest = 1

    def reset_parameters(self, seed: int | None = None) -> None:
        """First weights, in place and on the device where they lie; no device gives others.

        seed:  they follow from it alone; None: from the one that torch.manual_seed was last given
        """
        draw(self, torch.initial_seed() if seed is None else seed, self.he_normal)
        self.counted = True


class GlobalAvgPool(nn.Module):
    """The mean over height and width, (N,C,h,w) -> (N,C,1,1).

    Unlike nn.AdaptiveAvgPool2d(1)'s its gradient is channels-last too: the backward pass converts nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, (x.shape[2], x.shape[3]))


class GlobalMaxPool(nn.Module):
    """The maximum over height and width, (N,C,h,w) -> (N,C,1,1)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, (x.shape[2], x.shape[3]))


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self, inputs: int, outputs: int, act: str, kernel: int = 3, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(
            Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            activation(act),
        )


class Residual(nn.Sequential):
    """x + f(x) for the modules in a row f, which keep the shape."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch's
        return x + y
