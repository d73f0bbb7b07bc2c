"""torch.distributed as this project uses it: one process a device, gradients averaged by DDP, rank 0 writes.

Started by `torchrun`; without it every function here describes a world of one process.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """Where this process stands. `rank` and `local_rank` count from 0; `size` is the number of processes."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


ALONE = World()


@contextmanager
def world(device_type: str) -> Iterator[World]:
    """Join the group that torchrun describes in the environment (nccl on CUDA, gloo elsewhere) and leave it
    at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {rank} wants GPU {local_rank}, this machine has {torch.cuda.device_count()}: "
                "start torchrun with --nproc-per-node no larger than that"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield World(rank, local_rank, size)
    finally:
        dist.destroy_process_group()


def local_batch_size(global_batch_size: int, place: World) -> int:
    """Images a process takes of each batch. Raises ValueError where the batch doesn't divide evenly."""
    if global_batch_size % place.size:
        raise ValueError(
            f"train.batch_size={global_batch_size} doesn't divide over {place.size} processes: "
            f"take a multiple of {place.size}"
        )
    return global_batch_size // place.size


def wrap(model: nn.Module, place: World, device: torch.device) -> nn.Module:
    """DDP around the model: gradients averaged while the backward pass runs. A world of one gets the model
    back."""
    if place.size == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def sum_over(values: Tensor, place: World) -> Tensor:
    """The element-wise sum over all processes, in place."""
    if place.size > 1:
        dist.all_reduce(values)
    return values


def gather_rows(rows: Tensor, place: World) -> Tensor:
    """Concatenate (n_rank, …) over ranks in rank order; counts may differ. Every process gets the whole."""
    if place.size == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(place.size)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = int(max(counts))
    padded = torch.zeros((longest, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(place.size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts)])


class Vote:
    """Questions that all processes answer together, yes where any says yes; each asks equally often.

    Runs beside the training on the CPU, whatever device it is on. Use it within `world`.
    """

    def __init__(self, place: World) -> None:
        self._group = dist.new_group(backend="gloo") if place.size > 1 else None
        self._round: tuple[Any, Tensor] | None = None

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
