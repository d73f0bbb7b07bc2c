"""The loaders that benchmarks/loader.py sets against each other: ours, FFCV's, torchvision's, DALI's.

Each is opened from the same images, augmentation (crop with mean padding, mirror, cutout), batch and dtype.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastresnet.augment import Augment
from fastresnet.base import statistics
from fastresnet.loading import Batching
from fastresnet.loading.resident import ResidentLoader
from fastresnet.machine import timing

SPEC = Augment(crop_padding_px=4, crop_mode="mean", flip="random", cutout_px=8)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SIZE = 32  # px, and 8 grey levels a row and column tell where a pixel came from
SAMPLE_SECONDS = 0.25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


@dataclass
class Contestant:
    """One loader: `epochs` opens it and yields one iterator of batches an epoch, for ever."""

    name: str
    epochs: Callable[[Setting], Iterator[Iterator[tuple[Tensor, Tensor]]]]
    exact: bool  # takes our choices: its batches must equal the resident loader's
    ours: bool
    samples: list[float] = field(default_factory=list)  # images/s
    first_batch: float | None = None
    cpu_use: float | None = None  # cores busy
    per_cpu_second: float | None = None  # images: what a busy machine changes least
    memory_mib: float | None = None
    problem: str | None = None
    _batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def start(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """Open, take the first batch and note what that took."""
        before = memory_bytes(setting.device)
        began = timing.now(setting.device)
        opened = self.epochs(setting)
        self._batches = (batch for epoch in opened for batch in epoch)
        batch = next(self._batches)
        self.first_batch = timing.now(setting.device) - began
        self.memory_mib = (memory_bytes(setting.device) - before) / 2**20
        return batch

    def take(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The next `count` batches, copied."""
        assert self._batches is not None
        return [(x.clone(), y.clone()) for x, y in (next(self._batches) for _ in range(count))]

    def measure(self, setting: Setting, seconds: float) -> None:
        """Samples of images a second for about `seconds`."""
        assert self._batches is not None
        cpu, began, end, total = cpu_seconds(), timing.now(setting.device), time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            start, images = timing.now(setting.device), 0
            while time.perf_counter() - start < SAMPLE_SECONDS:
                for _ in range(8 if setting.device.type == "cuda" else 1):
                    images += len(next(self._batches)[1])
            self.samples.append(images / (timing.now(setting.device) - start))
            total += images
        used = cpu_seconds() - cpu
        self.cpu_use, self.per_cpu_second = used / (timing.now(setting.device) - began), total / used

    def row(self) -> dict[str, Any]:
        """What was measured, for the table and the file."""
        quantiles = statistics.quantiles(self.samples) if self.samples else None
        return dict(
            name=self.name,
            ours=self.ours,
            status=self.problem or "ok",
            images_per_second=quantiles,
            first_batch_seconds=self.first_batch,
            host_cpu_cores=self.cpu_use,
            images_per_cpu_second=self.per_cpu_second,
            memory_mib=self.memory_mib,
            samples=[round(value, 1) for value in self.samples],
        )


def resident(kernel: str) -> Callable[[Setting], Iterator[Any]]:
    """The dataset on the device, augmented by `kernel`."""

    def epochs(setting: Setting) -> Iterator[Any]:
        loader = ResidentLoader(setting.images, setting.labels, replace(setting.batching(), kernel=kernel))
        return (loader.epoch(k) for k in range(10**9))

    return epochs


def stream(setting: Setting) -> Iterator[Any]:
    """Ours over FFCV's Loader."""
    from fastresnet.loading.stream import StreamLoader

    loader = StreamLoader(setting.path, setting.batching(), workers=setting.workers)
    return (loader.epoch(k) for k in range(10**9))


def torchvision(setting: Setting) -> Iterator[Any]:
    """DataLoader and v2 transforms."""
    from fastresnet.loading.torchvision_loader import TorchvisionLoader

    loader = TorchvisionLoader(setting.images, setting.labels, setting.batching(), workers=setting.workers)
    return (loader.epoch(k) for k in range(10**9))


