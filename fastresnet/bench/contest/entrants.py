"""The loaders set against each other: ours, FFCV's, torchvision's, DALI's, each opened in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fastresnet.bench.contest.contestants import MEAN, SIZE, SPEC, STD, Batch, Contestant, Setting
from fastresnet.loading.resident import ResidentLoader

Epochs = Iterator[Iterator[Batch]]


def resident(kernel: str) -> Callable[[Setting], Epochs]:
    """The dataset on the device, augmented by `kernel`."""

    def epochs(setting: Setting) -> Epochs:
        loader = ResidentLoader(setting.images, setting.labels, replace(setting.batching(), kernel=kernel))
        return (loader.epoch(k) for k in range(10**9))

    return epochs


def stream(setting: Setting) -> Epochs:
    """Ours over FFCV's Loader."""
    from fastresnet.loading.stream import StreamLoader

    loader = StreamLoader(setting.path, setting.batching(), workers=setting.workers)
    return (loader.epoch(k) for k in range(10**9))


def torchvision(setting: Setting) -> Epochs:
    """DataLoader and v2 transforms."""
    from fastresnet.loading.torchvision_loader import TorchvisionLoader

    loader = TorchvisionLoader(setting.images, setting.labels, setting.batching(), workers=setting.workers)
    return (loader.epoch(k) for k in range(10**9))


def ffcv(setting: Setting) -> Epochs:
    """FFCV's Loader with its CIFAR example's pipeline, padding and cutout as in SPEC, right statistics."""
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


def dali(setting: Setting) -> Epochs:
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


def entrants(device: torch.device) -> list[Contestant]:
    """Everything that could run on such a device; ours first."""
    gpu = device.type == "cuda"
    kernels = (*(["triton"] if gpu else ["fused", "rows"]), "compiled", "reference")
    found = [Contestant(f"resident {name}", resident(name), True, True, on_device=gpu) for name in kernels]
    if gpu:
        at_once = Contestant("resident triton, an epoch at once", resident("triton"), True, True)
        at_once.at_once = at_once.on_device = True
        found.insert(1, at_once)
    return [
        *found,
        Contestant("stream", stream, True, True, "ffcv"),
        Contestant("ffcv", ffcv, False, False, "ffcv"),
        Contestant("torchvision", torchvision, True, False, "torchvision"),
        Contestant("dali", dali, False, False, "nvidia.dali"),
    ]
