"""Joining the group of processes that torchrun started, and leaving it. Alone, nothing is joined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from fastresnet.machine.distributed import World, described
from fastresnet.ranks import collectives
from fastresnet.ranks.lifesigns import ARRIVAL, Watch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_joinings = count()


@contextmanager
def join(device_type: str) -> Iterator[World]:
    """Join the group that torchrun describes in the environment; at the block's end all leave it together.

    Tensors on GPUs go by NCCL, those on the CPU by gloo. Raises ValueError where the devices don't suffice,
    lifesigns.Lost where another process is lost.
    """
    place = described()
    if place.size == 1:
        yield place
        return
    _check(place, device_type)
    own, another = stores()
    watch = Watch(place, another)
    try:
        with watch:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
                timeout=collectives.LONGEST,
                store=own,
                rank=place.rank,
                world_size=place.size,
            )
            yield place
            collectives.barrier(place)  # the first one writes files meanwhile, and the store may end with it
    finally:
        if dist.is_initialized() and not watch.lost:  # leaving would wait for a lost process
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


def stores() -> list[Store]:
    """Two connections to the job's store: a thread that waits on one would block whoever uses it too.

    It outlives a restart and this joining, and so would what processes left in it that are no more.
    """
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # not in every build of PyTorch
    from torch.distributed.rendezvous import rendezvous

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    first: Store = next(rendezvous("env://", timeout=timedelta(seconds=ARRIVAL)))[0]
    first.set_timeout(collectives.LONGEST)
    second = TCPStore(address, port, is_master=False, wait_for_workers=False)
    mine = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_joinings)}"
    return [PrefixStore(f"{name}/{mine}", store) for name, store in (("group", first), ("watch", second))]
