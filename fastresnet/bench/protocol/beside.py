"""Runs side by side: one a device, on all devices that torchrun names, or several on one device (--parallel).

A run is timed where it has its device for itself. Refuses to know what is run, and to share out one run.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec

import torch

from fastresnet.base import exits
from fastresnet.base.system import cores_usable
from fastresnet.data import Info
from fastresnet.machine import hardware
from fastresnet.machine.devices import choose_device, identity
from fastresnet.machine.distributed import ALONE
from fastresnet.ranks.dealing import Table, meet
from fastresnet.runs import start
from fastresnet.settings.config import Config
from fastresnet.training.experiment import ALIKE

P = ParamSpec("P")


@dataclass(frozen=True)
class Seat:
    """One process's place among those that run side by side; alone, it is the first.

    table:  where they meet
    cfg:    the settings, with a device of its own where there are several processes
    timed:  no two of them share a device
    """

    table: Table
    cfg: Config
    timed: bool

    @property
    def is_first(self) -> bool:
        return self.table.place.is_main

    @property
    def at_once(self) -> int:
        """Runs side by side."""
        return self.table.place.size

    def agree_on(self, info: Info) -> None:
        """Raises ValueError in all processes where one of them has read other images."""
        self.table.agree({name: info.get(key) for key, name in ALIKE.items()})


@contextmanager
def seated(cfg: Config, facts: Mapping[str, object], *, shared: bool = False) -> Iterator[Seat]:
    """This process's seat among those that torchrun, or `started`, describes in the environment.

    facts:   what all must have been told alike beside settings and versions
    shared:  all have the one device that the settings name
    Raises ValueError where they differ or a device isn't there, lifesigns.Lost where one of them is lost.
    """
    with meet() as table:
        yield seat_at(table, cfg, facts, shared)


def seat_at(table: Table, cfg: Config, facts: Mapping[str, object], shared: bool = False) -> Seat:
    """The seat of this process at a table."""
    device = choose_device(cfg.run.device, ALONE if shared else table.place)
    table.agree({**start.alike(cfg), **facts, "device": _name(device)})
    own = identity(device)
    devices = table.of_each(own)
    if len(devices) > 1:
        cfg = _placed(cfg, device, devices.count(own))
    return Seat(table, cfg, timed=len(set(devices)) == len(devices))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} {hardware.cpu_model()}"


def _placed(cfg: Config, device: torch.device, sharing: int) -> Config:
    changes: dict[str, object] = {"run.device": str(device)}
    if device.type == "cpu" and not cfg.run.threads:  # torchrun gives a process one thread, whatever there is
        changes["run.threads"] = max(1, cores_usable() // sharing)
    return cfg.replace(changes, origin="runs side by side")


@contextmanager
def started(count: int, work: Callable[P, object], *given: P.args, **named: P.kwargs) -> Iterator[None]:
    """Beside the block, in which this process is the first, others do `work` as torchrun would have them."""
    if count == 1:
        yield
        return
    before, context = dict(os.environ), multiprocessing.get_context("spawn")
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    others = [context.Process(target=_as_a_command, args=(work, given, named)) for _ in range(1, count)]
    try:
        for rank, other in enumerate(others, 1):
            os.environ["RANK"] = str(rank)
            other.start()
        os.environ["RANK"] = "0"
        yield
    except BaseException:
        for other in others:
            if other.pid is not None:
                other.terminate()
        raise
    finally:
        os.environ.clear()
        os.environ.update(before)
        for other in others:
            if other.pid is not None:
                other.join()


def _as_a_command(work: Callable[..., object], given: tuple[object, ...], named: dict[str, object]) -> None:
    sys.exit(exits.exit_code(work, *given, **named))
