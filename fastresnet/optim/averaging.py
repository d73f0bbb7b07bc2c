"""Averages of the weights along a run: exponential (EMA), of the tail, and Lookahead.

None of them waits for the device, as torch.optim.swa_utils does for its counter at each update; Lookahead it
hasn't got.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypedDict

import torch
from torch import Tensor, nn

from fastresnet.settings.sections import Optim, Train


class AverageState(TypedDict):
    """What a bit-exact continuation needs: the averaged tensors by name and the count of updates."""

    updates: int
    weights: dict[str, Tensor]


class Average(ABC):
    """A second set of the model's parameters and buffers, kept beside it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = [name for name, _ in _tensors(model)]
        self.live = [value for _, value in _tensors(model)]
        self.kept = [value.detach().clone() for value in self.live]
        pairs = list(zip(self.kept, self.live))
        self.floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counting = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.updates = 0

    @abstractmethod
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step number `step` (counted from 1)."""

    @torch.no_grad()
    def _move(self, share: float) -> None:
        """kept += share * (live - kept); whole numbers (batch norm's counters) are copied."""
        if self.floating:
            kept, live = map(list, zip(*self.floating))
            if share < 1.0:
                torch._foreach_lerp_(kept, live, share)
            else:
                torch._foreach_copy_(kept, live)
        if self.counting:
            kept, live = map(list, zip(*self.counting))
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged parameters and buffers into `model`, which has the shape of the one averaged."""
        targets = dict(_tensors(model))
        assert list(targets) == self.names, "averages go into a model of the same shape"
        torch._foreach_copy_(list(targets.values()), self.kept)

    def restart(self) -> None:
        """Begin again from the model's present weights."""
        self.updates = 0
        self._move(1.0)

    def state_dict(self) -> AverageState:
        """The averaged tensors, copied, and the count of updates."""
        return {
            "updates": self.updates,
            "weights": {name: value.clone() for name, value in zip(self.names, self.kept)},
        }

    @torch.no_grad()
    def load_state_dict(self, state: AverageState) -> None:
        """The inverse of `state_dict`. Raises ValueError where the names or shapes are another model's."""
        own, weights = dict(zip(self.names, self.kept)), state["weights"]
        if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in own.items()}:
            raise ValueError(
                "the averaged weights in this checkpoint belong to another model (check model.*)"
            )
        for name, value in own.items():
            value.copy_(weights[name])
        self.updates = int(state["updates"])


class Ema(Average):
    """Exponential moving average: each step the average moves by 1 - decay towards the weights.

    Early on decay is at most (1+n)/(10+n) after n updates, so that the first, random weights are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"train.ema_decay must lie between 0 and 1, got {decay}")
        super().__init__(model)
        self.decay = decay

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        self._move(1.0 - decay)


class TailAverage(Average):
    """The plain mean of the weights after each step later than `start_step`; until then the present ones."""

    def __init__(self, model: nn.Module, start_step: int) -> None:
        super().__init__(model)
        self.start_step = start_step

    def update(self, step: int) -> None:
        if step > self.start_step:
            self.updates += 1
            self._move(1.0 / self.updates)

    def copy_to(self, model: nn.Module) -> None:
        """Write the mean into `model`, or the present weights where the tail hasn't begun."""
        if not self.updates:
            self._move(1.0)
        super().copy_to(model)


class Lookahead(Average):
    """Slow weights that every `steps` steps move by alpha towards the fast ones, which go on from there.

    Zhang et al. 2019 (arXiv 1907.08610). Writes into the model itself; buffers take part like parameters.

    start_step:  the slow weights begin as the weights after that step
    ramp_steps:  the run's steps, where alpha shall fall from 1 to its value with the cube of the share of the
                 run done (Jordan 2024); the slow weights remain after its last step. 0 keeps alpha constant.
    """

    def __init__(
        self, model: nn.Module, steps: int, alpha: float, ramp_steps: int = 0, start_step: int = 0
    ) -> None:
        if steps < 1 or not 0.0 < alpha <= 1.0:
            raise ValueError(
                f"optim.lookahead must be at least 1 and its alpha within (0, 1], got {steps} and {alpha}"
            )
        super().__init__(model)
        self.steps, self.alpha, self.ramp_steps, self.start_step = steps, alpha, ramp_steps, start_step

    def update(self, step: int) -> None:
        if step <= self.start_step:
            if step == self.start_step:
                self.restart()
            return
        due = (step - self.start_step) % self.steps == 0
        if not due and step != self.ramp_steps:
            return
        self.updates += 1
        if due:
            self._move(self._share(step))
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.kept)

    def _share(self, step: int) -> float:
        if not self.ramp_steps:
            return self.alpha
        return 1.0 - (1.0 - self.alpha) * min(1.0, step / self.ramp_steps) ** 3


def build(model: nn.Module, optim: Optim, train: Train, total_steps: int) -> list[Average]:
    """What the settings average in a run of `total_steps` steps.

    Lookahead comes first, because it writes into the weights that the others take in.
    """
    made: list[Average] = []
    if optim.lookahead:
        ramp_steps = total_steps if optim.lookahead_ramp else 0
        start = round(optim.lookahead_after * total_steps)
        made.append(Lookahead(model, optim.lookahead, optim.lookahead_alpha, ramp_steps, start))
    if train.ema_decay:
        made.append(Ema(model, train.ema_decay))
    if train.average_tail:
        made.append(TailAverage(model, total_steps - max(1, round(train.average_tail * total_steps))))
    return made


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
