"""The log of a record in the making: one JSON line a run, written at once, continued after an interruption.

Its first line says what is measured. A log that was begun with something else is refused, never mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from fastresnet.base import files
from fastresnet.series.rows import Row

NAME, RECORD, DIRTY = "runs.jsonl", "record.json", "measured-dirty.json"
# What has to stay the same from the first run to the last, and how to say it.
FIXED = {
    "recipe": "the recipe",
    "config": "the settings",
    "commit": "the commit",
    "dirty": "whether code is uncommitted",
    "runs": "the number of runs",
    "target": "the target",
    "versus": "the rivals' commands",
    "turns": "how often rivals run",
    "machine": "the machine",
    "torch": "the version of PyTorch",
    "timed": "whether runs are timed",
}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """In the block this process alone logs into the folder. Raises ValueError where another one does."""

    def taken() -> None:
        raise ValueError(f"{folder}: another process logs its runs there: give another folder with --out")

    with files.locked(folder, taken):
        yield


class RunLog:
    """The log in `folder`: opened or continued.

    header:  one value for each name in `fixed`, plus anything worth keeping
    fixed:   what has to stay the same, and how to say it
    Raises ValueError where the folder holds a finished record, or a log that was begun with other values.
    """

    def __init__(
        self, folder: Path, header: dict[str, Any], *, fixed: Mapping[str, str] = FIXED, name: str = NAME
    ) -> None:
        assert set(fixed) <= set(header), "the header says everything that has to stay the same"
        self.path = folder / name
        if finished(folder):
            raise ValueError(f"{folder} holds a finished record: give another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        self.header = _as_read(header)
        self.rows: list[tuple[str, Row]] = []
        lines = _whole_lines(self.path)
        if len(lines) < 2:  # no run yet: nothing that could be mixed
            files.write_text(self.path, "")
            self._append({"kind": "begin", **self.header})
            return
        self._refuse(difference(self.path, header, fixed))
        files.write_text(self.path, "".join(lines))
        begun, *rows = (_parsed(line, self.path, number) for number, line in enumerate(lines, 1))
        self.header = {key: value for key, value in begun.items() if key != "kind"}
        odd = [number for number, row in enumerate(rows, 2) if not {"who", "seed", "status"} <= row.keys()]
        if odd:
            raise ValueError(f"{self.path}: line {odd[0]} is no run's: remove the folder to begin again")
        self.rows = [(row.pop("who"), cast(Row, row)) for row in rows]

    def _refuse(self, change: str | None) -> None:
        if change is not None:
            raise ValueError(
                f"{self.path} was begun with other values of {change}: "
                "finish it as it was begun, or give another folder with --out"
            )

    def hold_to(self, name: str, value: dict[str, Any], words: str) -> None:
        """One more value that has to stay the same. ValueError: the log was begun with another."""
        if name in self.header:
            begun = self.header[name]
            self._refuse(words + _change(begun, value) if begun != value else None)
            return
        self.header[name] = value
        rows = [{"who": who, **row} for who, row in self.rows]
        lines = [json.dumps(each, ensure_ascii=False) for each in ({"kind": "begin", **self.header}, *rows)]
        files.write_text(self.path, "".join(f"{line}\n" for line in lines))

    def done(self, who: str, seed: int) -> bool:
        """Whether this run is in the log already."""
        return any(side == who and row["seed"] == seed for side, row in self.rows)

    def add(self, who: str, row: Row) -> None:
        """Keep a finished run, on the disk when this returns."""
        self.rows.append((who, row))
        self._append({"who": who, **row})

    def of(self, who: str) -> list[Row]:
        """The runs of one side, by seed."""
        return sorted((row for side, row in self.rows if side == who), key=lambda row: row["seed"])

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def finished(folder: Path) -> bool:
    """Whether the folder holds a record with all the runs that were planned."""
    if not (folder / RECORD).exists():
        return False
    try:
        made = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return bool(made.get("runs_done", 0) >= made.get("runs_planned", 0))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{folder / RECORD}: damaged: remove it, or name another --out") from None


def difference(path: Path, header: dict[str, Any], fixed: Mapping[str, str] = FIXED) -> str | None:
    """What of `fixed` has another value in a log, in words; None where all agree or no run is logged."""
    lines = _whole_lines(path)
    if len(lines) < 2:
        return None
    begun, asked = _parsed(lines[0], path, 1), _as_read(header)
    for name, words in fixed.items():
        if begun.get(name) != asked[name]:
            return words + _change(begun.get(name), asked[name])
    return None


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that end as lines do: the machine may have gone down within the last one."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: damaged, it isn't UTF-8: remove the folder to begin again") from None
    return lines if not lines or lines[-1].endswith("\n") else lines[:-1]


def _as_read(header: dict[str, Any]) -> dict[str, Any]:
    """As it will read back: tuples become lists."""
    return cast(dict[str, Any], json.loads(json.dumps(header)))


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


def _change(old: Any, new: Any) -> str:
    """` (train.epochs 3 then, 4 now)`: the first difference, short enough for a line."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                inner = _change(old.get(key), new.get(key))
                return f" ({key}.{inner[2:]}" if isinstance(new.get(key), dict) else f" ({key} {inner[2:]}"
    return f" ({str(old)[:40]} then, {str(new)[:40]} now)"
