"""Where a run's figures go besides metrics.jsonl and metrics.csv: TensorBoard, wandb. Not in a step.

A logger has two calls: `epoch(row)` after each epoch, `close(record)` once at the end (None: the run failed).
TensorBoard and wandb are imported only when they are asked for.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from fastresnet.base import parts
from fastresnet.settings.config import Config


class Logger(Protocol):
    def epoch(self, row: Mapping[str, Any]) -> None:
        """`row` is one entry of the record's per_epoch: plain numbers by name, null where not measured."""

    def close(self, record: Mapping[str, Any] | None) -> None:
        """Write what is left. `record` is the run's result, or None where it has none."""


PACKAGES = ("tensorboard", "wandb")  # that loggers of the same name need
Opener = Callable[[Path, Config], Logger]


def check(names: Sequence[str]) -> None:
    """Raises ValueError where a logger that `run.loggers` names isn't there, or its package."""
    for name in names:
        parts.find(parts.LOGGERS, "run.loggers", name)
        if name in PACKAGES and importlib.util.find_spec(name) is None:
            raise ValueError(f"run.loggers={name} needs the package {name}: pip install {name}")


def open_all(names: Sequence[str], run_dir: str | Path, cfg: Config) -> list[Logger]:
    """The loggers that `run.loggers` names, opened. Raises ValueError as `check` does."""
    check(names)
    kinds = [cast(Opener, parts.find(parts.LOGGERS, "run.loggers", name)) for name in names]
    return [kind(Path(run_dir), cfg) for kind in kinds]


class TensorBoard:
    """Scalars under <run>/tensorboard; look at them with `tensorboard --logdir runs`."""

    def __init__(self, run_dir: Path, cfg: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))
        settings = "\n".join(f"    {key}: {value}" for key, value in cfg.flat().items())
        self.writer.add_text("settings", settings)

    def epoch(self, row: Mapping[str, Any]) -> None:
        for key, value in _numbers(row).items():
            self.writer.add_scalar(_grouped(key), value, global_step=int(row["step"]))

    def close(self, record: Mapping[str, Any] | None) -> None:
        if record is not None and record["accuracy"].get("test") is not None:
            self.writer.add_scalar("final/test_accuracy", record["accuracy"]["test"])
        self.writer.close()


class WeightsAndBiases:
    """A wandb run under <run>/wandb, offline without WANDB_API_KEY or WANDB_MODE: `wandb sync` sends it."""

    def __init__(self, run_dir: Path, cfg: Config) -> None:
        import wandb

        mode: Any = None if {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ) else "offline"
        self.run = wandb.init(
            project="fastresnet",
            name=run_dir.name,
            dir=str(run_dir),
            config=cfg.flat(),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.run.log({_grouped(key): value for key, value in _numbers(row).items()}, step=int(row["step"]))

    def close(self, record: Mapping[str, Any] | None) -> None:
        if record is not None:
            self.run.summary.update(
                {f"final/{key}": value for key, value in _numbers(record["accuracy"]).items()}
            )
        self.run.finish(exit_code=0 if record is not None else 1)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if isinstance(value, (int, float))}


def _grouped(key: str) -> str:
    """train_loss -> loss/train, so that a chart shows training and test together."""
    split, _, rest = key.partition("_")
    return f"{rest}/{split}" if split in ("train", "val", "test") and rest else f"run/{key}"
