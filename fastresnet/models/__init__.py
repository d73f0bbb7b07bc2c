"""The networks. `build` makes one from settings; nothing here knows data, devices or training."""

from __future__ import annotations

from typing import Any

from fastresnet.models.flops import flops_per_image
from fastresnet.models.layers import Network
from fastresnet.models.resnet import ResNet, resnet_from
from fastresnet.models.resnet9 import FfcvResNet9, ResNet9
from fastresnet.models.speednet import SpeedNet

__all__ = ["FfcvResNet9", "Network", "ResNet", "ResNet9", "SpeedNet", "build", "flops_per_image"]


def build(settings: Any, num_classes: int, image_size: int = 32) -> Network:
    """The network that `settings` (the section `model`, or any object with its attributes) describes.

    It maps images (N,3,image_size,image_size), floating point, to logits (N,num_classes). Every network here
    has `.reset_parameters()`, which draws its first weights again in place from PyTorch's global generator.
    With `model.pretrained` the weights come from that file where shapes allow, and `.pretrained_report` says
    which.
    Raises ValueError for settings that don't go together.
    """
    if num_classes < 1:
        raise ValueError(f"a classifier needs at least one class, got {num_classes}")
    model = _network(settings, num_classes, image_size)
    if settings.pretrained:
        from fastresnet.models import pretrained  # late: most runs start from nothing

        model.pretrained_report = str(pretrained.load_into(model, settings.pretrained))
    return model


def _network(settings: Any, num_classes: int, image_size: int) -> Network:
    arch = settings.arch
    if arch == "resnet":
        return resnet_from(settings, num_classes, image_size)
    if arch == "speednet":
        return SpeedNet(
            num_classes,
            settings.stage_widths or (64, 256, 256),
            width=settings.width,
            convs_per_group=settings.convs_per_block,
            residual=settings.residual,
            activation=settings.activation,
            whiten=settings.whiten,
            dirac_init=settings.dirac_init,
            norm_momentum=settings.norm_momentum,
            head_scale=settings.head_scale or 1 / 9,
            head_std=settings.head_std,
        )
    if arch == "resnet9":
        return ResNet9(
            num_classes,
            width=settings.width,
            activation=settings.activation,
            head_scale=settings.head_scale or 0.125,
        )
    if arch == "resnet9_ffcv":
        return FfcvResNet9(
            num_classes,
            width=settings.width,
            activation=settings.activation,
            head_scale=settings.head_scale or 0.2,
        )
    raise ValueError(f"model.arch must be one of resnet, speednet, resnet9, resnet9_ffcv, got {arch!r}")
