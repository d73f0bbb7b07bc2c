"""Pieces that the networks share: activations, channel counts, convolutions; several networks as one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
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


class Ensemble(Network):
    """Networks of one kind as one: each learns as if it were alone, and their mean answers.

    A deep ensemble (Lakshminarayanan, Pritzel and Blundell 2017, arXiv 1612.01474) whose members see the same
    batches and differ in their first weights.

    members:  networks from images (N,3,h,w) to logits (N,K)
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        known = [member for member in self.members if isinstance(member, Network)]
        self.smallest = max((member.smallest for member in known), default=1)
        self.counted = len(known) == len(self.members) and all(member.counted for member in known)

    def forward(self, images: Tensor) -> Tensor:
        """images (N,3,h,w) floating point -> logits (M,N,K) in training, (N,K) in evaluation."""
        logits_MNK = torch.stack([member(images) for member in self.members])
        return logits_MNK if self.training else logits_MNK.float().mean(0)

    def reset_parameters(self, seed: int | None = None) -> None:
        """As every network's; member i begins as it would alone with `seed_of_member(seed, i)`."""
        seed = torch.initial_seed() if seed is None else seed
        for number, member in enumerate(self.members):
            assert isinstance(member, Network), "a member of the user's own is made anew instead"
            member.reset_parameters(seed_of_member(seed, number))
        self.counted = True


def seed_of_member(seed: int, number: int) -> int:
    """The seed of member `number` (from 0): those of two ensembles whose seeds differ are never in step."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 2)


def members(model: nn.Module) -> dict[str, nn.Module]:
    """The networks inside an ensemble by what their parameters' names begin with; {"": model} of another."""
    if isinstance(model, Ensemble):
        return {f"members.{number}.": member for number, member in enumerate(model.members)}
    return {"": model}


def head(net: nn.Module) -> tuple[str, nn.Linear] | None:
    """A network's last linear layer by its name, which gives the logits; None where there is none."""
    linears = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    return linears[-1] if linears else None


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
