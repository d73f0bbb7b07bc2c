"""Checkpoints: written whole or not at all, sealed by a checksum, read without running any code.

A checkpoint is a dict of tensors and plain values as `torch.save` writes it, a zip archive, whose comment
holds the SHA-256 of all bytes before it. `torch.load(weights_only=True)` of any program reads it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zipfile
from collections.abc import Mapping
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastresnet import models
from fastresnet.base import files, words
from fastresnet.machine import memory
from fastresnet.runs import record
from fastresnet.settings import config

FORMAT_VERSION = 2
SEAL = b"fastresnet checkpoint, SHA-256 of all before: "
SEAL_BYTES = len(SEAL) + 64
TENSORS = ("model", "averaged", "trainer")  # what the schema of a checkpoint doesn't describe
LARGEST_PICKLE = 64 * 2**20  # bytes of names and plain values: 100,000 epochs take 40 MB
CHUNK = 2**20
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
        _seal(temporary)
        _verify(temporary)


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment ends an archive that has none yet
        file.write(struct.pack("<H", SEAL_BYTES))
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.write(SEAL + _digest(path, size))


def _digest(path: Path, size: int) -> bytes:
    """SHA-256, as 64 hexadecimal digits, of the first `size` bytes as the file holds them now."""
    hashed, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            hashed.update(chunk)
            left -= len(chunk)
    return hashed.hexdigest().encode()


def _verify(path: Path) -> None:
    """Raises ValueError unless the file carries its seal and the seal fits."""
    size = path.stat().st_size - SEAL_BYTES
    with path.open("rb") as file:
        file.seek(max(size, 0))
        seal = file.read(SEAL_BYTES)
    if not seal.startswith(SEAL):
        raise ValueError(
            f"{path}: damaged, or not a checkpoint of this release: it doesn't end with the seal of one "
            "(bare weights go to model.pretrained)"
        )
    if seal != SEAL + _digest(path, size):
        raise ValueError(f"{path}: damaged, its bytes don't fit its seal: take another checkpoint of the run")


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, only tensors and plain values.

    Raises ValueError where it is missing, damaged, foreign, of another format version, larger than the free
    memory, or wants to run code.
    """
    path = find(path)
    size, free = path.stat().st_size, memory.free_bytes()
    if size > free:
        raise ValueError(f"{path}: takes {words.size(size)} of memory, {words.size(free)} are free here")
    try:
        _verify(path)  # first: what is damaged is called so, whatever a zip archive makes of it
        _bound(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except ValueError:
        raise
    except Exception as error:  # whatever a forged archive makes torch raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: refused, it holds more than tensors and plain values, or none ({reason})"
        ) from error
    _check(payload, path)
    return payload


def _bound(path: Path) -> None:
    """Raises ValueError where a sealed file would unpack to more than it is large."""
    if not zipfile.is_zipfile(path):
        return  # `torch.load` says what is wrong
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    pickles = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    size = path.stat().st_size
    if packed or sum(entry.file_size for entry in entries) > size or pickles > LARGEST_PICKLE:
        raise ValueError(f"{path}: refused, it would unpack to more than it is large")


def _check(payload: object, path: Path) -> None:
    """Raises ValueError unless everything in a checkpoint is of the kind that it should be."""
    if not isinstance(payload, dict):
        raise ValueError(f"{path}: not a checkpoint of fastresnet, it holds one {type(payload).__name__}")
    version = payload.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {version}, this release reads {FORMAT_VERSION}")
    problems = record.problems({k: v for k, v in payload.items() if k not in TENSORS}, "checkpoint")
    for key in ("model", "averaged") if payload.get("averaged") is not None else ("model",):
        if not _are_weights(payload.get(key)):
            problems.append(f"{key} must hold tensors by name")
    if problems:
        raise ValueError(f"{path}: not a checkpoint of fastresnet ({problems[0]})")


def _are_weights(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


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
