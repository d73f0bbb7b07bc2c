"""What the processes of a job send each other: gradients, sums, rows, votes. Alone, each is what one has.

Every function here is called by all processes, in the same order.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastresnet.machine.distributed import World

T = TypeVar("T")
# One may convert a large set while the others wait: the lost are found by `lifesigns`, not by patience.
LONGEST = timedelta(days=7)


def wrap(model: nn.Module, place: World, device: torch.device) -> nn.Module:
    """DDP around the model: gradients are averaged during the backward pass. Alone, the model itself."""
    if place.size == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def sum_over(values: Tensor, place: World) -> Tensor:
    """The element-wise sum over all processes, in place."""
    if place.size > 1:
        dist.all_reduce(values)
    return values


class Summed(torch.autograd.Function):
    """The element-wise sum over all processes, through which gradients flow back to each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def share_buffers(model: nn.Module, place: World) -> None:
    """Give every process the buffers (running statistics) of the first, as DDP does before each step."""
    if place.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather(values: Tensor, place: World) -> list[Tensor]:
    """The tensors of all processes in rank order; their shapes are equal."""
    if place.size == 1:
        return [values]
    parts = [torch.empty_like(values) for _ in range(place.size)]
    dist.all_gather(parts, values)
    return parts


def gather_rows(rows: Tensor, place: World) -> Tensor:
    """Concatenate (n_rank, …) over ranks in rank order; counts may differ. Every process gets the whole."""
    if place.size == 1:
        return rows
    counts = gather(torch.tensor([len(rows)], device=rows.device), place)
    longest = int(max(counts))
    padded = torch.zeros((longest, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows
    return torch.cat([part[: int(n)] for part, n in zip(gather(padded, place), counts)])


def of_each(value: T, place: World) -> list[T]:
    """What each process has, in rank order: anything that can be pickled."""
    told = [value] * place.size
    if place.size > 1:
        dist.all_gather_object(told, value)
    return told


def of_the_first(value: T, place: World) -> T:
    """What the first process has."""
    told = [value]
    if place.size > 1:
        dist.broadcast_object_list(told, 0)
    return told[0]


class Vote:
    """Questions that all processes answer together, yes where any says yes; each asks equally often.

    Runs beside the training on the CPU, whatever device it is on. Use it within `world`.
    """

    def __init__(self, place: World) -> None:
        self._group: dist.ProcessGroup | None = None
        if place.size > 1:
            group = dist.new_group(timeout=LONGEST, backend="gloo")
            assert isinstance(group, dist.ProcessGroup)  # new_group gives a number to those left out
            self._group = group
        self._round: tuple[dist.Work, Tensor] | None = None

    def cast(self, *answers: bool) -> list[bool]:
        """What was answered in the round before this one, so that no process waits; alone, in this one."""
        if self._group is None:
            return list(answers)
        before = self._counted() if self._round else [False] * len(answers)
        votes = torch.tensor([int(answer) for answer in answers])
        self._round = dist.all_reduce(votes, dist.ReduceOp.MAX, self._group, async_op=True), votes
        return before

    def settle(self, answer: bool) -> bool:
        """Whether any process says yes, now or in the round that is under way. Waits for all."""
        if self._group is None:
            return answer
        before = self._counted()[0] if self._round else False
        votes = torch.tensor([int(answer or before)])
        dist.all_reduce(votes, dist.ReduceOp.MAX, self._group)
        return bool(votes.item())

    def _counted(self) -> list[bool]:
        assert self._round is not None
        (work, votes), self._round = self._round, None
        work.wait()
        return [bool(vote) for vote in votes.tolist()]


def barrier(place: World) -> None:
    """Wait for every process."""
    if place.size > 1:
        dist.barrier()
