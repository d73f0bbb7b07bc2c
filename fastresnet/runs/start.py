"""Train from settings, or go on from a checkpoint: `train` is what scripts, notebooks and `fastresnet.train`
call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence, cast

import torch

from fastresnet.machine.devices import choose_device
from fastresnet.runs import checkpoint
from fastresnet.settings import config
from fastresnet.machine import distributed, timing
from fastresnet.training import experiment
from fastresnet.settings.config import Config
from fastresnet.base.interrupt import Interrupted
from fastresnet.runs.progress import Progress
from fastresnet.runs.session import Run, Session

__all__ = ["Interrupted", "Run", "train"]

DEFAULT_RECIPE = "rn18.yaml"
# What may differ between a checkpoint and the run that continues it: nothing here changes what is learned.
FREE_ON_RESUME = (
    "run.dir",
    "run.resume",
    "run.device",
    "run.threads",
    "run.progress",
    "run.loggers",
    "run.report",
    "run.save_checkpoints",
    "eval.",
    "train.max_steps",
    "train.compile",
    "train.cuda_graph",
    "data.source",
    "data.root",
    "data.train",
    "data.test",
    "data.betons",
    "data.workers",
    "data.kernel",
    "data.allow_synthetic",
)


def train(
    settings: str | Path | Config = DEFAULT_RECIPE,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    progress: Progress | None = None,
) -> Run:
    """Train as `settings` say and return the finished Run.

    settings:   name of a recipe, path of a YAML file, or a Config
    overrides:  {"train.epochs": 1}, stands above the recipe; beside a name or path also ["--train.epochs=1"]
    Raises ValueError for input that can't work, trainer.Diverged when the loss stops being a number,
    Interrupted on Ctrl-C.
    """
    began = timing.now(torch.device("cpu"))
    cfg = settings if isinstance(settings, Config) else config.load(settings, overrides)
    if cfg is settings and overrides:
        cfg = cfg.replace(dict(cast(Mapping[str, Any], overrides)), origin=config.COMMAND_LINE)
    payload = checkpoint.load(cfg.run.resume) if cfg.run.resume else None
    if payload is not None:
        cfg = _continued(cfg, payload)
    device_type = choose_device(cfg.run.device).type
    with distributed.world(device_type) as place:
        progress = progress or Progress(
            cfg.run.progress if place.is_main else "off", peek=device_type == "cpu"
        )
        return Session(cfg, place, progress, payload, began).run()


def _continued(cfg: Config, payload: dict[str, Any]) -> Config:
    """The checkpoint's settings with those of `cfg` that are free to differ. Raises ValueError for the
    others."""
    stored = config.from_dict(payload["config"], recipe=payload["recipe"], origin=str(cfg.run.resume))
    if cfg.recipe not in (stored.recipe, Path(DEFAULT_RECIPE).stem):
        raise ValueError(
            f"--config {cfg.recipe} can't continue a run of {stored.recipe}: leave --config out when resuming"
        )
    asked = {key: value for key, value in cfg.flat().items() if cfg.provenance[key] == config.COMMAND_LINE}
    old = stored.flat()
    for key, value in asked.items():
        if value != old[key] and not key.startswith(FREE_ON_RESUME):
            raise ValueError(
                f"{key}={value} differs from {old[key]} in {cfg.run.resume}: a resumed run keeps the "
                "settings it began with (start a new run to change them)"
            )
    kept = {key: value for key, value in asked.items() if key.startswith(FREE_ON_RESUME)}
    if "run.dir" not in kept:
        kept["run.dir"] = str(checkpoint.find(cfg.run.resume).parent.parent)
    return stored.replace({"train.max_steps": 0, **kept})
