"""The networks: what they are, what they cost, what they see. `build` makes one from settings.

Refuses to know data, devices and training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from fastresnet.base import parts
from fastresnet.models.flops import flops_per_image
from fastresnet.models.layers import Ensemble, Network, members, seed_of_member
from fastresnet.models.resnet import ResNet
from fastresnet.models.resnet9 import FfcvResNet9, ResNet9
from fastresnet.models.speednet import SpeedNet
from fastresnet.settings.sections import Model

__all__ = [
    "Ensemble", "FfcvResNet9", "Network", "ResNet", "ResNet9", "SpeedNet",
    "build", "flops_per_image", "members",
]  # fmt: skip

Maker = Callable[[Model, int, int], nn.Module]  # (settings, classes, image size in px) -> a network


def build(
    settings: Model,
    num_classes: int,
    image_size: int = 32,
    class_names: Sequence[str] = (),
    seed: int | None = None,
) -> nn.Module:
    """The network that `settings` describes.

    It maps images (N,3,image_size,image_size), floating point, to logits (N,num_classes). Every network here
    draws its first weights by `.reset_parameters(seed)`, which may be called again. Without `seed` here, the
    seed is what PyTorch's generator gives next. With `model.members` above 1 it is an `Ensemble` of such.
    With `model.pretrained` weights come from there where shapes allow, but the last layer's not from a run on
    other classes than `class_names`, where given; `.pretrained_report` says which.
    Raises ValueError for settings that don't go together, images too small for the network, and where the
    user's own code fails.
    """
    if num_classes < 1:
        raise ValueError(f"a classifier needs at least one class, got {num_classes}")
    if seed is None:
        seed = int(torch.randint(2**62, (), device="cpu"))
    if settings.members == 1:
        model = _one(settings, num_classes, image_size, seed)
    else:
        seeds = [seed_of_member(seed, number) for number in range(settings.members)]
        model = Ensemble(_one(settings, num_classes, image_size, one) for one in seeds)
    if isinstance(model, Network) and image_size < model.smallest:
        least = f"model.arch={settings.arch} takes images of {model.smallest} px or more"
        raise ValueError(f"{least}, these have {image_size}")
    if settings.pretrained:
        from fastresnet.models import pretrained  # late: most runs start from nothing

        report = str(pretrained.load_into(model, settings.pretrained, class_names))
        if isinstance(model, Network):
            model.pretrained_report, model.counted = report, False
    return model


def _one(settings: Model, num_classes: int, image_size: int, seed: int) -> nn.Module:
    """A network with the first weights of `seed`; the caller's random state stays as it was."""
    make = cast(Maker, parts.find(parts.MODELS, "model.arch", settings.arch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" not in settings.arch:
            return make(settings, num_classes, image_size)
        how = f"model.arch={settings.arch} for {num_classes} classes and {image_size} px"
        model: nn.Module = parts.called(how, make, settings, num_classes, image_size)
        return model
