"""Decoded batches brought to the device, on a GPU while the one before is in use. Augments nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoded:
    """A batch before augmentation: uint8 (B,H,W,3), int64 (B,), and the rows of good images, int64 (k,)."""

    images: Tensor
    labels: Tensor
    rows: np.ndarray

    def rows_on(self, device: torch.device) -> Tensor:
        """The rows to keep as an index; where all are, nothing is copied from the host."""
        if len(self.rows) == len(self.labels):
            return torch.arange(len(self.labels), device=device)
        return torch.from_numpy(self.rows).to(device)


def uploaded(batches: Iterator[Decoded], device: torch.device) -> Iterator[Decoded]:
    """The same on the device; on a GPU the next is copied, on a stream of its own, while one is in use."""
    if device.type != "cuda":
        yield from batches
        return
    stream, waiting = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            images, labels = (
                x.pin_memory().to(device, non_blocking=True) for x in (batch.images, batch.labels)
            )
            copied = torch.cuda.Event()
            copied.record(stream)
        if waiting is not None:
            yield _received(*waiting, device)
        waiting = (replace(batch, images=images, labels=labels), copied)
    if waiting is not None:
        yield _received(*waiting, device)


def _received(batch: Decoded, copied: torch.cuda.Event, device: torch.device) -> Decoded:
    here = torch.cuda.current_stream(device)
    here.wait_event(copied)
    for tensor in (batch.images, batch.labels):
        tensor.record_stream(here)
    return batch
