"""SpeedNet: the small network of the CIFAR-10 speed records: whitening, three groups, a scaled head.

The shape is that of Jordan 2024 ("94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498), after
Page's and tysam's. It has no options that the records don't use.
"""

from __future__ import annotations

from typing import Sequence, cast

import torch
from torch import Tensor, nn

from fastresnet.cpu import norms
from fastresnet.models.layers import HEAD_SCALES, GlobalMaxPool, Network, PaddedConv2d, conv3x3, scaled
from fastresnet.models.layers import activation as make_activation
from fastresnet.models.weights import undrawn
from fastresnet.settings.sections import Model

WHITEN_KERNEL = 2
WHITEN_CHANNELS = 2 * 3 * WHITEN_KERNEL**2  # each eigenvector of a patch's 12 values, and its negative


class FrozenScaleNorm(nn.BatchNorm2d):
    """Batch norm whose scale stays 1: only its bias learns. cuDNN's kernels ask for the weight still."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__(channels, eps=1e-12, momentum=momentum)
        self.weight.requires_grad_(False)


class Group(nn.Module):
    """conv, max-pool 2, norm, activation, then (conv, norm, activation) for each further convolution.

    With `residual` the pooled part is added before the last activation. (N,C,h,w) -> (N,D,h//2,w//2), where
    C is `inputs` and `zeros` more channels that hold nothing. With `own_kernels` pool, norm and activation
    are one operation where it fits.
    """

    own_kernels = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        convs: int,
        residual: bool,
        act: str,
        norm_momentum: float,
        zeros: int = 0,
    ) -> None:
        super().__init__()
        first = PaddedConv2d(inputs, outputs, 3, padding=1, more_inputs=zeros)
        self.convs = nn.ModuleList([first, *(conv3x3(outputs, outputs) for _ in range(1, convs))])
        self.norms = nn.ModuleList(FrozenScaleNorm(outputs, norm_momentum) for _ in range(convs))
        self.pool, self.act, self.residual = nn.MaxPool2d(2), make_activation(act), residual and convs > 1

    def forward(self, x: Tensor) -> Tensor:
        x = first = self._norm_act(self.convs[0](x), 0, pooled=True)
        last = len(self.convs) - 1
        for i in range(1, len(self.convs)):
            x = self._norm_act(self.convs[i](x), i, first if self.residual and i == last else None)
        return x

    def _norm_act(self, x: Tensor, i: int, skip: Tensor | None = None, *, pooled: bool = False) -> Tensor:
        norm = cast(FrozenScaleNorm, self.norms[i])
        if self.own_kernels and norms.fits(x, norm, self.act, skip):
            return norms.norm_act(x, norm, self.act, pooled=pooled, skip=skip)
        y: Tensor = norm(self.pool(x) if pooled else x)
        return cast(Tensor, self.act(y if skip is None else y + skip))


class SpeedNet(Network):
    """Whitening 2x2 to 24 channels, activation, groups, global max-pool, linear without bias, times a scale.

    widths:             channels of each group, each times `width` (see `layers.scaled`)
    convs_per_group:    3x3 convolutions in each group
    residual:           add each group's first activation before its last one
    activation:         in the groups, and after the whitening too where `whiten_activation` is None
    whiten_channels:    that the whitening gives; those beyond 24 are zeros, which change nothing but speed
    whiten:             the first convolution's weights are set by `init_whitening` and then frozen; its bias
                        learns
    dirac_init:         convolutions start as the identity on their first input channels
    norm_momentum:      weight of the new batch in the running statistics (PyTorch's convention)
    head_scale:         the logits are multiplied by it
    head_std:           standard deviation of the head's first weights; None leaves PyTorch's own

    Images need 9 px or more for three groups (24, 28 and 32 px are what the recipes use).
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (64, 256, 256),
        *,
        width: float = 1.0,
        convs_per_group: int = 2,
        residual: bool = False,
        activation: str = "gelu",
        whiten_activation: str | None = None,
        whiten_channels: int = WHITEN_CHANNELS,
        whiten: bool = True,
        dirac_init: bool = True,
        norm_momentum: float = 0.4,
        head_scale: float = 1 / 9,
        head_std: float | None = None,
    ) -> None:
        super().__init__()
        channels = [WHITEN_CHANNELS, *(scaled(c, width) for c in widths)]
        zeros = whiten_channels - WHITEN_CHANNELS
        self.smallest = 1 + 2 ** len(widths)  # the whitening takes one, each group halves
        self.whiten = PaddedConv2d(3, WHITEN_CHANNELS, WHITEN_KERNEL, bias=True, more_outputs=zeros)
        self.whiten.weight.requires_grad_(not whiten)
        self.act = make_activation(whiten_activation or activation)
        self.groups = nn.ModuleList(
            Group(i, o, convs_per_group, residual, activation, norm_momentum, 0 if number else zeros)
            for number, (i, o) in enumerate(zip(channels, channels[1:]))
        )
        self.pool = GlobalMaxPool()
        self.head = nn.Linear(channels[-1], num_classes, bias=False)
        self.dirac_init, self.head_scale, self.head_std = dirac_init, head_scale, head_std
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """images (N,3,h,w) floating point -> logits (N,K)."""
        x = self.act(self.whiten(images))
        for group in self.groups:
            x = group(x)
        logits_NK: Tensor = self.head(self.pool(x).flatten(1)) * self.head_scale
        return logits_NK

    @torch.no_grad()
    def reset_parameters(self, seed: int | None = None) -> None:
        """As every network's; the whitening must be set again then."""
        super().reset_parameters(seed)
        if self.dirac_init:
            for module in self.groups.modules():
                if isinstance(module, nn.Conv2d):
                    first = module.weight[: module.in_channels].zero_()
                    first[:, :, 1, 1].diagonal().fill_(1)  # nn.init.dirac_ writes one channel at a time
        if self.head_std is not None:
            # wide: in float32 a sum's last bits would depend on the device's order of adding
            spread = self.head.weight.to(_widest(self.head.weight.device)).std()
            self.head.weight.mul_((self.head_std / spread).float())

    @property
    def whitened(self) -> bool:
        """Whether the first convolution holds filters and their negatives, as `init_whitening` makes them."""
        filters, negatives = self.whiten.weight.detach().chunk(2)
        return torch.equal(filters, -negatives)

    @torch.no_grad()
    def init_whitening(self, images: Tensor, eps: float = 5e-4) -> None:
        """Make the first convolution whiten 2x2 patches of `images` (N,3,h,w), normalised as in training.

        They come out with unit covariance along their principal axes, and the negatives of these (Page 2019;
        eps as Jordan 2024). A few thousand images suffice. On a GPU the host waits once, for a 12x12 matrix.
        A net made without whitening keeps its weights. Raises ValueError for tensors that are no such images.
        """
        if self.whiten.weight.requires_grad:
            return
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"whitening needs floating-point images (N,3,h,w), got {tuple(images.shape)} {images.dtype}"
            )
        values, vectors = torch.linalg.eigh(_patch_covariance(images).cpu().double())
        # rows, the largest eigenvalue first
        filters = (vectors / (values.clamp_min(0) + eps).sqrt()).T.flip(0)
        filters = torch.cat([filters, -filters]).view(self.whiten.weight.shape)
        self.whiten.weight.copy_(filters.to(self.whiten.weight))


