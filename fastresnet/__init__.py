"""fastresnet: ResNets on CIFAR-10, trained fast and measured fairly.

    import fastresnet as fr
    run = fr.train("cpu.yaml", {"train.epochs": 1})

Importing the package touches no device, prints nothing and needs neither ffcv nor torchvision: names are
loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

_HOMES = {
    "train": "runs.start",
    "train_series": "series.running",
    "Series": "series.running",
    "Run": "runs.session",
    "load_config": "settings.config",
    "Config": "settings.config",
    "load_model": "runs.checkpoint",
    "Callback": "runs.callbacks",
    "EarlyStopping": "runs.callbacks",
    "build_model": "models",
}  # public name -> the module it lives in
_NAMES_THERE = {"load_config": "load", "build_model": "build"}

__all__ = [
    "Callback",
    "Config",
    "EarlyStopping",
    "Run",
    "Series",
    "__version__",
    "build_model",
    "load_config",
    "load_model",
    "train",
    "train_series",
]

if TYPE_CHECKING:
    from fastresnet.models import build as build_model
    from fastresnet.runs.callbacks import Callback, EarlyStopping
    from fastresnet.runs.checkpoint import load_model
    from fastresnet.runs.start import Run, train
    from fastresnet.series.running import Series, train_series
    from fastresnet.settings.config import Config
    from fastresnet.settings.config import load as load_config


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fastresnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastresnet.{_HOMES[name]}"), _NAMES_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