def ffcv(setting: Setting) -> Iterator[Any]:
    """FFCV's Loader with the pipeline of its CIFAR example, padding and cutout as in SPEC, right
    statistics."""
    from fastresnet.loading.stream import keeping_threads

    with keeping_threads():
        from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import (
            Convert,
            Cutout,
            RandomHorizontalFlip,
            RandomTranslate,
            Squeeze,
            ToDevice,
            ToTensor,
            ToTorchImage,
        )
    from torchvision.transforms import Normalize

    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    fill = tuple(round(value) for value in mean)
    to_device = [ToDevice(setting.device, non_blocking=True)] if setting.device.type == "cuda" else []
    image = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(),
        RandomTranslate(SPEC.crop_padding_px, fill),
        Cutout(SPEC.cutout_px, fill),
        ToTensor(),
        *to_device,
        ToTorchImage(),
        Convert(setting.dtype),
        Normalize(mean, std),
    ]
    label = [IntDecoder(), ToTensor(), *to_device, Squeeze(1)]
    with keeping_threads():
        loader = Loader(
            str(setting.path),
            batch_size=setting.batch_size,
            num_workers=setting.workers,
            seed=0,
            order=OrderOption.RANDOM,
            drop_last=True,
            pipelines={"image": image, "label": label},
        )
    return (iter(loader) for _ in range(10**9))


def dali(setting: Setting) -> Iterator[Any]:
    """NVIDIA DALI from the arrays in memory, its augmentations on the device."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    place = "gpu" if setting.device.type == "cuda" else "cpu"
    random = np.random.default_rng(0)

    def samples() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            for rows in random.permutation(len(setting.labels)).reshape(-1, setting.batch_size):
                yield setting.images[rows], setting.labels[rows, None]

    @pipeline_def(
        batch_size=setting.batch_size, num_threads=setting.workers, device_id=0 if place == "gpu" else None
    )
    def pipeline() -> Any:
        images, labels = fn.external_source(samples, num_outputs=2, layout=["HWC", ""])
        if place == "gpu":
            images, labels = images.gpu(), labels.gpu()
        reach, pad = SIZE + 2 * SPEC.crop_padding_px, SPEC.crop_padding_px
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        padded = fn.paste(images, ratio=reach / SIZE, fill_value=[round(value) for value in mean])
        cut = fn.erase(
            fn.crop(
                padded,
                crop=(SIZE, SIZE),
                crop_pos_x=fn.random.uniform(range=(0, 1)),
                crop_pos_y=fn.random.uniform(range=(0, 1)),
            ),
            anchor=fn.random.uniform(range=(0, SIZE - pad), shape=(2,)),
            shape=[SPEC.cutout_px] * 2,
            axis_names="HW",
            fill_value=[round(value) for value in mean],
        )
        precise = types.FLOAT if setting.dtype == torch.float32 else types.FLOAT16
        done = fn.crop_mirror_normalize(
            cut, mirror=fn.random.coin_flip(), mean=mean, std=std, dtype=precise, output_layout="CHW"
        )
        return done, labels

    iterator = DALIGenericIterator(pipeline(), ["images", "labels"], size=-1, auto_reset=True)
    batches = ((batch[0]["images"], batch[0]["labels"].view(-1)) for batch in iterator)
    return iter([batches])


def contestants(device: torch.device) -> list[Contestant]:
    """Everything that could run on such a device; ours first."""
    kernels = ["triton"] if device.type == "cuda" else ["fused", "rows"]
    found = [
        Contestant(f"resident {name}", resident(name), True, True)
        for name in (*kernels, "compiled", "reference")
    ]
    return [
        *found,
        Contestant("stream", stream, True, True),
        Contestant("ffcv", ffcv, False, False),
        Contestant("torchvision", torchvision, True, False),
        Contestant("dali", dali, False, False),
    ]


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
