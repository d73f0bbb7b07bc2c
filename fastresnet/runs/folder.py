"""A run's folder: settings, metrics, checkpoints, result. Each file is whole or absent; nothing of an
earlier run is lost.

config.yaml  metrics.jsonl  metrics.csv  result.json  predictions.npz  checkpoints/{last,best}.pt  plots/
report.html
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from fastresnet.base import files
from fastresnet.runs import checkpoint
from fastresnet.settings.config import Config

STARTED = ("metrics.jsonl", "result.json", "checkpoints/last.pt")  # one of these: a run got somewhere
COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "images_per_second",
)


class RunFolder:
    """Writes one run's files under `path`, which exists and is writable after construction.

    Raises ValueError where the folder can't be written, or holds another run and `continued` is false.
    """

    def __init__(self, path: Path, *, continued: bool = False) -> None:
        self.path = path
        if not continued and any((path / name).exists() for name in STARTED):
            raise ValueError(
                f"run.dir={path} already holds a run: name another folder, or continue it with "
                f"--run.resume={path}"
            )
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ValueError(f"run.dir={path}: can't be written ({error.strerror})") from error

    @classmethod
    def fresh(cls, cfg: Config) -> RunFolder:
        """`run.dir`, or a new `runs/<recipe>/<time>-s<seed>`."""
        if cfg.run.dir:
            return cls(Path(cfg.run.dir))
        parent = Path("runs") / cfg.recipe
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-s{cfg.run.seed}"
        taken = (parent / name).exists()
        return cls(parent / (f"{name}-{os.getpid()}" if taken else name))

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """metrics.jsonl and metrics.csv from all rows so far: a resumed run leaves no row twice."""
        files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(self.path / "metrics.csv", table.getvalue())

    def write_predictions(
        self, logits_NK: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """The last weights' logits and labels of the test set and its class names, for pictures that are
        drawn later without the data."""
        target = self.path / "predictions.npz"
        with files.replacing(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                logits=logits_NK.astype(np.float32),
                labels=labels_N,
                class_names=np.array(class_names, dtype=str),
            )

    def save_checkpoint(self, name: str, payload: dict[str, Any]) -> Path:
        """checkpoints/<name>.pt; returns where."""
        path = self.path / "checkpoints" / f"{name}.pt"
        checkpoint.save(path, payload)
        return path
