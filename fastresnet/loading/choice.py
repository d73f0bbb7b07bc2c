"""Which loader serves a split: resident where the set fits on the device, else streamed. Makes no batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fastresnet import augment
from fastresnet.base import words
from fastresnet.data import Split, Splits
from fastresnet.loading.interface import Batching, Loader
from fastresnet.loading.resident import ResidentLoader
from fastresnet.machine import distributed, memory
from fastresnet.machine.distributed import World
from fastresnet.settings import Config
from fastresnet.settings.sections import Data

RESIDENT_SHARE = 0.6  # of the free memory that a resident set may take: the network needs some too


@dataclass(frozen=True)
class Loaders:
    """The loaders of a run: `evaluation` holds test, and val where there is one; `name` is training's."""

    train: Loader
    evaluation: dict[str, Loader]
    name: str

    def warm_up(self) -> None:
        """Compile all that their epochs need; see `Loader.warm_up`."""
        for one in (self.train, *self.evaluation.values()):
            one.warm_up()

    def close(self) -> None:
        """Let go of their memory, files and threads."""
        for one in (self.train, *self.evaluation.values()):
            one.close()


def build(
    cfg: Config,
    splits: Splits,
    *,
    device: torch.device,
    dtype: torch.dtype,
    place: World = distributed.ALONE,
    resolution: Callable[[int], int | None] = lambda step: None,
    notes: Callable[[str], None] = lambda line: None,
) -> Loaders:
    """The loaders that the settings describe, over these splits.

    dtype:       of the images of a batch
    resolution:  step of the run -> height and width in px, None as stored
    notes:       called with one line for each choice made on the user's behalf
    Raises ValueError where a split can't be served so.
    """
    testing = Batching(
        cfg.eval.batch_size,
        splits.mean,
        splits.std,
        device,
        dtype,
        channels_last=cfg.train.channels_last,
        kernel=cfg.data.kernel,
    )
    training = replace(_training(cfg, testing, place), resolution=resolution, classes=len(splits.class_names))
    px = cfg.data.image_size or splits.train.image_shape[0]
    batch_bytes = cfg.train.batch_size * 3 * px**2 * dtype.itemsize
    name, reason = choose(cfg.data, splits.train, device, batch_bytes)
    if name == "torchvision" and cfg.train.epoch_share < 1:
        raise ValueError(
            "train.epoch_share needs a loader that can leave images out: data.loader=torchvision can't"
        )
    notes(f"loader {name} ({reason})")
    loader = open_loader(name, cfg.data, splits.train, training)
    notes(f"augmentation by the {loader.kernel} kernel ({loader.kernel_reason})")
    evaluation = {}
    for split, part in (("val", splits.val), ("test", splits.test)):
        if part is not None:
            own, _ = choose(cfg.data, part, device, batch_bytes)
            evaluation[split] = open_loader(own, cfg.data, part, testing, _piece(len(part), place))
    return Loaders(loader, evaluation, name)


def _training(cfg: Config, testing: Batching, place: World) -> Batching:
    """What the section `train` changes for training."""
    train = cfg.train
    return replace(
        testing,
        batch_size=distributed.local_batch_size(train.batch_size, place),
        augment=augment.from_settings(train),
        shuffle=True,
        drop_last=train.drop_last,
        share=train.epoch_share,
        seed=cfg.run.seed,
        sizes=(None, *(int(px) for _, px in train.resolutions or ())),
        rank=place.rank,
        world_size=place.size,
    )


def choose(settings: Data, split: Split, device: torch.device, batch_bytes: int) -> tuple[str, str]:
    """The loader that data.loader means for this split: resident, ffcv or torchvision, and why, in words.

    settings:     the section `data`
    batch_bytes:  of one finished batch; two of them must fit beside a resident set
    Raises ValueError where the split can't be served so.
    """
    px = settings.image_size
    if split.images is None:
        if settings.loader not in ("auto", "ffcv"):
            raise ValueError(
                f"data.loader={settings.loader} holds the whole set in memory, and {split.path} is too "
                f"large, or cut to data.image_size ({words.size(split.nbytes)}): use data.loader=ffcv"
            )
        why = "its images are too many, of several sizes or cut to data.image_size"
        return "ffcv", f"{split.path} is streamed: {why}"
    if px and split.image_shape != (px, px):
        height, width = split.image_shape
        raise ValueError(
            f"data.image_size={px} cuts images that are streamed from a beton, and these are in memory, "
            f"{width}x{height} px: convert (scripts/convert.py) or take them as stored (data.image_size=0)"
        )
    name: str = settings.loader
    reason = "asked for"
    if name == "auto":
        name, reason = _by_size(split.nbytes + 2 * batch_bytes, device)
    if name == "ffcv" and split.path is None:
        raise ValueError(
            f"data.loader=ffcv streams from a beton, and this set has none ({reason}): "
            "convert it with scripts/convert.py and give data.train and data.test"
        )
    return name, reason


def _by_size(needed: int, device: torch.device) -> tuple[str, str]:
    free = memory.free_bytes(device)
    sizes = f"{words.size(needed)} with two batches, {words.size(free)} free on {device.type}"
    if needed <= RESIDENT_SHARE * free:
        return "resident", f"the set fits on the device: {sizes}"
    return "ffcv", f"the set doesn't fit on the device beside the network: {sizes}; streaming from the beton"


def open_loader(
    name: str, settings: Data, split: Split, asked: Batching, piece: slice = slice(None)
) -> Loader:
    """The loader `name` over a split, or over a consecutive piece of it (evaluation by several processes)."""
    if name == "ffcv":
        from fastresnet.loading.stream import StreamLoader

        assert split.path is not None
        indices = np.arange(len(split)) if split.indices is None else split.indices
        return StreamLoader(
            split.path,
            asked,
            indices=indices[piece],
            label_field=settings.label_field,
            order=settings.order,
            workers=settings.workers,
            image_size=settings.image_size,
            on_error=settings.on_error,
        )
    assert split.images is not None
    images, labels = split.images[piece], split.labels[piece]
    if name == "torchvision":
        from fastresnet.loading.torchvision_loader import TorchvisionLoader

        return TorchvisionLoader(images, labels, asked, workers=settings.workers)
    return ResidentLoader(images, labels, asked)


def _piece(count: int, place: World) -> slice:
    """This process's consecutive piece of a set that all evaluate together."""
    return slice(count * place.rank // place.size, count * (place.rank + 1) // place.size)
