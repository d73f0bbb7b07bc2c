"""Weights from elsewhere: torchvision's, the usual CIFAR state dicts, our own checkpoints. Runs no code from
a file.

Only tensors and plain containers are unpickled (`weights_only`); .safetensors needs the package of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import torch
from torch import Tensor, nn

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "averaged",
)  # where others keep the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # left by DDP, torch.compile and Lightning
SYNONYMS = {
    "shortcut": "downsample",
    "linear": "fc",
    "classifier": "fc",
}  # kuangliu/pytorch-cifar and its children


@dataclass(frozen=True)
class Report:
    """Names of the model's tensors: taken from the file, there with another shape, not there; and the file's
    own rest."""

    path: str
    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}: {len(self.loaded)} tensors loaded"]
        parts += [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in (
                (self.other_shape, "left fresh, their shape differs"),
                (self.missing, "left fresh, not in the file"),
                (self.unused, "of the file unused"),
            )
            if names
        ]
        return "; ".join(parts)


def load_into(model: nn.Module, path: str | Path) -> Report:
    """Copy the weights in `path` into `model` wherever names (after the usual renamings) and shapes agree.

    Raises ValueError for a file that is missing, unreadable, holds code or no weights, or fits nowhere.
    """
    given = renamed(read_state_dict(path))
    own = model.state_dict()
    fits = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    report = Report(
        str(path),
        loaded=tuple(fits),
        other_shape=tuple(name for name in given if name in own and name not in fits),
        missing=tuple(name for name in own if name not in given and not name.endswith("num_batches_tracked")),
        unused=tuple(name for name in given if name not in own),
    )
    if not any(name.endswith("weight") for name in fits):
        raise ValueError(
            f"model.pretrained: nothing fits this network ({report}): check model.arch and model.depth"
        )
    with torch.no_grad():
        for name, value in fits.items():
            own[name].copy_(value)
    return report


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name in a .pt, .pth or .safetensors file. Raises ValueError as `load_into` does."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"model.pretrained: {path}: no such file")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(f"model.pretrained: {path}: no state dict in it (tensors by name were expected)")
    return tensors


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under torchvision's names: wrappers' prefixes cut off, `shortcut` and `linear`
    translated."""
    result = {}
    for name, value in state.items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        result[".".join(SYNONYMS.get(part, part) for part in name.split("."))] = value
    return result


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file provokes in the unpickler
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"model.pretrained: {path}: holds more than weights, or is broken, and isn't read, "
            f"as it could run code ({why[:120]})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(
            f"model.pretrained: {path}: needs the package safetensors (pip install safetensors)"
        ) from None
    try:
        return load_file(path)
    except Exception as error:  # its own error class, or the operating system's
        raise ValueError(f"model.pretrained: {path}: no readable safetensors file ({error})") from error
