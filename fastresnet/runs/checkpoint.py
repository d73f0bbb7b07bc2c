"""Checkpoints: written whole or not at all, sealed by a checksum, read without running any code.

A checkpoint is a dict of tensors and plain values as `torch.save` writes it, a zip archive, whose comment
holds the SHA-256 of all bytes before it. `torch.load(weights_only=True)` of any program reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastresnet import models
from fastresnet.base import digest, files, sinks, words
from fastresnet.machine import memory
from fastresnet.models import pretrained
from fastresnet.runs import record
from fastresnet.settings import config

FORMAT_VERSION = 2
TENSORS = ("model", "averaged", "trainer")  # what the schema of a checkpoint doesn't describe
Weights = dict[str, Tensor]


def save(path: str | Path, payload: Mapping[str, object]) -> None:
    """Write and seal `payload`, read it back, and only then let it take the place of `path`.

    Raises OSError where the disk is full or can't be written, ValueError where it gives back something else.
    """
    with files.replacing(path) as temporary:
        try:
            torch.save({"format_version": FORMAT_VERSION, **payload}, temporary)
        except RuntimeError as error:  # PyTorch's writer doesn't say why
            free = words.size(shutil.disk_usage(temporary.parent).free)
            raise OSError(EIO, f"PyTorch can't write it, the disk has {free} left", str(path)) from error
        digest.seal(temporary)
        digest.verify(temporary)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, only tensors and plain values.

    Raises ValueError where it is missing, damaged, foreign, of another format version, larger than the free
    memory, or wants to run code.
    """
    path = find(path)
    size, free = path.stat().st_size, memory.free_bytes()
    if size > free:
        raise ValueError(f"{path}: takes {words.size(size)} of memory, {words.size(free)} are free here")
    digest.verify(path)  # first: what is damaged is called so, whatever a zip archive makes of it
    payload = pretrained.read(path)
    _check(payload, path)
    told = {key: sinks.harmless(payload[key]) for key in ("class_names", "data") if key in payload}
    return {**payload, **told}


def _check(payload: object, path: Path) -> None:
    """Raises ValueError unless everything in a checkpoint is of the kind that it should be."""
    if not isinstance(payload, dict):
        raise ValueError(f"{path}: not a checkpoint of fastresnet, it holds one {type(payload).__name__}")
    version = payload.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {version}, this release reads {FORMAT_VERSION}")
    try:
        problems = record.problems({k: v for k, v in payload.items() if k not in TENSORS}, "checkpoint")
    except RecursionError:
        problems = ["it is nested too deeply to be read"]
    for key in ("model", "averaged") if payload.get("averaged") is not None else ("model",):
        if not _are_weights(payload.get(key), path.stat().st_size):
            problems.append(f"{key} must hold tensors by name, no larger than the file")
    if problems:
        raise ValueError(f"{path}: not a checkpoint of fastresnet ({problems[0]})")


def _are_weights(value: object, most: int) -> bool:
    """Whether it is tensors by name, plain ones, that together take no more bytes than `most`."""
    if not isinstance(value, dict) or not all(map(_is_plain, value.values())):
        return False
    size = sum(item.numel() * item.element_size() for item in value.values())
    return size <= most and all(isinstance(key, str) for key in value)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor whose numbers are in memory: none that is sparse, nested, quantised or empty."""
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized:
        return False
    return value.layout is torch.strided and value.device.type == "cpu"


def find(path: str | Path) -> Path:
    """The checkpoint file that `path` means: a file, or `checkpoints/last.pt` in a run's folder."""
    path = Path(path)
    if path.is_dir():
        inside = [path / "checkpoints" / "last.pt", path / "last.pt"]
        found = [candidate for candidate in inside if candidate.is_file()]
        if not found:
            raise ValueError(
                f"{path}: a folder without checkpoints/last.pt: name a run's folder or a .pt file "
                "(stopped before its first checkpoint, a run begins anew by the same command)"
            )
        return found[0]
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    return path


def load_model(
    path: str | Path, *, averaged: bool = True, model: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model in evaluation mode on the CPU, and the checkpoint's other fields.

    averaged:  take the averaged (EMA, tail) weights where the run kept them, as its own evaluation did
    model:     the caller's own network, which the run was trained with: a checkpoint never names code to run
    Raises ValueError where the weights don't fit the model that the stored settings describe.
    """
    payload = load(path)
    stored = config.from_dict(payload["config"], recipe=payload.get("recipe", "defaults"), origin=str(path))
    settings = stored.replace({"model.pretrained": None}).model
    weights = (payload.get("averaged") if averaged else None) or payload["model"]
    if model is None:
        if ":" in settings.arch:
            raise ValueError(
                f"{path}: was trained with a network of its user's own ({settings.arch}), which no "
                "checkpoint may import: build it and give it as load_model(path, model=...)"
            )
        shape = (len(payload["class_names"]), payload["image_size"])
        # in no memory: settings that ask for more than the file holds are refused
        with torch.device("meta"):
            compare(models.build(settings, *shape), weights, str(path))
        model = models.build(settings, *shape)
    load_weights(model, weights, str(path))
    return model.eval(), {key: value for key, value in payload.items() if key not in TENSORS}


def load_weights(model: nn.Module, state: Weights, origin: str) -> None:
    """Strictly load a state dict. Raises ValueError as `compare` does."""
    compare(model, state, origin)
    model.load_state_dict(state)


def compare(model: nn.Module, state: Weights, origin: str) -> None:
    """Raises ValueError naming the first tensors that are missing, unknown, or of another shape or kind."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    unlike = [
        f"{key} is {_kind(state[key])}, the model has {_kind(value)}"
        for key, value in own.items()
        if key in state and _kind(state[key]) != _kind(value)
    ]
    problems = [f"lacks {_few(missing)}"] * bool(missing) + [f"has unknown {_few(unknown)}"] * bool(unknown)
    if problems or unlike:
        told = "; ".join(problems + unlike[:2])
        raise ValueError(f"{origin}: weights of another model: {told} (check model.* and the class count)")


def _kind(tensor: Tensor) -> str:
    return f"{str(tuple(tensor.shape))}{'' if tensor.is_floating_point() else ' of integers'}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
