"""What must be the same in all processes of a job: what they are told and read, and later their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fastresnet.base.exits import OfAll
from fastresnet.machine.distributed import World
from fastresnet.ranks import collectives

SHOWN = 3  # differences in one line
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class Unlike(OfAll, ValueError):
    """The processes were told or have read different things."""


class Parted(OfAll, RuntimeError):
    """The processes no longer train one model: a failure of the run, not of its input."""


def agree(facts: Mapping[str, object], place: World, hint: str = "") -> None:
    """Compare facts by name, as texts, with those of the first process.

    Raises Unlike in all processes at once where one differs, naming it and in what, and giving the hint.
    """
    if place.size > 1:
        compare(collectives.of_each({name: str(value) for name, value in facts.items()}, place), hint)


def compare(told: Sequence[dict[str, str]], hint: str = "") -> None:
    """Raises Unlike, with the hint, where a fact that a process told differs from what the first one did."""
    for rank, theirs in enumerate(told):
        unlike = [name for name in told[0] | theirs if theirs.get(name) != told[0].get(name)]
        if unlike:
            named = [f"{name} {theirs.get(name)} against {told[0].get(name)}" for name in unlike[:SHOWN]]
            more = f" and {len(unlike) - SHOWN} more" if len(unlike) > SHOWN else ""
            raise Unlike(f"rank {rank} differs from rank 0: {', '.join(named)}{more}{hint}")


def same_weights(model: nn.Module, place: World, step: int) -> None:
    """Raises Parted in all processes where they don't hold the same weights, bit for bit, after `step`."""
    if place.size == 1:
        return
    marks = [int(mark) for mark in collectives.gather(fingerprint(model), place)]
    apart = [rank for rank, mark in enumerate(marks) if mark != marks[0]]
    if apart:
        raise Parted(
            f"rank {apart[0]} holds other weights than rank 0 after step {step}: its memory, its device or "
            "code of your own that acts on one rank alone; the checkpoint before is still there"
        )


def fingerprint(model: nn.Module) -> Tensor:
    """int64 (1,) of the bits of all parameters, whatever their layout: one changed bit changes it."""
    values = [parameter.detach() for parameter in model.parameters()]
    sums = [value.view(INTEGERS[value.element_size()]).sum(dtype=torch.int64) for value in values]
    places = torch.arange(1, len(sums) + 1, device=sums[0].device)
    return (torch.stack(sums) * places).sum().view(1)
