"""The loaders set against each other: ours, FFCV's, torchvision's, DALI's, each opened in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch

from fastresnet.bench.contest.contestants import MEAN, SIZE, SPEC, STD, Batch, Contestant, Setting
from fastresnet.loading.resident import ResidentLoader

Epochs = Iterator[Iterator[Batch]]


class FfcvEpoch(Protocol):
    """What FFCV's EpochIterator is: a thread that makes batches."""

    def __iter__(self) -> Iterator[Batch]: ...
    def close(self) -> None: ...
    def join(self) -> None: ...


# mean and standard deviation in units of 0..255, and what fills what a crop or a cutout uncovers
IN_255 = tuple([255 * value for value in values] for values in (MEAN, STD))
FILL = tuple(round(255 * value) for value in MEAN)


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


def ffcv(setting: Setting, by_table: bool = False) -> Epochs:
    """FFCV's Loader with its CIFAR example's pipeline, padding and cutout as in SPEC, right statistics.

    by_table:  its own NormalizeImage in place of the example's torchvision on batches; on a CPU
    """
    from fastresnet.loading.stream import keeping_threads

    with keeping_threads():
        from ffcv.loader import Loader, OrderOption

        loader = Loader(
            str(setting.path),
            batch_size=setting.batch_size,
            num_workers=setting.workers,
            seed=0,
            order=OrderOption.RANDOM,
            drop_last=True,
            pipelines=_ffcv_pipelines(setting, by_table),
        )
    return (_ended(iter(loader)) for _ in range(10**9))


def _ended(epoch: FfcvEpoch) -> Iterator[Batch]:
    """An epoch of FFCV's whose threads end with it, also when it is left early."""
    try:
        yield from epoch
    finally:
        epoch.close()
        epoch.join()


def _ffcv_pipelines(setting: Setting, by_table: bool) -> dict[str, list[object]]:
    from ffcv import transforms as apply
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from torchvision.transforms import Normalize

    def to_device() -> list[object]:
        gpu = setting.device.type == "cuda"
        return [apply.ToDevice(setting.device, non_blocking=True)] if gpu else []

    augmented = [
        SimpleRGBImageDecoder(),
        apply.RandomHorizontalFlip(),
        apply.RandomTranslate(SPEC.crop_padding_px, FILL),
        apply.Cutout(SPEC.cutout_px, FILL),
    ]
    tensors = [apply.ToTensor(), *to_device(), apply.ToTorchImage()]
    if by_table:
        mean, std = map(np.array, IN_255)
        table = apply.NormalizeImage(mean, std, torch.empty(0, dtype=setting.dtype).numpy().dtype)
        image = [*augmented, table, *tensors]
    else:
        image = [*augmented, *tensors, apply.Convert(setting.dtype), Normalize(*IN_255)]
    return {"image": image, "label": [IntDecoder(), apply.ToTensor(), *to_device(), apply.Squeeze(1)]}


def dali(setting: Setting) -> Epochs:
    """NVIDIA DALI from the arrays in memory, its augmentations on the device."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    gpu = setting.device.type == "cuda"

    @pipeline_def(batch_size=setting.batch_size, num_threads=setting.workers, device_id=0 if gpu else None)
    def pipeline() -> tuple[object, object]:
        images, labels = fn.external_source(_dali_samples(setting), num_outputs=2, layout=["HWC", ""])
        if gpu:
            images, labels = images.gpu(), labels.gpu()
        return _dali_augmented(images, setting), labels

    iterator = DALIGenericIterator(pipeline(), ["images", "labels"], size=-1, auto_reset=True)
    batches = ((batch[0]["images"], batch[0]["labels"].view(-1)) for batch in iterator)
    return iter([batches])


def _dali_samples(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    whole = len(setting.labels) // setting.batch_size * setting.batch_size
    while True:
        for rows in random.permutation(len(setting.labels))[:whole].reshape(-1, setting.batch_size):
            yield setting.images[rows], setting.labels[rows, None]


def _dali_augmented(images: object, setting: Setting) -> object:
    from nvidia.dali import fn, types

    pad, uniform = SPEC.crop_padding_px, fn.random.uniform
    padded = fn.paste(images, ratio=(SIZE + 2 * pad) / SIZE, fill_value=list(FILL))
    place = {"crop_pos_x": uniform(range=(0, 1)), "crop_pos_y": uniform(range=(0, 1))}
    cut = fn.erase(
        fn.crop(padded, crop=(SIZE, SIZE), **place),
        anchor=uniform(range=(0, SIZE - pad), shape=(2,)),
        shape=[SPEC.cutout_px] * 2,
        axis_names="HW",
        fill_value=list(FILL),
    )
    mean, std = IN_255
    precise = types.FLOAT if setting.dtype == torch.float32 else types.FLOAT16
    flip = fn.random.coin_flip()
    return fn.crop_mirror_normalize(cut, mirror=flip, mean=mean, std=std, dtype=precise, output_layout="CHW")


def entrants(device: torch.device) -> list[Contestant]:
    """Everything that could run on such a device; ours first."""
    gpu = device.type == "cuda"
    kernels = (*(["triton"] if gpu else ["fused", "rows"]), "compiled", "reference")
    found = [Contestant(f"resident {name}", resident(name), True, True, on_device=gpu) for name in kernels]
    if gpu:
        at_once = Contestant("resident triton, an epoch at once", resident("triton"), True, True)
        at_once.at_once = at_once.on_device = True
        found.insert(1, at_once)
    by_table = Contestant("ffcv by its table", partial(ffcv, by_table=True), False, False, "ffcv")
    return [
        *found,
        Contestant("stream", stream, True, True, "ffcv"),
        Contestant("ffcv", ffcv, False, False, "ffcv"),
        *([] if gpu else [by_table]),
        Contestant("torchvision", torchvision, True, False, "torchvision"),
        Contestant("dali", dali, False, False, "nvidia.dali"),
    ]
