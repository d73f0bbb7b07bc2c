"""Joining the group of processes that torchrun started, and leaving it. Alone, nothing is joined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from fastresnet.machine.distributed import World, described
from fastresnet.ranks.lifesigns import Watch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


@contextmanager
def join(device_type: str) -> Iterator[World]:
    """Join the group that torchrun describes in the environment, and leave it at the block's end.

    Tensors on GPUs go by NCCL, those on the CPU by gloo. Raises ValueError where the devices don't suffice,
    lifesigns.Lost where another process is lost.
    """
    place = described()
    if place.size == 1:
        yield place
        return
    _check(place, device_type)
    store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
        store=_of_this_attempt("group", store),
        rank=place.rank,
        world_size=place.size,
    )
    watch = Watch(place, _of_this_attempt("watch", _connection()))
    try:
        with watch:
            yield place
    finally:
        if not watch.lost:  # leaving would wait for a lost process, and this one ends anyway
            dist.destroy_process_group()


def _check(place: World, device_type: str) -> None:
    if device_type == "mps":
        raise ValueError("run.device=mps is one GPU: train with one process, or with run.device=cpu")
    if device_type == "cuda":
        if place.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {place.rank} wants GPU {place.local_rank}, this machine has "
                f"{torch.cuda.device_count()}: start torchrun with --nproc-per-node no larger than that"
            )
        torch.cuda.set_device(place.local_rank)


def _connection() -> Store:
    """Another one to the job's store: a thread that waits on the group's would block whoever uses it too."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store: Store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]
    return store


def _of_this_attempt(name: str, store: Store) -> Store:
    """torchrun's store outlives a restart, and so would what processes left in it that are no more."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefixed: Store = dist.PrefixStore(f"{name}/{attempt}", store)  # type: ignore[attr-defined]
    return prefixed
