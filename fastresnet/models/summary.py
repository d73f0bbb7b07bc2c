"""What a network consists of: its layers with shape, parameters, FLOPs and receptive field, and its memory.

Computed on a copy without data, so that it costs nothing and leaves the network as it is. torchinfo has no
receptive fields, no blocks and no memory of the backward pass. Draws nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastresnet.base import words
from fastresnet.models.flops import layer_flops, on_meta
from fastresnet.models.layers import GlobalAvgPool, GlobalMaxPool
from fastresnet.models.receptive_field import Field, Tracker
from fastresnet.models.resnet import PaddingShortcut

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, GlobalAvgPool, GlobalMaxPool)
SHOWN = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, PaddingShortcut, *POOLS)


@dataclass(frozen=True)
class Layer:
    """One layer.

    name:        where it stands in the network ("layer1.0.conv1")
    kind:        what it is, in words ("conv 3x3 /2")
    output:      its output for one image, without the batch: (C,h,w) or (K,)
    parameters:  their number
    trainable:   those of them that learn
    flops:       of the forward pass of one image
    field:       receptive field of its output
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: int
    flops: int
    field: Field


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step in fp32.

    activations:  what the backward pass keeps; bf16 and fp16 halve them
    momentum:     one value a weight, as SGD and Muon keep; Adam keeps two
    """

    weights: int
    gradients: int
    momentum: int
    activations: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.weights + self.gradients + self.momentum + self.activations


@dataclass(frozen=True)
class Block:
    """Layers that belong together; `residual` says whether their input is added to what they compute."""

    name: str
    layers: tuple[Layer, ...]
    residual: bool


@dataclass(frozen=True)
class Summary:
    """A network at one image size; `memory` is for `batch_size` images a step."""

    title: str
    image_size: int
    batch_size: int
    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    memory: Memory

    @property
    def parameters(self) -> int:
        """Numbers in all weights, frozen ones too."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        """Numbers that learn."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def flops(self) -> int:
        """Forward FLOPs of one image, 2 per multiply-add."""
        return sum(layer.flops for layer in self.layers)


def summarize(model: nn.Module, image_size: int = 32, batch_size: int = 1) -> Summary:
    """Look at `model` as it handles images (3,image_size,image_size)."""
    ghost = on_meta(model)
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    layers: list[Layer] = []
    entered: list[str] = []  # names of the modules that are running, the innermost last
    residual: set[str] = set()
    tracker = Tracker(image, on_sum=lambda: residual.add(_block_of(entered[-1])))

    def enter(name: str) -> Any:
        return lambda module, inputs: entered.append(name)

    def leave(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            entered.pop()
            if isinstance(module, SHOWN):
                layers.append(_layer(name, module, output, tracker.field_of(output)))

        return hook

    for name, module in ghost.named_modules():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(leave(name))
    with torch.no_grad(), tracker:
        ghost(image)
    memory = memory_of_step(model, image_size, batch_size)
    return Summary(
        type(model).__name__, image_size, batch_size, tuple(layers), _blocks(layers, residual), memory
    )


def _layer(name: str, module: nn.Module, output: Tensor, field: Field) -> Layer:
    parameters = list(module.parameters(recurse=False))
    return Layer(
        name,
        _kind(module),
        tuple(output.shape[1:]),
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        layer_flops(module, output),
        field,
    )


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        return f"conv {module.kernel_size[0]}x{module.kernel_size[1]}{stride}"
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return f"{'max' if isinstance(module, nn.MaxPool2d) else 'mean'}-pool {module.kernel_size}"
    if isinstance(module, (GlobalAvgPool, nn.AdaptiveAvgPool2d)):
        return "global mean"
    if isinstance(module, (GlobalMaxPool, nn.AdaptiveMaxPool2d)):
        return "global max"
    if isinstance(module, PaddingShortcut):
        return f"subsample {module.stride}, pad channels"
    return "batch norm" if isinstance(module, nn.BatchNorm2d) else "linear"


def memory_of_step(model: nn.Module, image_size: int, batch_size: int) -> Memory:
    """What a training step on so many images takes in fp32, counted on a copy of the model without data."""
    ghost = on_meta(model).train()
    own = {value.untyped_storage()._cdata for value in (*ghost.parameters(), *ghost.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ghost(torch.empty(batch_size, 3, image_size, image_size, device="meta"))
    trainable = 4 * sum(p.numel() for p in ghost.parameters() if p.requires_grad)
    weights = sum(value.numel() * value.element_size() for value in (*ghost.parameters(), *ghost.buffers()))
    return Memory(weights, trainable, trainable, sum(storage.nbytes() for storage in kept.values()))


def _block_of(name: str) -> str:
    """ "layer1.0.conv2" -> "layer1.0"; a name without a number stays as it is."""
    found = re.match(r".*?\.\d+(?=\.|$)", name)
    return found.group() if found else name


def _blocks(layers: list[Layer], residual: set[str]) -> tuple[Block, ...]:
    """Runs of layers with one block's name; before the first numbered block the stem, after it the head."""
    runs: dict[str, list[Layer]] = {}
    for layer in layers:
        name = _block_of(layer.name)
        numbered = name[-1].isdigit() and "." in name
        if not numbered:
            name = "head" if any("." in run for run in runs) else "stem"
        runs.setdefault(name, []).append(layer)
    return tuple(Block(name, tuple(members), name in residual) for name, members in runs.items())


def format_table(summary: Summary, width: int | None = None) -> str:
    """The layers as aligned text, then the totals and the memory.

    width:  of a terminal: where it has no room for them, centres are left out
    """
    head = ("layer", "kind", "output", "parameters", "MFLOP", "field", "stride", "centre")
    rows = [head] + [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.flops / 1e6:,.2f}" if layer.flops else "",
            f"{layer.field.size}",
            f"{layer.field.stride}",
            f"{layer.field.centre:g}",
        )
        for layer in summary.layers
    ]
    lines = words.columns(rows, range(3, len(head)))
    if width and max(map(len, lines)) > width:
        lines = words.columns([row[:-1] for row in rows], range(3, len(head)))
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, "", *_totals(summary)])


def _totals(summary: Summary) -> list[str]:
    memory, frozen = summary.memory, summary.parameters - summary.trainable
    mib = [
        f"{value / 2**20:,.1f}"
        for value in (memory.weights, memory.gradients, memory.momentum, memory.activations)
    ]
    return [
        f"{summary.title} at {summary.image_size}x{summary.image_size} px: {summary.parameters:,} parameters"
        + (f" ({frozen:,} frozen)" if frozen else "")
        + f", {summary.flops / 1e9:.3f} GFLOP a forward pass (2 per multiply-add)",
        f"memory of a step with {summary.batch_size} images in fp32: {memory.total / 2**20:,.1f} MiB "
        f"(weights {mib[0]}, gradients {mib[1]}, momentum {mib[2]}, "
        f"activations kept for the backward pass {mib[3]})",
        "field, stride and centre (of the first position) in pixels of the image",
    ]
