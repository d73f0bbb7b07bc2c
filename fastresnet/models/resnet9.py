"""The ResNet-9s of the speed records' early days: DAWNBench's, and the one of FFCV's CIFAR example.

No options beyond width, activation and the head's scale.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastresnet.models.layers import HEAD_SCALES, ConvNorm, GlobalMaxPool, Network, Residual, scaled
from fastresnet.models.weights import undrawn
from fastresnet.settings.sections import Model


class _ScaledHead(Network):
    """body (N,3,h,w) -> (N,C,h',w'), global max-pool, linear without bias, times `head_scale`."""

    def __init__(self, body: nn.Sequential, channels: int, num_classes: int, head_scale: float) -> None:
        super().__init__()
        self.body, self.head_scale = body, head_scale
        self.pool = GlobalMaxPool()
        self.head = nn.Linear(channels, num_classes, bias=False)
        self.reset_parameters()

    def forward(self, images: Tensor) -> Tensor:
        """images (N,3,h,w) floating point -> logits (N,K)."""
        logits_NK: Tensor = self.head(self.pool(self.body(images)).flatten(1)) * self.head_scale
        return logits_NK


class ResNet9(_ScaledHead):
    """DAWNBench's network of 2018 (D. Page, "How to train your ResNet"): 6,573,120 parameters."""

    def __init__(
        self,
        num_classes: int = 10,
        *,
        width: float = 1.0,
        activation: str = "relu",
        head_scale: float = 0.125,
    ) -> None:
        a, b, c, d = (scaled(channels, width) for channels in (64, 128, 256, 512))
        super().__init__(
            nn.Sequential(
                ConvNorm(3, a, activation),
                ConvNorm(a, b, activation),
                nn.MaxPool2d(2),
                _pair(b, activation),
                ConvNorm(b, c, activation),
                nn.MaxPool2d(2),
                ConvNorm(c, d, activation),
                nn.MaxPool2d(2),
                _pair(d, activation),
            ),
            d,
            num_classes,
            head_scale,
        )


class FfcvResNet9(_ScaledHead):
    """The network of FFCV's CIFAR example: its second convolution is 5x5 stride 2, its last unpadded."""

    smallest = 11  # halved twice, then a 3x3 without padding

    def __init__(
        self, num_classes: int = 10, *, width: float = 1.0, activation: str = "relu", head_scale: float = 0.2
    ) -> None:
        a, b, c = (scaled(channels, width) for channels in (64, 128, 256))
        super().__init__(
            nn.Sequential(
                ConvNorm(3, a, activation),
                ConvNorm(a, b, activation, kernel=5, stride=2, padding=2),
                _pair(b, activation),
                ConvNorm(b, c, activation),
                nn.MaxPool2d(2),
                _pair(c, activation),
                ConvNorm(c, b, activation, padding=0),
            ),
            b,
            num_classes,
            head_scale,
        )


def _pair(channels: int, act: str) -> Residual:
    return Residual(ConvNorm(channels, channels, act), ConvNorm(channels, channels, act))


@undrawn()
def from_settings(settings: Model, num_classes: int, image_size: int) -> ResNet9:
    """DAWNBench's network at the width, activation and scale that the section `model` says."""
    scale = settings.head_scale or HEAD_SCALES["resnet9"]
    return ResNet9(num_classes, width=settings.width, activation=settings.activation, head_scale=scale)


@undrawn()
def ffcv_from_settings(settings: Model, num_classes: int, image_size: int) -> FfcvResNet9:
    """FFCV's network at the width, activation and scale that the section `model` says."""
    scale = settings.head_scale or HEAD_SCALES["resnet9_ffcv"]
    return FfcvResNet9(num_classes, width=settings.width, activation=settings.activation, head_scale=scale)