def _patch_covariance(images: Tensor) -> Tensor:
    """Mean outer product (12,12) float64 of all 2x2 patches of images (N,3,h,w): channel, row, column."""
    total = torch.zeros(12, 12, dtype=_widest(images.device), device=images.device)
    height, width = images.shape[2] - 1, images.shape[3] - 1
    for some in images.split(500):
        some = some.float()
        shifted = [some[:, :, y : y + height, x : x + width] for y in range(2) for x in range(2)]
        patches = torch.stack(shifted, dim=2).flatten(1, 2).transpose(0, 1).reshape(12, -1)
        total += (patches @ patches.T).to(total.dtype)
    return total / (len(images) * height * width)


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # an Apple GPU has no float64


@undrawn()
def from_settings(settings: Model, num_classes: int, image_size: int) -> SpeedNet:
    """The small net that the section `model` describes."""
    return SpeedNet(
        num_classes,
        settings.stage_widths or (64, 256, 256),
        width=settings.width,
        convs_per_group=settings.convs_per_block,
        residual=settings.residual,
        activation=settings.activation,
        whiten_activation=settings.whiten_activation,
        whiten_channels=settings.whiten_channels,
        whiten=settings.whiten,
        dirac_init=settings.dirac_init,
        norm_momentum=settings.norm_momentum,
        head_scale=settings.head_scale or HEAD_SCALES["speednet"],
        head_std=settings.head_std,
    )
