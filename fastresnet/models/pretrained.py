"""Weights from elsewhere: torchvision's, the usual CIFAR state dicts, our own runs. Runs no code from a file.

Only tensors and plain containers are unpickled (`weights_only`); .safetensors needs the package of that name.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch
from torch import Tensor, nn

from fastresnet.base import digest
from fastresnet.models.layers import HEAD_SCALES, head, members
from fastresnet.models.resnet import LARGEST_CIFAR_STEM_PX
from fastresnet.settings import config
from fastresnet.settings.config import Config
from fastresnet.settings.keys import DEFAULT

# where others keep the weights in a checkpoint; of ours the averaged ones, if any, as its evaluation had them
WRAPPERS = ("state_dict", "model_state_dict", "averaged", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # left by DDP, torch.compile and Lightning
# of kuangliu/pytorch-cifar and its children
SYNONYMS = {"shortcut": "downsample", "linear": "fc", "classifier": "fc"}
LARGEST_PICKLE = 64 * 2**20  # bytes of names and plain values: 100,000 epochs take 40 MB
IN_A_RUN = ("checkpoints/last.pt", "last.pt")


@dataclass(frozen=True)
class Report:
    """What became of the names: the model's first, then what the file holds besides.

    loaded:         taken from the file
    other_classes:  left fresh, the last layer of a run on other classes
    other_shape:    left fresh, the file's has another shape
    missing:        left fresh, not in the file
    unused:         of the file
    """

    path: str
    loaded: tuple[str, ...]
    other_classes: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}: {len(self.loaded)} tensors loaded"]
        parts += [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in (
                (self.other_classes, "left fresh, for other classes"),
                (self.other_shape, "left fresh, their shape differs"),
                (self.missing, "left fresh, not in the file"),
                (self.unused, "of the file unused"),
            )
            if names
        ]
        return "; ".join(parts)


def like_the_run(cfg: Config, *, sized: bool = True) -> Config:
    """`cfg` with the network of the run that model.pretrained names, and its image size where `sized`.

    What somebody said stays; all does where the file holds bare weights, or another model.arch was said.
    Raises ConfigError where the run's network is code of its user's own, which nobody named here.
    """
    if cfg.model.pretrained is None or cfg.model.pretrained in cfg.provenance.values():  # taken before
        return cfg
    content: Any = _read(find(cfg.model.pretrained))
    theirs = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(theirs, Mapping) or "image_size" not in content:
        return cfg
    origin, size = str(cfg.model.pretrained), int(content["image_size"])
    stored = config.from_dict(theirs, origin=origin)
    said = {key for key, who in cfg.provenance.items() if who != DEFAULT}
    if "model.arch" in said and cfg.model.arch != stored.model.arch:
        return cfg
    config.check_named_code(stored, cfg.flat(), origin, ("model.arch",))
    found = _network(stored, size) | _rate_of_head(cfg, stored)
    found |= {"data.image_size": size} if sized else {}
    kept = said | {"model.pretrained", "model.freeze"}
    return cfg.replace({key: value for key, value in found.items() if key not in kept}, origin=origin)


def _network(stored: Config, image_size: int) -> dict[str, object]:
    """The section `model` of a run; a stem that followed from its image size stays what it was."""
    found = {key: value for key, value in stored.flat().items() if key.startswith("model.")}
    if stored.model.stem == "auto":
        found["model.stem"] = "cifar" if image_size <= LARGEST_CIFAR_STEM_PX else "imagenet"
    return found


def _rate_of_head(cfg: Config, stored: Config) -> dict[str, object]:
    """Adam's rate for a last layer whose logits are scaled: its steps are as long without the factor."""
    scale = stored.model.head_scale or HEAD_SCALES.get(stored.model.arch, 1.0)
    adam = cfg.optim.name in ("adam", "adamw")
    return {"optim.lr_head": cfg.optim.lr / scale} if adam and scale != 1 else {}


def load_into(model: nn.Module, path: str | Path, class_names: Sequence[str] = ()) -> Report:
    """Copy the weights in `path` into `model` wherever names (after the usual renamings) and shapes agree.

    path:         a file, or the folder of a run, whose last checkpoint is meant
    class_names:  what the model shall tell apart, where known: a run on others leaves the last layer fresh
    Raises ValueError for a file that is missing, unreadable, holds code or no weights, or fits nowhere.
    """
    path = find(path)
    content = _read(path)
    given, own = renamed(_state_dict(content, path)), model.state_dict()
    theirs = content.get("class_names", class_names)
    heads = _heads(model) if class_names and list(theirs) != list(class_names) else ()
    alike = [name for name, value in given.items() if name in own and own[name].shape == value.shape]
    fits = {name: given[name] for name in alike if name not in heads}
    report = Report(
        str(path),
        loaded=tuple(fits),
        other_classes=tuple(name for name in given if name in heads),
        other_shape=tuple(name for name in given if name in own and name not in (*alike, *heads)),
        missing=tuple(name for name in own if name not in given and not name.endswith("num_batches_tracked")),
        unused=tuple(name for name in given if name not in own),
    )
    if not any(name.endswith("weight") for name in fits):
        raise ValueError(
            f"model.pretrained: nothing fits this network ({report}): check model.arch, model.depth and "
            "model.members"
        )
    with torch.no_grad():
        for name, value in fits.items():
            own[name].copy_(value)
    return report


def _heads(model: nn.Module) -> tuple[str, ...]:
    """The names of the head's parameters, of each member."""
    found = [prefix + last[0] for prefix, net in members(model).items() if (last := head(net))]
    return tuple(f"{name}.{kind}" for name in found for kind in ("weight", "bias"))


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name in what a file holds."""
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


def _read(path: Path) -> Any:
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_pickle(path: Path) -> Any:
    """What a file holds; a run's checkpoint must bear its seal, others have none."""
    try:
        if digest.is_sealed(path):
            digest.verify(path)
        return read(path)
    except ValueError as error:
        raise ValueError(f"model.pretrained: {error}") from error


def read(path: Path) -> Any:
    """What a file holds, on the CPU: tensors and plain values alone. Raises ValueError, saying why."""
    try:
        bounded = _is_bounded(path)
        found = torch.load(path, map_location="cpu", weights_only=True) if bounded else None
    except Exception as error:  # whatever a forged archive makes torch raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        told = f"refused, it holds more than tensors and plain values, or none ({reason[:120]})"
        raise ValueError(f"{path}: {told}") from error
    if not bounded:
        raise ValueError(f"{path}: refused, it would unpack to more than it is large")
    return found


def _is_bounded(path: Path) -> bool:
    """Whether a file unpacks to no more than it is large."""
    if not zipfile.is_zipfile(path):
        return True  # `torch.load` says what is wrong
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    pickles = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    size = path.stat().st_size
    return not packed and sum(entry.file_size for entry in entries) <= size and pickles <= LARGEST_PICKLE


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
