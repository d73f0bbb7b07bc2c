"""ResNet: the ImageNet family (18, 34, 50, 101, 152) and the CIFAR family (20, 32, 44, 56, 110), on any stem.

He et al. 2015 (arXiv 1512.03385) and, for pre-activation, 2016 (arXiv 1603.05027). Parameter names are
torchvision's, so that weights move between the two.
"""

from __future__ import annotations

from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.models.layers import GlobalAvgPool, Network, conv3x3, scaled
from fastresnet.models.layers import activation as make_activation
from fastresnet.models.weights import undrawn
from fastresnet.settings.sections import Model

IMAGENET_FAMILY = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
CIFAR_FAMILY = (20, 32, 44, 56, 110)
LARGEST_CIFAR_STEM_PX = 64  # model.stem=auto: larger images get the stride-4 stem
BLOCKS = ("basic", "bottleneck", "preactivation", "preactivation_bottleneck")


class PaddingShortcut(nn.Module):
    """Option A of He et al. 2015: every stride-th pixel; zeros for new channels, half on each side."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # picks pixels like x[:, :, ::s, ::s], and keeps channels-last in backward
            x = F.avg_pool2d(x, 1, self.stride)
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def _shortcut(inputs: int, outputs: int, stride: int, kind: str, norm: bool) -> nn.Module | None:
    if inputs == outputs and stride == 1:
        return None
    if kind == "padding" and outputs >= inputs:
        return PaddingShortcut(inputs, outputs, stride)
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if norm else nn.Sequential(conv)


class Block(nn.Module):
    """A residual block: convolutions conv1, conv2, …, their norms bn1, bn2, …, the shortcut `downsample`.

    kernels:        size of each convolution; `stride` belongs to the first one that isn't 1x1
    channels:       outputs of each convolution
    preactivation:  norm and activation come before each convolution, and nothing after the sum
    """

    def __init__(
        self,
        inputs: int,
        channels: Sequence[int],
        kernels: Sequence[int],
        stride: int,
        act: str,
        shortcut: str,
        preactivation: bool,
    ) -> None:
        super().__init__()
        self.depth, self.preactivation = len(kernels), preactivation
        strided = next((i for i, kernel in enumerate(kernels) if kernel > 1), 0)
        sizes = [inputs, *channels]
        for i, kernel in enumerate(kernels):
            conv = nn.Conv2d(
                sizes[i], sizes[i + 1], kernel, stride if i == strided else 1, kernel // 2, bias=False
            )
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(sizes[i] if preactivation else sizes[i + 1]))
        self.act = make_activation(act)
        self.downsample = _shortcut(inputs, sizes[-1], stride, shortcut, norm=not preactivation)

    def forward(self, x: Tensor) -> Tensor:
        return self._preactivated(x) if self.preactivation else self._postactivated(x)

    def _postactivated(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.depth:
                out = self.act(out)
        out += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.act(out)
        return activated

    def _preactivated(self, x: Tensor) -> Tensor:
        out, shortcut = x, x
        for i in range(1, self.depth + 1):
            out = self.act(getattr(self, f"bn{i}")(out))
            if i == 1 and self.downsample is not None:
                shortcut = self.downsample(out)
            out = getattr(self, f"conv{i}")(out)
        return out + shortcut

    def zero_last(self) -> None:
        """Make the residual branch start at zero: its last norm, or convolution where norms come first."""
        name = f"conv{self.depth}" if self.preactivation else f"bn{self.depth}"
        nn.init.zeros_(getattr(self, name).weight)


class ResNet(Network):
    """conv1, bn1, layer1 … layerN, global average pool, fc.

    stage_blocks:         blocks in each stage
    stage_widths:         their channels (a bottleneck's output has four times as many)
    stem:                 cifar (3x3) or imagenet (7x7 stride 2, max-pool 3 stride 2)
    block:                one of BLOCKS
    shortcut:             projection or padding, where a block changes the shape
    convs_per_block:      3x3 convolutions of a block that is no bottleneck
    zero_init_last_norm:  residual branches start at zero (Goyal et al. 2017, arXiv 1706.02677)
    """

    he_normal = True

    def __init__(
        self,
        num_classes: int,
        stage_blocks: Sequence[int],
        stage_widths: Sequence[int],
        *,
        stem: str = "cifar",
        block: str = "basic",
        shortcut: str = "projection",
        convs_per_block: int = 2,
        zero_init_last_norm: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.preactivation = block.startswith("preactivation")
        bottleneck = block.endswith("bottleneck")
        inputs = stage_widths[0]
        self.conv1 = conv3x3(3, inputs) if stem == "cifar" else nn.Conv2d(3, inputs, 7, 2, 3, bias=False)
        self.bn1 = nn.Identity() if self.preactivation and stem == "cifar" else nn.BatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.act = make_activation(activation)
        self.stages = len(stage_blocks)
        for stage, (count, width) in enumerate(zip(stage_blocks, stage_widths)):
            channels = [width, width, 4 * width] if bottleneck else [width] * convs_per_block
            kernels = [1, 3, 1] if bottleneck else [3] * convs_per_block
            blocks = []
            for i in range(count):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(
                    Block(inputs, channels, kernels, stride, activation, shortcut, self.preactivation)
                )
                inputs = channels[-1]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(inputs) if self.preactivation else nn.Identity()
        self.avgpool = GlobalAvgPool()
        self.fc = nn.Linear(inputs, num_classes)
        self.zero_init_last_norm = zero_init_last_norm
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """images (N,3,h,w) floating point -> logits (N,K)."""
        x = self.conv1(images)
        if not isinstance(self.bn1, nn.Identity):
            x = self.act(self.bn1(x))
        x = self.maxpool(x)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        if self.preactivation:
            x = self.act(self.norm(x))
        logits_NK: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits_NK

    def reset_parameters(self, seed: int | None = None) -> None:
        super().reset_parameters(seed)
        if self.zero_init_last_norm:
            for module in self.modules():
                if isinstance(module, Block):
                    module.zero_last()


@undrawn()
def from_settings(settings: Model, num_classes: int, image_size: int) -> ResNet:
    """The ResNet that the section `model` describes. Raises ValueError where it contradicts itself."""
    block = settings.block
    if block == "auto":
        block = "bottleneck" if settings.depth in (50, 101, 152) and not settings.stage_blocks else "basic"
    if block not in BLOCKS:
        raise ValueError(f"model.block must be one of auto, {', '.join(BLOCKS)}, got {block!r}")
    stem = settings.stem
    if stem == "auto":
        stem = "cifar" if image_size <= LARGEST_CIFAR_STEM_PX else "imagenet"
    blocks = list(settings.stage_blocks or _blocks_by_depth(settings.depth, block))
    cifar_family = settings.depth in CIFAR_FAMILY and not settings.stage_blocks
    base = 16 if cifar_family else 64
    widths = list(settings.stage_widths or (base * 2**stage for stage in range(len(blocks))))
    if len(widths) != len(blocks):
        raise ValueError(
            f"model.stage_widths names {len(widths)} stages and model.stage_blocks "
            f"{len(blocks)} ({blocks}): give both, with one number a stage"
        )
    shortcut = settings.shortcut
    if shortcut == "auto":
        shortcut = "padding" if cifar_family else "projection"
    return ResNet(
        num_classes,
        blocks,
        [scaled(width, settings.width) for width in widths],
        stem=stem,
        block=block,
        shortcut=shortcut,
        convs_per_block=settings.convs_per_block,
        zero_init_last_norm=settings.zero_init_last_norm,
        activation=settings.activation,
    )


def _blocks_by_depth(depth: int, block: str) -> Sequence[int]:
    if depth in IMAGENET_FAMILY:
        return IMAGENET_FAMILY[depth]
    layers_a_block = 9 if block.endswith("bottleneck") else 6
    if depth in CIFAR_FAMILY and (depth - 2) % layers_a_block == 0:
        return ((depth - 2) // layers_a_block,) * 3
    known = ", ".join(map(str, (*IMAGENET_FAMILY, *CIFAR_FAMILY)))
    raise ValueError(
        f"model.depth must be one of {known} (of the CIFAR family 20, 56, 110 with bottlenecks), "
        f"got {depth} (any other shape: give model.stage_blocks)"
    )
