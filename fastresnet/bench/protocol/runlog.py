"""The log of a record in the making: one JSON line a run, written at once, continued after an interruption.

Its first line says what is measured. A log that was begun with something else is refused, never mixed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastresnet.base import files

NAME = "runs.jsonl"
# What has to stay the same from the first run to the last, and how to say it.
FIXED = {
    "recipe": "the recipe",
    "config": "the settings",
    "commit": "the commit",
    "runs": "the number of runs",
    "target": "the target",
    "versus": "the rival's command",
    "machine": "the machine",
    "torch": "the version of PyTorch",
    "timed": "whether runs are timed",
}


class RunLog:
    """runs.jsonl in `folder`: opened or continued.

    header:  one value for each name in FIXED, plus anything worth keeping
    rows:    finished runs so far, each with "who" (own or rival) and "seed"
    Raises ValueError where the folder holds a finished record, or a log that was begun with other values.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        assert set(FIXED) <= set(header), "the header says everything that has to stay the same"
        self.path = folder / NAME
        if (folder / "record.json").exists():
            raise ValueError(f"{folder} holds a finished record: give another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        self.header = json.loads(json.dumps(header))  # as it will read back: tuples become lists
        self.rows: list[dict[str, Any]] = []
        if self.path.exists() and self.path.stat().st_size:
            self._continue()
        else:
            self._append({"kind": "begin", **self.header})

    def _continue(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        if not lines[-1].endswith("\n"):  # the machine went down in the middle of a line
            lines = lines[:-1]
            files.write_text(self.path, "".join(lines))
        rows = [_parsed(line, self.path, number) for number, line in enumerate(lines, 1)]
        if not rows:
            self._append({"kind": "begin", **self.header})
            return
        begun = rows[0]
        for name, words in FIXED.items():
            if begun.get(name) != self.header[name]:
                change = _difference(begun.get(name), self.header[name])
                raise ValueError(
                    f"{self.path} was begun with other values of {words}{change}: "
                    "finish it as it was begun, or give another folder with --out"
                )
        self.header = {key: value for key, value in begun.items() if key != "kind"}
        self.rows = rows[1:]

    def done(self, who: str, seed: int) -> bool:
        """Whether this run is in the log already."""
        return any(row["who"] == who and row["seed"] == seed for row in self.rows)

    def add(self, who: str, row: dict[str, Any]) -> None:
        """Keep a finished run, on the disk when this returns."""
        self.rows.append({"who": who, **row})
        self._append(self.rows[-1])

    def of(self, who: str) -> list[dict[str, Any]]:
        """The runs of one side, by seed, without "who"."""
        rows = sorted((row for row in self.rows if row["who"] == who), key=lambda row: row["seed"])
        return [{key: value for key, value in row.items() if key != "who"} for row in rows]

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def unfinished(folder: Path, suffix: str) -> Path | None:
    """The newest folder `*-<suffix>` in `folder` that holds a log and no record yet."""
    found = [path for path in sorted(folder.glob(f"*-{suffix}")) if (path / NAME).exists()]
    return next((path for path in reversed(found) if not (path / "record.json").exists()), None)


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: line {number} is no JSON ({error}): remove the folder to begin again"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(f"{path}: line {number} holds {row!r:.40} where a run should stand")
    return row


def _difference(old: Any, new: Any) -> str:
    """` (train.epochs 3 then, 4 now)`: the first difference, short enough for a line."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                inner = _difference(old.get(key), new.get(key))
                return f" ({key}.{inner[2:]}" if isinstance(new.get(key), dict) else f" ({key} {inner[2:]}"
    return f" ({str(old)[:40]} then, {str(new)[:40]} now)"
