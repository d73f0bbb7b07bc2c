"""What takes part in a contest: loaders, on images, augmentation, batch and dtype that all share."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from fastresnet.augment import Augment
from fastresnet.base.statistics import Quantiles, quantiles
from fastresnet.bench.measuring.queued import sample_queued
from fastresnet.loading import Batching
from fastresnet.machine import timing

SPEC = Augment(crop_padding_px=4, crop_mode="mean", flip="random", cutout_px=8)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# px, and 8 grey levels a row and column tell where a pixel came from
SIZE = 32
SAMPLE_SECONDS = 0.25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """What all contestants share."""

    images: np.ndarray
    labels: np.ndarray
    path: Path
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    workers: int

    def batching(self) -> Batching:
        """For our own loaders."""
        return Batching(
            self.batch_size, MEAN, STD, self.device, self.dtype, augment=SPEC, shuffle=True, drop_last=True
        )


class Row(TypedDict):
    """What was measured of a contestant; figures are None where it could not run, and `status` says why.

    host_cpu_cores:         busy while it was timed
    images_per_cpu_second:  what a busy machine changes least
    samples:                images/s
    """

    name: str
    ours: bool
    status: str
    batch_size: int | None
    images_per_second: Quantiles | None
    first_batch_seconds: float | None
    host_cpu_cores: float | None
    images_per_cpu_second: float | None
    memory_mib: float | None
    samples: list[float]


@dataclass
class Contestant:
    """One loader.

    epochs:     opens it and yields one iterator of batches an epoch, for ever
    exact:      takes our choices: its batches must equal the resident loader's
    package:    that it needs
    at_once:    an epoch is one batch
    on_device:  timed on a GPU alone: it needs the host for launches only, and in training the host runs ahead
    """

    name: str
    epochs: Callable[[Setting], Iterator[Iterator[Batch]]]
    exact: bool
    ours: bool
    package: str | None = None
    at_once: bool = False
    on_device: bool = False
    _batches: Generator[Batch, None, None] | None = None
    # images, processor seconds and seconds, of all rounds
    _made: int = 0
    _used: float = 0.0
    _took: float = 0.0

    def __post_init__(self) -> None:
        unknown = dict.fromkeys(Row.__annotations__)
        known = {"name": self.name, "ours": self.ours, "status": "ok", "samples": []}
        self.row = cast(Row, unknown | known)

    def start(self, setting: Setting) -> Batch:
        """Open, take the first batch and note what that took, compiling included."""
        before = memory_bytes(setting.device)
        began = timing.now(setting.device)
        opened = self.epochs(setting)
        self._batches = (batch for epoch in opened for batch in epoch)
        batch = next(self._batches)
        self.row["first_batch_seconds"] = timing.now(setting.device) - began
        self.row["memory_mib"] = (memory_bytes(setting.device) - before) / 2**20
        self.row["batch_size"] = setting.batch_size
        return batch

    def take(self, count: int) -> list[Batch]:
        """The next `count` batches, copied."""
        assert self._batches is not None
        return [(x.clone(), y.clone()) for x, y in (next(self._batches) for _ in range(count))]

    def measure(self, setting: Setting, seconds: float) -> None:
        """Samples of images a second for about `seconds` more."""
        cpu, began = cpu_seconds(), timing.now(setting.device)
        total = self._on_device(setting, seconds) if self.on_device else 0
        self._made += total or self._by_the_clock(setting, seconds)
        self._used += cpu_seconds() - cpu
        self._took += timing.now(setting.device) - began
        self.row["host_cpu_cores"] = self._used / self._took
        self.row["images_per_cpu_second"] = self._made / self._used
        self.row["images_per_second"] = quantiles(self.row["samples"])

    def _on_device(self, setting: Setting, seconds: float) -> int:
        """Images made; 0 where the host can't run ahead."""
        made = 0

        def call() -> None:
            nonlocal made
            assert self._batches is not None
            made += len(next(self._batches)[1])

        found = sample_queued(call, setting.device, seconds)
        self.row["samples"] += [round(setting.batch_size / took, 1) for took in found]
        return made if found else 0

    def _by_the_clock(self, setting: Setting, seconds: float) -> int:
        assert self._batches is not None
        total, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start, images = timing.now(setting.device), 0
            while time.perf_counter() - start < SAMPLE_SECONDS:
                for _ in range(8 if setting.device.type == "cuda" else 1):
                    images += len(next(self._batches)[1])
            self.row["samples"].append(round(images / (timing.now(setting.device) - start), 1))
            total += images
        return total

    def close(self) -> None:
        """End the epoch that is being made, and its threads."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def cpu_seconds() -> float:
    """Processor time of this process and its children, ended or alive."""
    ended, ticks = os.times(), 0
    for child in multiprocessing.active_children():
        try:
            parts = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            ticks += int(parts[11]) + int(parts[12])
        except (OSError, IndexError):
            continue  # it ended in between, or there is no /proc
    return (
        time.process_time() + ended.children_user + ended.children_system + ticks / os.sysconf("SC_CLK_TCK")
    )


def memory_bytes(device: torch.device) -> int:
    """Memory in use now: allocated on a GPU, resident in this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0
