"""Evaluation: logits of a whole set, with test-time augmentation (TTA), and the figures read off them.

The host waits for the device once, where `score` reads two numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.machine.precision import Precision
from fastresnet.training.capture import Captured, compiled
from fastresnet.training.selection import Batch, layout

TTA_MODES = ("none", "flip", "crops")


@dataclass(frozen=True)
class Score:
    """What logits say of a set.

    accuracy:  share of right answers, 0..1
    loss:      mean cross-entropy in nats, without label smoothing
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class Tta:
    """Which further views of an image are asked, and of which images.

    mode:   none; flip: the mean of an image's and its mirror image's logits; crops: flip for half the weight,
            two one-pixel diagonal shifts and their mirrors for the other half (Jordan 2024, arXiv 2404.00498)
    share:  of each batch, the least confident images get it; the rest keeps its plain logits
    """

    mode: str = "none"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in TTA_MODES:
            raise ValueError(f"eval.tta must be one of {', '.join(TTA_MODES)}, got {self.mode!r}")

    @property
    def views(self) -> float:
        """Forward passes an image, on average."""
        return 1 + {"none": 0, "flip": 1, "crops": 5}[self.mode] * self.share


NO_TTA = Tta()


class Evaluator:
    """Logits of `model`, whose weights may change between sets, in place.

    model:       on its device already; a call leaves it in evaluation mode
    compile:     torch.compile's mode for a forward pass, or off
    cuda_graph:  a batch's forward passes, TTA included, are one captured graph for each kind (CUDA only)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: Precision,
        device: torch.device,
        compile: str = "off",
        cuda_graph: bool = False,
    ) -> None:
        self.model, self.precision, self.device, self.cuda_graph = model, precision, device, cuda_graph
        self._forward = compiled(self._plain, compile)
        self._graphs: dict[tuple[tuple[int, ...], Tta], Captured[Tensor]] = {}

    @torch.no_grad()
    def __call__(self, batches: Iterable[Batch], tta: Tta = NO_TTA) -> Batch:
        """Logits (N,K) fp32 and labels (N,), where the batches lie and in their order, without a wait.

        Raises ValueError where there is no batch.
        """
        self.model.eval()
        both = [(self._logits(images, tta), labels) for images, labels in batches]
        if not both:
            raise ValueError("nothing to evaluate: the set is empty")
        logits, labels = zip(*both)
        return torch.cat(logits), torch.cat(labels)

    def buffers(self, tta: Tta, shape: tuple[int, ...]) -> Batch | None:
        """Where a batch of that shape is wanted, its labels anywhere; None: all of it."""
        graph = self._graphs.get((shape, tta))
        if graph is None:
            return None
        return graph.inputs[0], torch.empty(shape[0], dtype=torch.int64, device=self.device)

    def _logits(self, images: Tensor, tta: Tta) -> Tensor:
        if not self.cuda_graph:
            return self.of_batch(images, tta)
        kind = (tuple(images.shape), tta)
        if kind not in self._graphs:
            self._graphs[kind] = Captured(functools.partial(self.of_batch, tta=tta), (images,))
        return self._graphs[kind].replay(images).clone()

    def of_batch(self, images: Tensor, tta: Tta) -> Tensor:
        """Logits (B,K) fp32 of a batch and of its further views, as `tta` weighs them."""
        plain_NK = self._forward(images)
        if tta.mode == "none" or tta.share == 0:
            return plain_NK
        count = max(1, round(tta.share * len(images)))
        if count == len(images):
            return _tta_logits(self._forward, images, plain_NK, tta.mode)
        top2 = plain_NK.softmax(1).topk(min(2, plain_NK.shape[1]), dim=1).values
        doubtful = (top2[:, 0] - top2[:, -1]).topk(count, largest=False).indices
        some = images.index_select(0, doubtful).contiguous(memory_format=layout(images))
        better = _tta_logits(self._forward, some, plain_NK.index_select(0, doubtful), tta.mode)
        return plain_NK.index_copy(0, doubtful, better)

    def _plain(self, images: Tensor) -> Tensor:
        with self.precision.autocast(self.device):
            logits_NK: Tensor = self.model(images)
        return logits_NK.float()


def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    precision: Precision,
    device: torch.device,
    tta: str = "none",
    tta_share: float = 1.0,
) -> Batch:
    """Logits (N,K) fp32 and labels (N,) int64 on the CPU, in the batches' order; see `Tta`, `Evaluator`."""
    logits_NK, labels_N = Evaluator(model, precision=precision, device=device)(batches, Tta(tta, tta_share))
    return logits_NK.cpu(), labels_N.cpu()


def _tta_logits(forward: Callable[[Tensor], Tensor], images: Tensor, plain_NK: Tensor, mode: str) -> Tensor:
    upright = 0.5 * (plain_NK + forward(_mirror(images)))
    if mode == "flip":
        return upright
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = torch.zeros_like(plain_NK)
    for top, left in ((0, 0), (2, 2)):
        view = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=layout(images))
        shifted += 0.25 * (forward(view) + forward(_mirror(view)))
    return 0.5 * upright + 0.5 * shifted


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1).contiguous(memory_format=layout(images))


def score(logits_NK: Tensor, labels_N: Tensor) -> Score:
    """Accuracy and mean cross-entropy of logits (N,K) fp32 against labels (N,) int64, on one device."""
    loss, hits = F.cross_entropy(logits_NK, labels_N), (logits_NK.argmax(1) == labels_N).sum()
    mean, count = torch.stack([loss, hits.to(loss.dtype)]).tolist()
    return Score(count / len(labels_N), mean)
