"""The training loop: batches in, weights out. Knows no files, no loader, prints nothing.

Losses and hits are read from the device once an epoch, learning rates come from a table. With `cuda_graph` a
step is one replay of a captured graph for each kind of batch.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Callable, Iterable, Mapping, Sequence, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.base.exits import OfAll
from fastresnet.machine import timing
from fastresnet.machine.distributed import ALONE, World
from fastresnet.machine.precision import Precision
from fastresnet.optim.averaging import Average, AverageState
from fastresnet.optim.freezing import Freeze
from fastresnet.optim.optimizers import Optimizers, OptimizersState
from fastresnet.optim.rates import Rates
from fastresnet.ranks import agreement, collectives
from fastresnet.training.capture import Captured
from fastresnet.training.selection import Batch, Selection, SelectionState
from fastresnet.training.step import Kind, Step, StepOptions

PLAIN = StepOptions()
# of fp16, which begins at 65,536: gradients that overflow so far below are infinite themselves
SMALLEST_SCALE = 2.0**-10


class Diverged(OfAll, RuntimeError):
    """The loss is no longer a finite number: a failure of the run, not of its input."""


@dataclass(frozen=True)
class EpochResult:
    """One pass: `epoch` counts from 0, `step` is the number of steps done since the run began.

    `images`, `loss` (nats, a mean per image) and `accuracy` (share) cover the epoch from its beginning,
    `seconds` this call alone; `lr` is the first group's rate in the last step.
    """

    epoch: int
    step: int
    images: int
    loss: float
    accuracy: float
    seconds: float
    lr: float


class TrainerState(TypedDict):
    """What a bit-exact continuation needs beside the weights: tensors and plain numbers only."""

    steps_done: int
    optimizer: OptimizersState
    scaler: dict[str, float]
    totals: Tensor
    averages: list[AverageState]
    select: SelectionState


class Trainer:
    """Trains `model` in place.

    model:         on its device already; may be DDP-wrapped
    optimizer:     its groups each with "base_lr", as `optim.build` makes it
    lr_factor:     one entry a step, times each group's base_lr; `group_factor` overrides it by group name
    momentum:      one entry a step, or None where it stays what the groups say
    averages:      updated after each optimizer step (EMA, lookahead, tail average)
    select:        chooses what is trained on, of each batch or of the set; without one it is all
    freeze:        parameters that learn in some steps only
    place:         this process among those that share each batch: an epoch's figures are of all
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        lr_factor: Sequence[float],
        *,
        device: torch.device,
        precision: Precision,
        options: StepOptions = PLAIN,
        momentum: Sequence[float] | None = None,
        group_factor: Mapping[str, Sequence[float]] | None = None,
        averages: Iterable[Average] = (),
        select: Selection | None = None,
        freeze: Sequence[Freeze] = (),
        place: World = ALONE,
    ) -> None:
        if options.cuda_graph and (device.type != "cuda" or precision.scales_loss):
            raise ValueError(
                "train.cuda_graph captures the step on a CUDA GPU and can't contain fp16's loss scaling: "
                f"this run is on {device.type} in {precision.name}; use bf16, or train.cuda_graph=false"
            )
        self.model, self.optimizer, self.device, self.options = model, optimizer, device, options
        self.averages, self.freeze, self.place = list(averages), tuple(freeze), place
        self.select = select or Selection()
        self.total_steps, self.steps_done = len(lr_factor), 0
        self.update = Step(
            model, optimizer, options, device=device, precision=precision, select=self.select, freeze=freeze
        )
        on_device = device if options.cuda_graph else None
        self.rates = Rates(optimizer, lr_factor, momentum, group_factor or {}, on_device)
        self._graphs: dict[tuple[object, ...], Captured[None]] = {}
        self.masks = not_finite(model)  # before the first step

    @property
    def totals(self) -> Tensor:
        """(summed loss, hits, images) since the epoch's begin, (3,) on the device."""
        return self.update.totals

    # ---- one step ------------------------------------------------------------------------------------------

    def kind_at(self, step: int) -> Kind:
        """The kind of a step of the run, from 0."""
        return Kind(tuple(one.holds(step) for one in self.freeze), self.select.learns(step))

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step on one batch; adds (summed loss, hits, images) to `totals` on the device."""
        kind = self.kind_at(self.steps_done)
        if self.options.cuda_graph:
            self._captured(images, labels, kind).replay(images, labels)
        else:
            self.rates.set(self.steps_done)
            self.update(images, labels, kind)
        self.select.note()
        self.steps_done += 1
        for average in self.averages:
            average.update(self.steps_done)

    def buffers(self, shape: tuple[int, ...]) -> Batch | None:
        """Where the next step wants its images, of that shape, and labels; None: anywhere."""
        graph = self._graphs.get((shape, self.kind_at(self.steps_done)))
        return None if graph is None else (graph.inputs[0], graph.inputs[1])

    def whole_step(self, images: Tensor, labels: Tensor, kind: Kind) -> None:
        """What a captured graph holds: the rates of the device's own step counter, and the step."""
        self.rates.set_on_device()
        self.update(images, labels, kind)

    def _captured(self, images: Tensor, labels: Tensor, kind: Kind) -> Captured[None]:
        key = (tuple(images.shape), kind)
        if key not in self._graphs:
            body = functools.partial(self.whole_step, kind=kind)
            self._graphs[key] = Captured(body, (images, labels), self._remember())
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
        Raises Diverged where the mean loss is not finite, or fp16 finds no scale for its gradients.
        """
        self.model.train()
        if not skip:
            self.update.totals.zero_()
        limit = self.total_steps if limit is None else min(limit, self.total_steps)
        began = timing.now(self.device)
        for images, labels in itertools.islice(batches, skip, None):
            if self.steps_done >= limit:
                break
            self.step(images, labels)
            if on_step is not None and on_step(self):
                break
        return self._result(epoch, timing.now(self.device) - began)

    def _result(self, epoch: int, seconds: float) -> EpochResult:
        loss_sum, hits, images = collectives.sum_over(self.update.totals.clone(), self.place).tolist()
        loss, accuracy = loss_sum / max(images, 1.0), hits / max(images, 1.0)
        if not math.isfinite(loss) or scale_is_lost(self.update.scaler):
            raise diverged(self, epoch, loss)
        agreement.same_weights(self.model, self.place, self.steps_done)
        lr = self.rates.base_lr(max(self.steps_done - 1, 0))
        return EpochResult(epoch, self.steps_done, int(images), loss, accuracy, seconds, lr)

    def check(self, epoch: int) -> None:
        """Raises Diverged, in every process, where the loss of the epoch so far or a weight isn't finite."""
        here = torch.stack([self.totals[0], self.totals.new_tensor(len(sick(self)))])
        loss_sum, unsound = collectives.sum_over(here, self.place).tolist()
        if unsound or not math.isfinite(loss_sum):
            raise diverged(self, epoch, loss_sum)

    # ---- before and after ----------------------------------------------------------------------------------

    def warm_up(self, images: Tensor, step: int = 0, classes: int = 0) -> None:
        """Do step number `step` (from 0) of the run on `images` and random labels, and undo it.

        With `classes` labels are weights of so many classes, as mixed images have them. Compiles, captures
        and allocates what steps of that kind need; three times over, because torch.compile's own graphs are
        recorded in the second call and first replayed in the third. Before the run's first step only.
        """
        assert not self.steps_done, "warming up forgets the steps done"
        restore = self._remember()
        averages, self.averages = self.averages, []
        self.model.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            labels = torch.randint(0, 2, (len(images),), device=self.device)
            labels = F.one_hot(labels, classes).float() if classes else labels
            for _ in range(3 if self.options.compile in ("reduce-overhead", "max-autotune") else 1):
                self.steps_done = step
                self.rates.rewind(step)
                self.step(images, labels)
        self.averages = averages
        restore()
        self.reset()
        timing.synchronize(self.device)

    def _remember(self) -> Callable[[], None]:
        return self.update.remember(*([] if self.rates.counter is None else [self.rates.counter]))

    def reset(self) -> None:
        """Forget all training but the weights, in place, so that captured graphs stay valid."""
        self.update.reset()
        self.steps_done = 0
        self.rates.rewind(0)

    def state_dict(self) -> TrainerState:
        """All that a bit-exact continuation needs beside the weights."""
        return {
            "steps_done": self.steps_done,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.update.scaler.state_dict(),
            "totals": self.update.totals.clone(),
            "averages": [average.state_dict() for average in self.averages],
            "select": self.select.state_dict(),
        }

    def load_state_dict(self, state: TrainerState) -> None:
        """The inverse of `state_dict`. Raises ValueError where it comes from other settings."""
        select = state["select"] or {}  # earlier checkpoints have None where all images are trained on
        if len(state["averages"]) != len(self.averages) or set(select) != set(self.select.state_dict()):
            raise ValueError(
                "the checkpoint was trained with other averages or another choice of images "
                "(train.ema_decay, optim.lookahead, train.average_tail, train.hard_fraction, "
                "train.epoch_share): resume with the settings it was made with"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty: the device before had no fp16, and this one begins with a fresh scale
            self.update.scaler.load_state_dict(state["scaler"])
        self.update.totals.copy_(state["totals"])
        for average, saved in zip(self.averages, state["averages"]):
            average.load_state_dict(saved)
        self.select.load_state_dict(select)
        self.steps_done = int(state["steps_done"])
        self.rates.rewind(self.steps_done)


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights and buffers that hold what is no finite number. The host waits for the device."""
    state = getattr(model, "module", model).state_dict()
    return [name for name, value in state.items() if not torch.isfinite(value).all()]


def sick(trainer: Trainer) -> list[str]:
    """The same of a trainer, without those that are made so, as a mask is."""
    return [name for name in not_finite(trainer.model) if name not in trainer.masks]


def scale_is_lost(scaler: torch.amp.GradScaler) -> bool:
    """Whether fp16's steps overflow at every scale: those left out now and then cost it little."""
    return scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE


def diverged(trainer: Trainer, epoch: int, loss: float) -> Diverged:
    """The error of a trainer whose loss, or whose weights after the last step, are no numbers any more."""
    names = sick(trainer)
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    weights = f", no finite weights in {', '.join(names[:2])}{more}" if names else ""
    what = "the weights stopped being finite"
    if not math.isfinite(loss):
        what = f"the loss became {loss}"
    elif scale_is_lost(trainer.update.scaler):
        what = "the gradients overflow at every scale of fp16"
    return Diverged(
        f"{what} in epoch {epoch + 1} (step {trainer.steps_done}){weights}: "
        "a smaller optim.lr, a longer schedule.warmup_fraction or train.clip_norm helps"
    )
