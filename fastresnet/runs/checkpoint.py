"""Checkpoints: written whole or not at all, read without running any code, and enough for an exact
continuation.

A checkpoint is a dict of tensors and plain values, so that `torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fastresnet import models
from fastresnet.base import files

FORMAT_VERSION = 1
REQUIRED = ("format_version", "model", "config", "class_names", "mean", "std", "image_size")


def save(path: str | Path, payload: dict[str, Any]) -> None:
    """Write `payload` and the format's version to `path`, whole or not at all."""
    with files.replacing(path) as temporary:
        torch.save({"format_version": FORMAT_VERSION, **payload}, temporary)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, only tensors and plain values.

    Raises ValueError where it is missing, damaged, foreign, of another format version, or wants to run code.
    """
    path = find(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles' protocols: they are refused anyway
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, it holds more than tensors and plain values (a pickle can run code): "
            "use a checkpoint that fastresnet wrote, or safetensors"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: damaged or no checkpoint at all ({reason})") from error
    if not isinstance(payload, dict) or not all(key in payload for key in REQUIRED):
        raise ValueError(
            f"{path}: not a checkpoint of fastresnet (it lacks {', '.join(_missing(payload))}); bare weights "
            "go to model.pretrained"
        )
    if payload["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {payload['format_version']}, this release reads {FORMAT_VERSION}"
        )
    return payload


def find(path: str | Path) -> Path:
    """The checkpoint file that `path` means: a file, or `checkpoints/last.pt` in a run's folder."""
    path = Path(path)
    if path.is_dir():
        inside = [path / "checkpoints" / "last.pt", path / "last.pt"]
        found = [candidate for candidate in inside if candidate.is_file()]
        if not found:
            raise ValueError(
                f"{path}: a folder without checkpoints/last.pt: name a run's folder or a .pt file"
            )
        return found[0]
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    return path


def load_model(path: str | Path, *, averaged: bool = True) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model in evaluation mode on the CPU, and the checkpoint's other fields.

    averaged: take the averaged (EMA, tail) weights where the run kept them, as its own evaluation did.
    Raises ValueError where the weights don't fit the model that the stored settings describe.
    """
    payload = load(path)
    settings = SimpleNamespace(**payload["config"]["model"])
    settings.pretrained = None
    model = models.build(settings, len(payload["class_names"]), payload["image_size"])
    weights = payload.get("averaged") if averaged else None
    load_weights(model, weights or payload["model"], str(path))
    return model.eval(), {
        key: value for key, value in payload.items() if key not in ("model", "averaged", "trainer")
    }


def load_weights(model: nn.Module, state: dict[str, Any], origin: str) -> None:
    """Strictly load a state dict. Raises ValueError naming the first keys that are missing, unknown or of
    another shape."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the model has {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    problems = (
        ([f"lacks {_few(missing)}"] if missing else [])
        + ([f"has unknown {_few(unknown)}"] if unknown else [])
        + shapes[:2]
    )
    if problems:
        raise ValueError(
            f"{origin}: weights of another model: {'; '.join(problems)} (check model.* and the class count)"
        )
    model.load_state_dict(state)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _missing(payload: Any) -> list[str]:
    return [key for key in REQUIRED if not isinstance(payload, dict) or key not in payload]
