"""The training step as the textbook has it: forward, backward, clip, update. Knows no schedule, no loop.

The host never waits for the device in it: losses and hits add up on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fastresnet.machine.precision import Precision
from fastresnet.models.layers import members
from fastresnet.optim.freezing import Freeze, Frozen
from fastresnet.optim.optimizers import Optimizers
from fastresnet.training.capture import Snapshot, compiled
from fastresnet.training.selection import Selection

Figures = tuple[Tensor, ...]  # summed loss, hits and, where anyone asks, the loss of each image (B,)


class Kind(NamedTuple):
    """In what steps differ beside the size of their batch; where steps are captured, each has its graph.

    frozen:        of each Freeze of the run, whether it holds
    proxy_learns:  whether the net that selects does
    """

    frozen: Frozen
    proxy_learns: bool


@dataclass(frozen=True)
class StepOptions:
    """What a step does beside forward and backward.

    label_smoothing:  share of the target spread over all classes (Szegedy et al. 2016)
    loss_reduction:   "mean", or "sum" (then learning rates are per image)
    clip_norm:        largest allowed 2-norm of all gradients together; 0 leaves them alone
    accumulate:       micro-batches that a batch is cut into; the optimizer still steps once a batch
    compile:          off, or torch.compile's mode
    cuda_graph:       capture the whole step, optimizer included, and replay it (CUDA only)
    processes:        that share each batch; DDP takes the mean of their gradients
    loss:             instead of cross-entropy: (logits (B,K) fp32, labels (B,)) -> the mean or sum, as above
    """

    label_smoothing: float = 0.0
    loss_reduction: str = "mean"
    clip_norm: float = 0.0
    accumulate: int = 1
    compile: str = "off"
    cuda_graph: bool = False
    processes: int = 1
    loss: Callable[[Tensor, Tensor], Tensor] | None = None


class Step:
    """One optimizer step a call; adds (summed loss, hits, images) to `totals`, (3,) on the device.

    model:      on its device already; may be DDP-wrapped. An ensemble's members each learn as if alone; what
                is told of loss and hits is their mean
    optimizer:  its rates are set for the step already
    select:     chooses the images of each batch that are trained on, or is told what loss each had
    freeze:     parameters that learn in some steps only; each call says which of these hold
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        options: StepOptions,
        *,
        device: torch.device,
        precision: Precision,
        select: Selection,
        freeze: Sequence[Freeze],
    ) -> None:
        self.model, self.optimizer, self.options = model, optimizer, options
        self.device, self.precision, self.select, self.freeze = device, precision, select, tuple(freeze)
        self.bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        # one after the other needs the memory of one; compiled, or where DDP waits for all, they go together
        apart = options.processes == 1 and options.compile == "off"
        self.nets = members(self.bare) if apart else {"": model}
        self._norms = [[self.bare.get_submodule(name) for name in one.norms] for one in self.freeze]
        self.scaler = self._fresh_scaler()
        sums = torch.float64 if device.type == "cpu" else torch.float32
        self.totals = torch.zeros(3, dtype=sums, device=device)
        self._forward = compiled(self._loss_and_hits, options.compile)

    def __call__(self, images: Tensor, labels: Tensor, kind: Kind) -> None:
        """images (B,3,h,w) in the compute dtype, labels (B,) int64 or (B,K) weights -> one optimizer step."""
        images, labels = self.select(images, labels, kind.proxy_learns)
        self.gradients(images, labels, kind.frozen)
        learning = self._learning(kind.frozen)
        if self.options.clip_norm:
            for optimizer in learning:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        for optimizer in learning:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def gradients(self, images: Tensor, labels: Tensor, frozen: Frozen) -> None:
        """Forward and backward pass, part by part: adds to `totals` and to the gradients, scaled in fp16."""
        for norms, held in zip(self._norms, frozen):
            for norm in norms:
                norm.train(not held)
        parts = min(self.options.accumulate, len(images))  # alike in size: a norm can't do with one image
        done = 0
        for some_images, some_labels in zip(images.tensor_split(parts), labels.tensor_split(parts)):
            told: list[Figures] = []
            for prefix in self.nets:
                loss, figures = self._forward(some_images, some_labels, frozen, prefix)
                self.scaler.scale(loss * self._weight(some_labels, labels)).backward()
                told.append(figures)
            loss_sum, hits, *losses_B = map(_mean, zip(*told))
            for losses in losses_B:
                self.select.tell(losses, done)
                done += len(losses)
            count = torch.full_like(hits, len(some_labels))
            self.totals += torch.stack([loss_sum, hits, count]).to(self.totals.dtype)

    def _held(self, frozen: Frozen) -> list[str]:
        return [name for one, held in zip(self.freeze, frozen) if held for name in one.names]

    def _learning(self, frozen: Frozen) -> list[torch.optim.Optimizer]:
        """The optimizers with anything to do: a loss scaler takes no others. DDP has made every gradient."""
        for name in self._held(frozen) if self.options.processes > 1 else ():
            self.bare.get_parameter(name).grad = None
        if not self.scaler.is_enabled():
            return self.optimizer.parts
        return [
            part
            for part in self.optimizer.parts
            if any(p.grad is not None for group in part.param_groups for p in group["params"])
        ]

    def _weight(self, part: Tensor, whole: Tensor) -> float:
        """What a part's loss counts, so that gradients are those of the whole batch of all processes."""
        if self.options.loss_reduction == "sum":
            return float(self.options.processes)  # which DDP divides by
        return len(part) / len(whole)

    def _loss_and_hits(
        self, images: Tensor, labels: Tensor, frozen: Frozen, prefix: str
    ) -> tuple[Tensor, Figures]:
        """The loss to learn by, of members that go together their sum; and what is told, their mean."""
        with self.precision.autocast(self.device):
            logits = self._logits(images, frozen, prefix)
        each_NK = [logits.float()] if logits.ndim == 2 else list(logits.float())
        losses = [self._loss(logits_NK, labels) for logits_NK in each_NK]
        with torch.no_grad():
            classes = labels if labels.ndim == 1 else labels.argmax(1)
            told = [self._figures(*pair, labels, classes) for pair in zip(losses, each_NK)]
        return functools.reduce(torch.add, losses), tuple(map(_mean, zip(*told)))

    def _figures(self, loss: Tensor, logits_NK: Tensor, labels: Tensor, classes: Tensor) -> Figures:
        loss = loss.detach()
        loss_sum = loss if self.options.loss_reduction == "sum" else loss * len(labels)
        figures = loss_sum, (logits_NK.argmax(1) == classes).sum().to(loss.dtype)
        if self.select.remembers:
            return *figures, F.cross_entropy(logits_NK, labels, reduction="none")
        return figures

    def _loss(self, logits_NK: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        if options.loss is not None:
            return options.loss(logits_NK, labels)
        smoothing, reduction = options.label_smoothing, options.loss_reduction
        return F.cross_entropy(logits_NK, labels, label_smoothing=smoothing, reduction=reduction)

    def _logits(self, images: Tensor, frozen: Frozen, prefix: str) -> Tensor:
        # `frozen` is an argument because a compiled step asks no parameter whether it learns.
        net, names = self.nets[prefix], self._held(frozen) if self.options.processes == 1 else []
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        held = {name: net.get_parameter(name).detach() for name in inside}
        logits: Tensor = functional_call(net, held, (images,)) if held else net(images)
        return logits

    def _fresh_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.precision.scales_loss)

    def remember(self, *more: Tensor) -> Callable[[], None]:
        """Take down everything a step changes on the device, and `more`; the result puts it back in place."""
        kept = [Snapshot(self.model, self.optimizer, [self.totals, *more]), *self.select.snapshots()]

        def restore() -> None:
            for one in kept:
                one.restore()

        return restore

    def reset(self) -> None:
        """Forget all training but the weights, in place, so that captured graphs stay valid."""
        self.optimizer.forget()
        self.scaler = self._fresh_scaler()  # fp16 alone scales, and no graph holds it
        self.totals.zero_()


def _mean(some: tuple[Tensor, ...]) -> Tensor:
    return some[0] if len(some) == 1 else torch.stack(some).mean(0)
