"""torch.distributed as this project uses it: one process a device, gradients averaged by DDP, rank 0 writes.

Started by `torchrun`; without it every function here describes a world of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    """Join the group that torchrun describes in the environment (nccl on CUDA, else gloo) and leave it."""
    place = described()
    if place.size == 1:
        yield place
        return
    if device_type == "mps":
        raise ValueError("run.device=mps is one GPU: train with one process, or with run.device=cpu")
    if device_type == "cuda":
        if place.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {place.rank} wants GPU {place.local_rank}, this machine has "
                f"{torch.cuda.device_count()}: start torchrun with --nproc-per-node no larger than that"
            )
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield place
    finally:
        dist.destroy_process_group()


def described() -> World:
    """Where the environment says that this process stands. Raises ValueError where it says half of it."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={size} stands in the environment without {', '.join(missing)}: "
            "start several processes with torchrun, or unset it"
        )
    numbers = [os.environ[name] for name in ("RANK", "LOCAL_RANK")] + [size]
    if not all(number.isdecimal() for number in numbers) or not int(numbers[0]) < int(size):
        raise ValueError(
            f"RANK, LOCAL_RANK and WORLD_SIZE must be whole numbers, RANK the lesser: got {numbers}"
        )
    return World(*map(int, numbers))


def local_batch_size(global_batch_size: int, place: World) -> int:
    """Images a process takes of each batch. Raises ValueError where the batch doesn't divide evenly."""
    if global_batch_size % place.size:
        raise ValueError(
            f"train.batch_size={global_batch_size} doesn't divide over {place.size} processes: "
            f"take a multiple of {place.size}"
        )
    return global_batch_size // place.size


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


def share_buffers(model: nn.Module, place: World) -> None:
    """Give every process the buffers (running statistics) of the first, as DDP does before each step."""
    if place.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


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
        self._group: dist.ProcessGroup | None = None
        if place.size > 1:
            group = dist.new_group(backend="gloo")
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
