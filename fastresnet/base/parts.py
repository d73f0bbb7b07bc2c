"""The parts that a setting chooses by name, and where each lives: adding one is a file and a line here.

Refuses to import a part before it is chosen, so that settings load without torch.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

Places = Mapping[str, str]  # name -> "module:attribute"
Given = TypeVar("Given")

MODELS: Places = {
    "resnet": "fastresnet.models.resnet:from_settings",
    "speednet": "fastresnet.models.speednet:from_settings",
    "resnet9": "fastresnet.models.resnet9:from_settings",
    "resnet9_ffcv": "fastresnet.models.resnet9:ffcv_from_settings",
}  # (section `model`, classes, image size in px) -> Network
OPTIMIZERS: Places = {
    "sgd": "fastresnet.optim.optimizers:sgd",
    "adam": "fastresnet.optim.optimizers:adam",
    "adamw": "fastresnet.optim.optimizers:adamw",
    "muon": "fastresnet.optim.optimizers:muon",
}  # (parameter groups, section `optim`, Run) -> torch optimizers that step together
SCHEDULES: Places = {
    "onecycle": "fastresnet.optim.schedule:onecycle",
    "cosine": "fastresnet.optim.schedule:cosine",
    "linear": "fastresnet.optim.schedule:linear",
    "piecewise": "fastresnet.optim.schedule:piecewise",
    "constant": "fastresnet.optim.schedule:constant",
}  # (section `schedule`, total steps, steps an epoch) -> a step's share of the peak rate

SOURCES: Places = {
    "torchvision": "fastresnet.sources.downloads:SOURCE",
    "parquet": "fastresnet.sources.parquet:SOURCE",
    "batches": "fastresnet.sources.batches:SOURCE",
    "imagefolder": "fastresnet.sources.folders:SOURCE",
    "synthetic": "fastresnet.sources.synthetic:SOURCE",
}  # sources.request.Source; those that read folders in the order in which they are asked
LOGGERS: Places = {
    "tensorboard": "fastresnet.runs.loggers:TensorBoard",
    "wandb": "fastresnet.runs.loggers:WeightsAndBiases",
}  # (the run's folder, Config) -> runs.loggers.Logger

# A part of the user's own, in a file of the user's own.
ELSEWHERE = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


def names(places: Places) -> str:
    """The names, as a setting's `choices`."""
    return " ".join(places)


def pattern(places: Places) -> str:
    """What a setting may say: one of the names, or `module:attribute` of the user's own."""
    return "|".join([*places, ELSEWHERE])


def find(places: Places, key: str, name: str) -> object:
    """The part that setting `key` calls `name`, imported now. ValueError where it isn't there."""
    place = places.get(name, name if ":" in name else "")
    module, _, attribute = place.partition(":")
    if not module:
        raise ValueError(f"{key} must be one of {', '.join(places)}, got {name!r}")
    if name not in places and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where the user's own file lies
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if name in places or error.name is None or not module.startswith(error.name):
            raise
        raise ValueError(f"{key}={name}: there is no module {error.name} here or on PYTHONPATH") from None
    except AttributeError:
        if name in places:
            raise
        raise ValueError(f"{key}={name}: the module {module} has no {attribute}") from None


def called(what: str, part: Callable[..., Given], *arguments: object) -> Given:
    """What a part of the user's own gives. ValueError, a line that begins with `what`, where it fails."""
    try:
        return part(*arguments)
    except Exception as error:
        told = next(iter(str(error).splitlines()), "")
        raise ValueError(f"{what}: {type(error).__name__}: {told}") from error
