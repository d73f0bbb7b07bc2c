"""Grad-CAM: which places spoke for a class (Selvaraju et al. 2017, arXiv 1610.02391). Draws nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.models import Ensemble


def last_feature_map(model: nn.Module, image_size: int) -> nn.Module:
    """The last module whose output still has places: (N, C, h, w) with h, w > 1.

    Raises ValueError for a network without one.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(
            "this network has no feature map with places left, so there is nothing for Grad-CAM to show"
        )
    return found[-1]


def heatmaps(model: nn.Module, images: Tensor, classes_N: Tensor, layer: nn.Module | None = None) -> Tensor:
    """Heat, fp32 (N,H,W) in 0..1, of `classes_N` for normalised images (N,3,H,W); zero where there is none.

    The channels of `layer` are weighted by the mean of their gradients, added, and what speaks against the
    class is cut off. Weights and their gradients stay as they were. Of an ensemble the members' mean.
    """
    if isinstance(model, Ensemble):
        each = [heatmaps(member, images, classes_N) for member in model.members]
        return _up_to_one(torch.stack(each).mean(0))
    layer = layer or last_feature_map(model, images.shape[-1])
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        with torch.enable_grad():
            for parameter in frozen:
                parameter.requires_grad_(False)
            logits_NK = model(images.detach().clone().requires_grad_(True))
            chosen = logits_NK.gather(1, classes_N[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, kept[0])
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    weight_NC = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weight_NC * kept[0].detach()).sum(dim=1, keepdim=True))
    heat = F.interpolate(heat.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return _up_to_one(heat)


def _up_to_one(heat_NHW: Tensor) -> Tensor:
    return heat_NHW / heat_NHW.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
