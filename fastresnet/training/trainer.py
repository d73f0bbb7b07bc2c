"""The training step and the loop: batches in, weights out. Knows no files, no loader, prints nothing.

The host never waits for the device inside a step: losses and hits add up on the device and are read once an
epoch, learning rates come from a table. With `cuda_graph` a step is one replay of a captured graph for each
input shape.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.machine import timing
from fastresnet.machine.precision import Precision
from fastresnet.optim.rates import Rates
from fastresnet.training.capture import CapturedStep, Snapshot, forget, optimizer_parts

Batch = tuple[Tensor, Tensor]  # images (B,3,h,w) in the compute dtype, labels (B,) int64, both on the device


class Diverged(RuntimeError):
    """The loss is no longer a finite number: a failure of the run, not of its input."""


@dataclass(frozen=True)
class StepOptions:
    """What a step does beside forward and backward.

    label_smoothing:  share of the target spread over all classes (Szegedy et al. 2016)
    loss_reduction:   "mean", or "sum" (then learning rates are per image)
    clip_norm:        largest allowed 2-norm of all gradients together; 0 leaves them alone
    accumulate:       micro-batches that a batch is cut into; the optimizer still steps once a batch
    compile:          off, or torch.compile's mode
    cuda_graph:       capture the whole step, optimizer included, and replay it (CUDA only)
    """

    label_smoothing: float = 0.0
    loss_reduction: str = "mean"
    clip_norm: float = 0.0
    accumulate: int = 1
    compile: str = "off"
    cuda_graph: bool = False


@dataclass(frozen=True)
class EpochResult:
    """One pass: `epoch` counts from 0, `step` is the number of steps done since the run began, loss is a
    mean per image.

    `images`, `loss` and `accuracy` cover the epoch from its beginning, `seconds` and `images_per_second`
    this call alone.
    """

    epoch: int
    step: int
    images: int
    loss: float
    accuracy: float
    seconds: float
    images_per_second: float
    lr: float


class Trainer:
    """Trains `model` in place.

    model:      on its device already; may be DDP-wrapped
    optimizer:  .param_groups (each with "base_lr"), .step(), .zero_grad(), as `optim.build` makes it
    lr_factor:  one entry a step, multiplies each group's base_lr; `group_factor` overrides it by group name
    momentum:   one entry a step, or None where it stays what the groups say
    averages:   objects with .update(step), called after each optimizer step (EMA, lookahead, tail average)
    select:     images, labels -> the batch that is trained on (a proxy's choice, say); one that learns has
                .snapshot(), .state_dict() and .load_state_dict()
    freeze:     parameters, and the step from which they no longer learn: the backward pass then leaves their
                part out
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        lr_factor: Sequence[float],
        *,
        device: torch.device,
        precision: Precision,
        options: StepOptions = StepOptions(),
        momentum: Sequence[float] | None = None,
        group_factor: dict[str, Sequence[float]] | None = None,
        averages: Iterable[Any] = (),
        select: Callable[[Tensor, Tensor], Batch] | None = None,
        freeze: tuple[Sequence[nn.Parameter], int] = ((), 0),
    ) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.precision, self.options = precision, options
        self.averages = list(averages)
        self.select: Any = select
        self.freezable, self.freeze_step = freeze
        self.lr_factor = list(lr_factor)
        self.total_steps = len(self.lr_factor)
        self.steps_done = 0
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)
        self.totals = torch.zeros(
            3, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device
        )
        self._rates = Rates(
            optimizer, self.lr_factor, momentum, group_factor or {}, device if options.cuda_graph else None
        )
        self._forward = self._compiled(self._loss_and_hits)
        self._graphs: dict[tuple[Any, ...], CapturedStep] = {}
        if options.cuda_graph and (device.type != "cuda" or precision.scales_loss):
            raise ValueError(
                "train.cuda_graph captures the step on a CUDA GPU and can't contain fp16's loss scaling: "
                f"this run is on {device.type} in {precision.name}; use bf16, or train.cuda_graph=false"
            )

    # ---- one step ------------------------------------------------------------------------------------------

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step on one batch; adds (summed loss, hits, images) to `totals` on the device."""
        for parameter in self.freezable:
            parameter.requires_grad_(self.steps_done < self.freeze_step)
        if self.options.cuda_graph:
            self._captured(images, labels).replay(images, labels)
        else:
            self._rates.set(self.steps_done)
            self._update(images, labels)
        self.steps_done += 1
        for average in self.averages:
            average.update(self.steps_done)

    def _update(self, images: Tensor, labels: Tensor) -> None:
        if self.select is not None:
            images, labels = self.select(images, labels)
        parts = self.options.accumulate
        for some_images, some_labels in zip(images.chunk(parts), labels.chunk(parts)):
            loss, loss_sum, hits = self._forward(some_images, some_labels)
            share = 1.0 if self.options.loss_reduction == "sum" else len(some_labels) / len(labels)
            self.scaler.scale(loss * share).backward()
            self.totals += torch.stack([loss_sum, hits, torch.full_like(hits, len(some_labels))]).to(
                self.totals.dtype
            )
        if self.options.clip_norm:
            for optimizer in optimizer_parts(self.optimizer):
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        for optimizer in optimizer_parts(self.optimizer):
            self.scaler.step(optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _loss_and_hits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with self.precision.autocast(self.device):
            logits_NK = self.model(images)
        logits_NK = logits_NK.float()
        loss = F.cross_entropy(
            logits_NK,
            labels,
            label_smoothing=self.options.label_smoothing,
            reduction=self.options.loss_reduction,
        )
        with torch.no_grad():
            loss_sum = loss if self.options.loss_reduction == "sum" else loss * len(labels)
            hits = (logits_NK.argmax(1) == labels).sum().to(loss.dtype)
        return loss, loss_sum.detach(), hits

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode = self.options.compile
        return function if mode == "off" else torch.compile(function, mode=mode, dynamic=False)

    def _captured(self, images: Tensor, labels: Tensor) -> CapturedStep:
        key = (tuple(images.shape), self.steps_done < self.freeze_step)
        if key not in self._graphs:
            assert self._rates.counter is not None
            restore = self._remember(self.totals, self._rates.counter)
            self._graphs[key] = CapturedStep(self._update, self._rates.set_on_device, restore, images, labels)
        return self._graphs[key]

    # ---- the loop ------------------------------------------------------------------------------------------

    def fit_epoch(
        self,
        batches: Iterable[Batch],
        epoch: int,
        *,
        skip: int = 0,
        limit: int | None = None,
        on_step: Callable[[Trainer], bool] | None = None,
    ) -> EpochResult:
        """Train on one epoch's batches.

        skip:     batches that were trained on before an interruption (`totals` then holds their sums)
        limit:    the last step number of the run (an early stop), counted from the run's first step
        on_step:  called after each step; True ends the epoch there
        Raises Diverged when the mean loss is not finite.
        """
        self.model.train()
        if not skip:
            self.totals.zero_()
        limit = self.total_steps if limit is None else min(limit, self.total_steps)
        trained = 0
        began = timing.now(self.device)
        for images, labels in itertools.islice(batches, skip, None):
            if self.steps_done >= limit:
                break
            self.step(images, labels)
            trained += len(labels)
            if on_step is not None and on_step(self):
                break
        seconds = timing.now(self.device) - began
        loss_sum, hits, images_seen = self.totals.tolist()
        loss = loss_sum / max(images_seen, 1.0)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {epoch + 1} (step {self.steps_done}): "
                "a smaller optim.lr, a longer schedule.warmup_fraction or train.clip_norm helps"
            )
        return EpochResult(
            epoch,
            self.steps_done,
            int(images_seen),
            loss,
            hits / max(images_seen, 1.0),
            seconds,
            trained / seconds,
            self._rates.base_lr(max(self.steps_done - 1, 0)),
        )

    # ---- before and after ----------------------------------------------------------------------------------

    def warm_up(self, images: Tensor, steps: int = 3) -> None:
        """Compile, capture and allocate on random labels, then put every weight, buffer and optimizer state
        back.

        Every phase of the run is visited: before and after `freeze_step`.
        """
        restore = self._remember()
        averages, self.averages = self.averages, []
        self.model.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            labels = torch.randint(0, 2, (len(images),), device=self.device)
            for start in {0, min(self.freeze_step, self.total_steps - 1)}:
                self.steps_done = start
                for _ in range(min(steps, self.total_steps - start)):
                    self.step(images, labels)
        self.averages = averages
        restore()
        self.reset()
        timing.synchronize(self.device)

    def _remember(self, *more: Tensor) -> Callable[[], None]:
        """Take down everything a step changes; the result puts it back in place."""
        kept = [Snapshot(self.model, self.optimizer, more)]
        if hasattr(self.select, "snapshot"):
            kept.append(self.select.snapshot())

        def restore() -> None:
            for one in kept:
                one.restore()

        return restore

    def reset(self) -> None:
        """Forget all training but the weights, in place, so that captured graphs stay valid."""
        forget(self.optimizer)
        self.optimizer.zero_grad()
        self.totals.zero_()
        self.steps_done = 0
        self._rates.rewind(0)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs beside the weights: tensors and plain numbers only."""
        return {
            "steps_done": self.steps_done,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": self.totals.clone(),
            "averages": [average.state_dict() for average in self.averages],
            "select": self.select.state_dict() if hasattr(self.select, "state_dict") else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises ValueError where it comes from other settings."""
        if len(state["averages"]) != len(self.averages):
            raise ValueError(
                "the checkpoint was trained with other averages (train.ema_decay, optim.lookahead, "
                "train.average_tail): resume with the settings it was made with"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals.copy_(state["totals"])
        for average, saved in zip(self.averages, state["averages"]):
            average.load_state_dict(saved)
        if hasattr(self.select, "load_state_dict"):
            self.select.load_state_dict(state["select"])
        self.steps_done = int(state["steps_done"])
        self._rates.rewind(self.steps_done)
