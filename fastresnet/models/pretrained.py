"""Weights from elsewhere: torchvision's, the usual CIFAR state dicts, our own runs. Runs no code from a file.

Only tensors and plain containers are unpickled (`weights_only`); .safetensors needs the package of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import torch
from torch import Tensor, nn

# where others keep the weights in a checkpoint; of ours the averaged ones, if any, as its evaluation had them
WRAPPERS = ("state_dict", "model_state_dict", "averaged", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # left by DDP, torch.compile and Lightning
# of kuangliu/pytorch-cifar and its children
SYNONYMS = {"shortcut": "downsample", "linear": "fc", "classifier": "fc"}
IN_A_RUN = ("checkpoints/last.pt", "last.pt")


@dataclass(frozen=True)
class Report:
    """What became of the names: the model's first, then what the file holds besides.

    loaded:       taken from the file
    other_shape:  left fresh, the file's has another shape
    missing:      left fresh, not in the file
    unused:       of the file
    """

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

    path:  a file, or the folder of a run, whose last checkpoint is meant
    Raises ValueError for a file that is missing, unreadable, holds code or no weights, or fits nowhere.
    """
    path = find(path)
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
    path = find(path)
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


def find(path: str | Path) -> Path:
    """The file that model.pretrained means: itself, or the last checkpoint in a run's folder."""
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in IN_A_RUN if (path / name).is_file()]
        if not found:
            raise ValueError(f"model.pretrained: {path}: a folder without {IN_A_RUN[0]}, so no run's")
        return found[0]
    if not path.is_file():
        raise ValueError(f"model.pretrained: {path}: no such file")
    return path


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under torchvision's names: prefixes cut off, `shortcut` and `linear` translated."""
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
