"""What a forward pass costs in arithmetic: 2 per multiply-add of convolutions and linear layers, no more."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model without data, in fp32 and evaluation mode: its forward pass costs nothing."""
    return copy.deepcopy(model).to(device="meta", dtype=torch.float32).eval()


def layer_flops(layer: nn.Module, output: Tensor) -> int:
    """FLOPs of one layer that gave `output`: 2 per multiply-add of a convolution or linear layer, else 0."""
    if isinstance(layer, nn.Conv2d):
        values = output.numel() // output.shape[1] * layer.out_channels  # none for channels of zeros
        return 2 * values * math.prod(layer.kernel_size) * layer.in_channels // layer.groups
    if isinstance(layer, nn.Linear):
        return 2 * output.numel() * layer.in_features
    return 0


def flops_per_image(model: nn.Module, image_size: int = 32) -> int:
    """FLOPs of the forward pass of one image (3,image_size,image_size); a training step costs three."""
    total = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal total
        total += layer_flops(layer, output)

    ghost = on_meta(model)
    for layer in ghost.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        ghost(torch.empty(1, 3, image_size, image_size, device="meta"))
    return total
