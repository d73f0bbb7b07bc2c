"""What a forward pass costs in arithmetic: 2 per multiply-add of convolutions and linear layers, no more.

By layer, without data, channels of zeros left out: torch.utils.flop_counter, the tests' oracle, counts them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from fastresnet.cpu import convolution
from fastresnet.models.layers import members


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model without data, in fp32 and evaluation mode: its forward pass costs nothing."""
    return copy.deepcopy(model).to(device="meta", dtype=torch.float32).eval()


def layer_flops(layer: nn.Module, output: Tensor, *, learning: bool = False) -> int:
    """FLOPs of one layer that gave `output`: 2 per multiply-add of a convolution or linear layer, else 0.

    learning:  as done while it learns, where Winograd's method takes fewer of them
    """
    if isinstance(layer, nn.Conv2d):
        if learning and (products := convolution.products(layer, *output.shape[2:])):
            return 2 * len(output) * products
        values = output.numel() // output.shape[1] * layer.out_channels  # none for channels of zeros
        return 2 * values * math.prod(layer.kernel_size) * layer.in_channels // layer.groups
    if isinstance(layer, nn.Linear):
        return 2 * output.numel() * layer.in_features
    return 0


def flops_per_image(model: nn.Module, image_size: int = 32, *, learning: bool = False) -> int:
    """FLOPs of the forward pass of one image (3,image_size,image_size); a training step costs three.

    learning:  those that are done in training, see `layer_flops`
    """
    return sum(_by_layer(model, image_size, learning).values())


def frozen_savings(model: nn.Module, frozen: Collection[str], image_size: int = 32) -> int:
    """FLOPs an image that a step needn't do where the parameters `frozen` don't learn.

    For a layer whose weight is frozen one forward pass's worth, that of the weight's gradient; another one
    where no layer before it learns, as then nobody asks for its input's gradient.
    """
    saved = 0
    for prefix, net in members(model).items():
        first = True
        for name, flops in _by_layer(net, image_size, learning=True).items():
            frozen_here = f"{prefix}{name}.weight" in frozen
            first = first and frozen_here
            saved += flops * (frozen_here + first)
    return saved


def _by_layer(model: nn.Module, image_size: int, learning: bool) -> dict[str, int]:
    """FLOPs of the forward pass of one image by the name of the layer, in the order in which they run."""
    costs: dict[str, int] = {}
    for name, layer, output in layer_outputs(model, image_size):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            costs[name] = costs.get(name, 0) + layer_flops(layer, output, learning=learning)
    return costs


def layer_outputs(model: nn.Module, image_size: int = 32) -> list[tuple[str, nn.Module, Tensor]]:
    """(name, layer, what it gives for one image, without data), in the order in which the layers run."""
    found: list[tuple[str, nn.Module, Tensor]] = []
    ghost = on_meta(model)

    def note(layer: nn.Module, inputs: object, output: Tensor) -> None:
        found.append((names[layer], layer, output))

    names = {layer: name for name, layer in ghost.named_modules() if not list(layer.children())}
    for layer in names:
        layer.register_forward_hook(note)
    with torch.no_grad():
        ghost(torch.empty(1, 3, image_size, image_size, device="meta"))
    return found
