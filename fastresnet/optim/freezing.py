"""What doesn't learn in which steps of a run: parameters, with the running statistics of their norms.

Knows no rates and no loop: a step is told which of these hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fastresnet.optim.blocks import Roots, roots_of, within

Frozen = tuple[bool, ...]  # of each Freeze of a run, whether it holds in a step


@dataclass(frozen=True)
class Freeze:
    """Parameters that don't learn in some steps; the backward pass leaves their part out.

    names:                  of the parameters
    from_step, until_step:  the first of these steps, from 0, and the one after the last (None: the run's end)
    norms:                  names of batch norms that normalise by their running statistics and keep them
    """

    names: tuple[str, ...] = ()
    from_step: int = 0
    until_step: int | None = None
    norms: tuple[str, ...] = ()

    def holds(self, step: int) -> bool:
        """Whether they are frozen in that step, counted from 0."""
        over = self.until_step is not None and step >= self.until_step
        return bool(self.names) and step >= self.from_step and not over


def of_parts(model: nn.Module, wanted: Sequence[str], until_step: int | None) -> Freeze:
    """The parts of `model` that `wanted` names (see `blocks.roots_of`), frozen from the first step on.

    Raises ValueError for a name that isn't there, and where nothing is left to learn.
    """
    roots = roots_of(model, wanted)
    names = _inside(model, roots)
    if not any(p.requires_grad and name not in names for name, p in model.named_parameters()):
        raise ValueError(f"model.freeze={','.join(wanted)} leaves nothing of this network to learn")
    norms = (
        name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    )
    return Freeze(names, 0, until_step, tuple(name for name in norms if within(name, roots)))


def late(model: nn.Module, wanted: Sequence[str], total_steps: int) -> list[Freeze]:
    """Parts of `model`, each with the share of the run from which it doesn't learn: ["groups.0 0.75"], say.

    Their norms go on as in training. Raises ValueError for a name that isn't there.
    """
    found = []
    for text in wanted:
        name, _, share = text.partition(" ")
        names = _inside(model, roots_of(model, [name], "train.freeze_late"))
        found.append(Freeze(names, round(float(share) * total_steps)))
    return found


def _inside(model: nn.Module, roots: Roots) -> tuple[str, ...]:
    return tuple(name for name, _ in model.named_parameters() if within(name, roots))
