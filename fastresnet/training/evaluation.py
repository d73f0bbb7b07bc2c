"""Evaluation: logits of a whole set, with test-time augmentation (TTA), and the figures read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.machine.precision import Precision

TTA_MODES = ("none", "flip", "crops")


@dataclass(frozen=True)
class Score:
    """What logits say of a set.

    accuracy:  share of right answers, 0..1
    loss:      mean cross-entropy in nats, without label smoothing
    count:     images
    """

    accuracy: float
    loss: float
    count: int


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: Precision,
    device: torch.device,
    tta: str = "none",
    tta_share: float = 1.0,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (N,K) fp32 and labels (N,) int64 on the CPU, in the batches' order.

    Leaves the model in evaluation mode.

    tta:        none; flip: the mean of an image's and its mirror image's logits; crops: flip for half the
                weight, two one-pixel diagonal shifts and their mirrors for the other half (Jordan 2024,
                arXiv 2404.00498)
    tta_share:  share of each batch, the least confident, that gets TTA; the rest keeps its plain logits
    forward:    a compiled stand-in for `model`
    """
    if tta not in TTA_MODES:
        raise ValueError(f"eval.tta must be one of {', '.join(TTA_MODES)}, got {tta!r}")
    model.eval()
    forward = forward or model
    all_logits, all_labels = [], []
    for images, labels in batches:
        with precision.autocast(device):
            logits_NK = forward(images).float()
            if tta != "none" and tta_share > 0:
                logits_NK = _with_tta(forward, images, logits_NK, tta, tta_share)
        all_logits.append(logits_NK)
        all_labels.append(labels)
    if not all_logits:
        raise ValueError("nothing to evaluate: the set is empty")
    return torch.cat(all_logits).cpu(), torch.cat(all_labels).cpu()


def _with_tta(
    forward: Callable[[Tensor], Tensor], images: Tensor, plain_NK: Tensor, tta: str, share: float
) -> Tensor:
    count = max(1, round(share * len(images)))
    if count == len(images):
        return _tta_logits(forward, images, plain_NK, tta)
    top2 = plain_NK.softmax(1).topk(2, dim=1).values
    doubtful = (top2[:, 0] - top2[:, 1]).topk(count, largest=False).indices
    some = images[doubtful].contiguous(memory_format=_format(images))
    logits_NK = plain_NK.clone()
    logits_NK[doubtful] = _tta_logits(forward, some, plain_NK[doubtful], tta)
    return logits_NK


def _tta_logits(forward: Callable[[Tensor], Tensor], images: Tensor, plain_NK: Tensor, tta: str) -> Tensor:
    upright = 0.5 * (plain_NK + forward(_mirror(images)).float())
    if tta == "flip":
        return upright
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = torch.zeros_like(plain_NK)
    for top, left in ((0, 0), (2, 2)):
        view = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=_format(images))
        shifted += 0.25 * (forward(view).float() + forward(_mirror(view)).float())
    return 0.5 * upright + 0.5 * shifted


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1).contiguous(memory_format=_format(images))


def _format(images: Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def score(logits_NK: Tensor, labels_N: Tensor) -> Score:
    """Accuracy and mean cross-entropy of logits (N,K) fp32 against labels (N,) int64."""
    loss = F.cross_entropy(logits_NK, labels_N).item()
    return Score((logits_NK.argmax(1) == labels_N).double().mean().item(), loss, len(labels_N))
