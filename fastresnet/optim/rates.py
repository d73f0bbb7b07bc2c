"""Learning rates and momenta by step: numbers, or tables on the device that a captured graph reads by itself.

Knows optimizers' groups and no schedule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Sequence

import torch
from torch import Tensor

from fastresnet.optim.optimizers import Optimizers
from fastresnet.settings.sections import Optim


def scale(settings: Optim, batch_size: int) -> float:
    """What optim.lr_scaling multiplies all peak rates by for batches of `batch_size`.

    linear: Goyal et al. 2017 (arXiv 1706.02677), for SGD; sqrt: Malladi et al. 2022 (arXiv 2205.10287), for
    optimizers whose step doesn't grow with the gradient.
    """
    if settings.lr_scaling == "none" or settings.lr_base_batch is None:
        return 1.0
    ratio = batch_size / settings.lr_base_batch
    return ratio if settings.lr_scaling == "linear" else ratio**0.5


def scaled(settings: Optim, batch_size: int) -> Optim:
    """The settings with their peak rates as they are for batches of `batch_size`."""
    factor = scale(settings, batch_size)
    return replace(
        settings,
        lr=settings.lr * factor,
        lr_bias=settings.lr_bias and settings.lr_bias * factor,
        lr_head=settings.lr_head and settings.lr_head * factor,
    )


class Rates:
    """Sets each group's rate, base_lr times a factor, and its momentum, for a step.

    factor:        one entry a step; `group_factor` overrides it by group name
    momentum:      one entry a step, or None where it stays what the groups say
    device:        given, the rates are tensors there, read from a table by a counter there
    """

    def __init__(
        self,
        optimizer: Optimizers,
        factor: Sequence[float],
        momentum: Sequence[float] | None,
        group_factor: Mapping[str, Sequence[float]],
        device: torch.device | None,
    ) -> None:
        self.groups = optimizer.param_groups
        names = {group.get("name") for group in self.groups}
        unknown = set(group_factor) - names
        assert not unknown, f"no parameter group is called {unknown}, there are {names}"
        self.factors = [list(group_factor.get(str(group.get("name")), factor)) for group in self.groups]
        self.momentum = momentum
        self.counter: Tensor | None = None
        if device is not None:
            assert momentum is None, "momentum cycling isn't capturable"
            self.counter = torch.zeros(1, dtype=torch.int64, device=device)
            self.tables = [
                torch.tensor(f, dtype=torch.float32).to(device) * float(group["base_lr"])
                for f, group in zip(self.factors, self.groups)
            ]
            for group in self.groups:
                if not isinstance(group["lr"], Tensor):
                    group["lr"] = torch.full((), float(group["lr"]), device=device)

    def set(self, step: int) -> None:
        """Python numbers, for step `step` (from 0); beyond the table those of its last."""
        step = min(step, len(self.factors[0]) - 1)
        for group, factor in zip(self.groups, self.factors):
            group["lr"] = group["base_lr"] * factor[step]
            if self.momentum is not None and "betas" in group:
                group["betas"] = (self.momentum[step], *group["betas"][1:])
            elif self.momentum is not None:
                group["momentum"] = self.momentum[step]

    def set_on_device(self) -> None:
        """The rates of the counter's step, and count on; the host neither knows nor waits."""
        assert self.counter is not None
        for group, table in zip(self.groups, self.tables):
            group["lr"].copy_(table.index_select(0, self.counter.clamp(max=len(table) - 1)).squeeze(0))
        self.counter += 1

    def rewind(self, step: int) -> None:
        """Let the counter stand at `step`."""
        if self.counter is not None:
            self.counter.fill_(step)

    def base_lr(self, step: int) -> float:
        """The first group's rate at `step`, without what optim.layer_decay takes from it."""
        peak = float(self.groups[0]["base_lr"]) / self.groups[0].get("scale", 1.0)
        return peak * self.factors[0][min(step, len(self.factors[0]) - 1)]
