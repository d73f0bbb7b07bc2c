"""A run's folder: settings, metrics, checkpoints, result. Each file is whole or absent; one run writes.

config.yaml  metrics.jsonl  metrics.csv  result.json  predictions.npz  report.html
checkpoints/{last,best}.pt  plots/
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from pathlib import Path
from typing import cast

import numpy as np

from fastresnet.base import files, words
from fastresnet.reports import plots, run_page
from fastresnet.reports.finished import Predictions, Result, Row
from fastresnet.runs import record
from fastresnet.settings.config import Config

SPARE = 16 * 2**20  # bytes of the disk that pictures leave to the record and the checkpoints
LAST = Path("checkpoints", "last.pt")
COLUMNS = tuple(Row.__annotations__)


class State(Enum):
    """How far the run in a folder got."""

    NEW = "no run, or one that was stopped before its first checkpoint: it begins anew"
    STOPPED = "a checkpoint and no result: it can go on"
    FINISHED = "a result"


def state(path: Path) -> State:
    """The state of the folder at `path`, which need not exist."""
    if (path / "result.json").exists():
        return State.FINISHED
    return State.STOPPED if (path / LAST).exists() else State.NEW


def of_checkpoint(file: Path) -> Path | None:
    """The run's folder that a checkpoint file lies in; None for one that lies elsewhere."""
    folder = file.parent.parent
    return folder if file.parent.name == LAST.parent.name and (folder / "config.yaml").is_file() else None


def free(recipe: str, ending: str) -> Path:
    """A folder of this second that isn't there yet: `runs/<recipe>/<time>-<ending>`."""
    path = Path("runs", recipe, f"{time.strftime('%Y%m%d-%H%M%S')}-{ending}")
    return path.with_name(f"{path.name}-{os.getpid()}") if path.exists() else path


class RunFolder:
    """Writes one run's files under `path`, alone until `close` or the end of the process.

    complain:  called with one line about a file that couldn't be written and isn't vital
    Raises ValueError where the folder can't be written, where another process is at work in it, or where it
    holds a run in none of the states of `allowed`.
    """

    def __init__(
        self,
        path: Path,
        *,
        allowed: Collection[State] = (State.NEW,),
        complain: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path, self.complain, self._lock = path, complain, contextlib.ExitStack()
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(files.locked(path, self._taken))
            files.write_bytes(path / ".writable", b"").unlink()
            files.remove_left(path, depth=1)  # of a run that was killed
        except OSError as error:
            self.close()
            raise ValueError(f"run.dir={path}: can't be written ({error.strerror})") from error
        if state(path) not in allowed:
            self.close()
            raise ValueError(
                f"run.dir={path} already holds a run: name another folder, or continue it with "
                f"--run.resume={path}"
            )

    def _taken(self) -> None:
        raise ValueError(f"run.dir={self.path}: another run is at work in it, name another folder")

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    @classmethod
    def of(cls, cfg: Config, going_on: Path | None, complain: Callable[[str], None]) -> RunFolder:
        """The folder of the run that goes on; else `run.dir`, or a new `runs/<recipe>/<time>-s<seed>`."""
        if going_on is not None:
            # by the same command goes on what was stopped: since it was looked at, another may have ended it
            allowed = State if cfg.run.resume else (State.NEW, State.STOPPED)
            return cls(going_on, allowed=allowed, complain=complain)
        if cfg.run.dir:
            return cls(Path(cfg.run.dir), complain=complain)
        files.remove_left(Path("runs", cfg.recipe), depth=3)  # of killed runs that nobody went on with
        path = free(cfg.recipe, f"s{cfg.run.seed}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another process took it in this instant
            path = path.with_name(f"{path.name}-{os.getpid()}")
        return cls(path, complain=complain)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """metrics.jsonl and metrics.csv from all rows so far: a resumed run leaves no row twice."""
        self.attempt("metrics", lambda: self._write_rows(rows))

    def _write_rows(self, rows: Sequence[Row]) -> None:
        files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(self.path / "metrics.csv", table.getvalue())

    def finished(self, steps: int) -> Result | None:
        """The record of a run of so many steps that this folder has already; an older one is taken away."""
        path = self.path / "result.json"
        stored = cast(Result, record.read(path, "result")) if path.is_file() else None
        if stored is not None and stored["steps"] != steps:
            path.unlink()  # the run goes on: until its end there is no result
            return None
        return stored

    def write_result(self, result: Result, answers: Predictions, *, report: bool) -> None:
        """The files of a finished run; result.json, which makes it one, after what pictures are made from."""
        curves, spare = self.path / "plots" / "curves.png", SPARE + answers.logits.nbytes
        self.attempt("predictions.npz", lambda: self._write_predictions(answers), spare)
        if report:
            self.attempt("plots", lambda: plots.curves(result["per_epoch"], curves), SPARE)
        try:
            record.write(self.path / "result.json", result)
        except OSError as error:
            raise RuntimeError(
                f"{self.path}: result.json not written ({error.strerror or error}): "
                "the same command goes on from the last checkpoint and writes it"
            ) from error
        if report:
            self.attempt("report.html", lambda: run_page.write(self.path, answers), SPARE)

    def attempt(self, name: str, write: Callable[[], object], spare: int = 0) -> None:
        """Write a file the run can do without: neither a full disk nor a lost beton ends it, and is said.

        spare:  bytes that must be free, or it isn't begun: it would take them from what matters more
        """
        try:
            if (free := shutil.disk_usage(self.path).free) < spare:
                raise OSError(f"{words.size(free)} left on the disk")
            write()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.complain(f"{name} not written ({reason}); the run goes on without it")

    def _write_predictions(self, answers: Predictions) -> None:
        """Logits, labels and names of the classes of the test set, for pictures drawn later without it."""
        names = np.array(answers.class_names, dtype=str)
        with files.replacing(self.path / "predictions.npz") as temporary, temporary.open("wb") as file:
            logits = answers.logits.astype(np.float32)
            np.savez_compressed(file, logits=logits, labels=answers.labels, class_names=names)

    def way_on(self) -> str:
        """What continues the run from what is kept of it, in words."""
        if self.checkpoint("last").exists():
            return f"continue with --run.resume={self.path}"
        return "nothing was kept (too early, run.save_checkpoints=false, or a full disk)"

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint `name` (last, best) lies."""
        return self.path / "checkpoints" / f"{name}.pt"
