"""Which parts of a network take our operations, as train.cpu_kernels says."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Protocol, cast

import torch
from torch import nn

from fastresnet.cpu.convolution import obstacle
from fastresnet.machine.precision import Precision, resolve
from fastresnet.settings.sections import Train


class Taking(Protocol):
    """A module that can take our operations where they fit; `tiles`: and Winograd's method."""

    own_kernels: bool
    tiles: bool


def choose(model: nn.Module, train: Train, device: torch.device, compile: str) -> None:
    """Let the parts of `model` that know our operations take them where they fit.

    compile:  torch.compile's mode, or off
    Raises ValueError where train.cpu_kernels asks for them and they can't be had.
    """
    parts = _parts(model)
    why = _obstacle(train, device, compile) or ("" if parts else "this network has no place for them")
    if train.cpu_kernels == "on" and why:
        raise ValueError(f"train.cpu_kernels=on: {why}; auto takes them where they fit")
    taken = train.cpu_kernels != "off" and not why
    tiles = taken and train.cpu_kernels != "exact" and _measured(resolve(train.precision, device))
    for part in parts:
        part.own_kernels, part.tiles = taken, tiles


def warm_up(model: nn.Module, sizes: Iterable[tuple[int, int]], precision: Precision) -> None:
    """Compile what `model` takes of ours: a copy of it learns from two images of each of these (h,w)."""
    if any(part.own_kernels for part in _parts(model)):
        copied, device = copy.deepcopy(model).train(), torch.device("cpu")
        for size in sizes:
            images = torch.zeros(2, 3, *size, dtype=precision.compute)
            with precision.autocast(device):
                copied(images.contiguous(memory_format=torch.channels_last)).float().sum().backward()


def left_out(model: nn.Module, train: Train) -> str:
    """What a run says where a CPU could take them, and something that it needs isn't there; or nothing."""
    could = train.cpu_kernels == "auto" and bool(_parts(model))
    missing = _missing() if could and next(model.parameters()).device.type == "cpu" else ""
    return f"train.cpu_kernels=auto takes PyTorch's own: ours {missing}" if missing else ""


def _parts(model: nn.Module) -> list[Taking]:
    return [cast(Taking, part) for part in model.modules() if hasattr(part, "own_kernels")]


def _measured(precision: Precision) -> bool:
    """Whether Winograd's method is known to be the faster one here."""
    return precision.compute == torch.float32 or not obstacle()


def _obstacle(train: Train, device: torch.device, compile: str) -> str:
    """What stands against all of them, or nothing."""
    if device.type != "cpu":
        return f"this run is on {device.type}, and they are for a CPU"
    if compile != "off":
        return f"train.compile={compile} makes its own"
    if not train.channels_last:
        return "they need train.channels_last=true"
    return f"they {missing}" if (missing := _missing()) else ""


def _missing() -> str:
    if not importlib.util.find_spec("numba"):
        return "need numba, which isn't installed"
    threads = importlib.import_module("fastresnet.cpu.threads")
    return "" if threads.available() else "need OpenMP's threads, and PyTorch's here are others"
