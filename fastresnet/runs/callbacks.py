"""What a caller may do while a run goes on: look, and stop it early. Refuses to change what is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fastresnet.reports.finished import Result, Row
from fastresnet.training.trainer import Trainer

HOOKS = ("on_run_begin", "on_step_end", "on_epoch_end", "on_run_end")


class Callback:
    """Override what is wanted. A hook that returns True ends the run there, as if it were whole.

    Called in every process of several; `folder` and `record` are None in all but the first. True from one of
    them ends the run in all, after the next step but one.
    A hook that takes longer than run.hang_after allows is taken for hung.
    """

    def on_run_begin(self, folder: Path | None) -> None:
        """Before the first step; the folder exists."""

    def on_step_end(self, trainer: Trainer) -> bool | None:
        """After each step; `trainer.steps_done` counts it. Reading a tensor here makes the host wait."""

    def on_epoch_end(self, row: Row) -> bool | None:
        """After each epoch; `row` is its entry in the record's per_epoch."""

    def on_run_end(self, record: Result | None) -> None:
        """After the record was written."""


class EarlyStopping(Callback):
    """Stop when `figure`, a column of per_epoch, hasn't improved by `least` for `patience` of its values.

    Falling is better for names that end in `loss`, rising for all others.
    """

    def __init__(self, figure: str = "val_accuracy", patience: int = 3, least: float = 0.0) -> None:
        if not isinstance(patience, int) or patience < 1 or least < 0:
            raise ValueError(f"early stopping needs patience >= 1 and least >= 0, got {patience} and {least}")
        if figure not in Row.__annotations__:
            there = ", ".join(Row.__annotations__)
            raise ValueError(f"early stopping: per_epoch has no {figure!r}; it has {there}")
        self.figure, self.patience, self.least = figure, patience, least
        self.best: float | None = None
        self.waited = 0

    def check(self, splits: Collection[str]) -> None:
        """Raises ValueError where nothing measures the figure; `splits` are evaluated between epochs."""
        split = self.figure.partition("_")[0]
        if split in ("val", "test") and split not in splits:
            wanted = "eval.every above 0" + (" and data.val_fraction, say 0.1" if split == "val" else "")
            raise ValueError(f"early stopping: no epoch measures {self.figure}: that needs {wanted}")

    def on_run_begin(self, folder: Path | None) -> None:
        self.best, self.waited = None, 0  # of several runs in a row each waits anew

    def on_epoch_end(self, row: Row) -> bool | None:
        value: Any = row[self.figure]  # type: ignore[literal-required]
        if value is None:
            return None
        better = -1.0 if self.figure.endswith("loss") else 1.0
        self.waited += 1
        if self.best is None or better * (float(value) - self.best) > self.least:
            self.best, self.waited = float(value), 0
        return self.waited >= self.patience


class Callbacks:
    """Several as one; `ending` is whether one of them asked for the end when they were called last."""

    def __init__(self, parts: Sequence[Callback] = ()) -> None:
        if not isinstance(parts, (list, tuple)):
            raise ValueError(f"callbacks must be a list, got {type(parts).__name__}")
        for part in parts:
            if isinstance(part, type):
                raise ValueError(f"callbacks: {part.__name__} is a class, hand in {part.__name__}()")
            if not any(callable(getattr(part, hook, None)) for hook in HOOKS):
                raise ValueError(f"a callback has {', '.join(HOOKS)}; {type(part).__name__} has none of them")
        self.parts, self.ending = list(parts), False

    def call(self, hook: str, *arguments: object) -> bool:
        """Whether one of them asks for the end; all are called."""
        hooks = [getattr(part, hook, None) for part in self.parts]
        self.ending = any([each(*arguments) is True for each in hooks if each is not None])
        return self.ending
