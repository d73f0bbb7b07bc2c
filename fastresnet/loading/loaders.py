"""Which loader serves a split: resident where the set fits on the device, else streamed from its beton."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastresnet.base import words
from fastresnet.data import Split
from fastresnet.loading import resident
from fastresnet.loading.resident import Loader, ResidentLoader
from fastresnet.machine.distributed import World


def choose(settings: Any, split: Split, device: torch.device, batch_bytes: int) -> tuple[str, str]:
    """The loader that data.loader means for this split, and why.

    settings:     the section `data`
    batch_bytes:  of one finished batch
    Raises ValueError where the split can't be served so.
    """
    if split.images is None:
        if settings.loader not in ("auto", "ffcv"):
            raise ValueError(
                f"data.loader={settings.loader} holds the whole set in memory, and {split.path} is too "
                f"large or has images of several sizes ({words.size(split.nbytes)}): use data.loader=ffcv"
            )
        return "ffcv", f"{split.path} is streamed: its images are too many or differ in size"
    name, reason = resident.choose(settings.loader, split.nbytes, device, batch_bytes)
    if name == "ffcv" and split.path is None:
        raise ValueError(
            f"data.loader=ffcv streams from a beton, and this set has none ({reason}): "
            "convert it with scripts/convert.py and give data.train and data.test"
        )
    return name, reason


def make(name: str, settings: Any, split: Split, *, place: World, sharded: bool, **keywords: Any) -> Loader:
    """The loader `name` over a split.

    sharded:   each global batch is divided over the processes (training); otherwise this process gets its own
               consecutive piece of the set (evaluation by all of them together)
    keywords:  what every loader takes: batch_size, device, dtype, augment, mean, std, shuffle, seed and so on
    """
    piece = slice(0, len(split)) if sharded else _piece(len(split), place)
    if sharded:
        keywords |= {"rank": place.rank, "world_size": place.size}
    if name == "ffcv":
        from fastresnet.loading.stream import StreamLoader

        assert split.path is not None
        indices = np.arange(len(split)) if split.indices is None else split.indices
        more = {key: getattr(settings, key) for key in ("order", "workers", "image_size", "on_error")}
        return StreamLoader(split.path, indices=indices[piece], **more, **keywords)
    assert split.images is not None
    if name == "torchvision":
        from fastresnet.loading.torchvision_loader import TorchvisionLoader

        return TorchvisionLoader(
            split.images[piece], split.labels[piece], workers=settings.workers, **keywords
        )
    return ResidentLoader(split.images[piece], split.labels[piece], **keywords)


def _piece(count: int, place: World) -> slice:
    return slice(count * place.rank // place.size, count * (place.rank + 1) // place.size)
