"""The results of runs as data: written, read and checked against the JSON Schemas that ship with the package.

Refuses to measure, to judge and to write half a file. Three kinds of file: `result` (one training run),
`record` (many runs of one recipe) and `benchmark` (one machine's speeds).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastresnet.base import files, words
from fastresnet.machine import hardware
from fastresnet.runs import schema

KINDS = ("result", "record", "benchmark")
SCHEMA_VERSION = 1


class RecordError(ValueError):
    """A file or dict that isn't a valid result, record or benchmark."""


def validate(record: object, kind: str | None = None) -> None:
    """Check `record` against the schema of `kind`, by default of the kind that it names, else of `result`.

    Raises RecordError naming the place and the rule of the first problem, and how many more there are.
    """
    if not isinstance(record, dict):
        raise RecordError(f"a record is an object, got {type(record).__name__}")
    kind = kind or record.get("kind", "result")
    if kind not in KINDS:
        raise RecordError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{kind}: schema_version is {version!r}, this release reads {SCHEMA_VERSION}: "
            "use the release that wrote it, or run again"
        )
    problems = schema.problems(record, kind)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecordError(f"not a valid {kind}: {problems[0]}{more}")


def write(path: str | Path, record: Mapping[str, Any]) -> None:
    """Validate `record` and write it in one move. Raises RecordError and writes nothing if it is invalid."""
    validate(record)
    files.write_text(path, pretty(record))


def pretty(record: Mapping[str, Any]) -> str:
    """JSON that a person can read and git can compare: indented, with rows of plain numbers on one line."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def read(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read and validate. Raises RecordError for a file that is missing, no JSON, invalid, of another kind."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: can't be read as JSON ({error})") from error
    try:
        validate(record)
        if kind is not None and record.get("kind", "result") != kind:
            raise RecordError(f"it is a {record.get('kind', 'result')} file, a {kind} file is wanted")
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    return dict(record)


def dumps(record: Mapping[str, Any]) -> str:
    """The record as JSON in one line: the last line that a run prints."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def line(record: Mapping[str, Any]) -> str:
    """One aligned line: `speed94  n=200  acc 94.02 ±0.14 %  time 0.71 ±0.01 s  1x H200`."""
    machine = hardware.short_name(record["hardware"])
    mark = "  SYNTHETIC DATA" if record["data"]["synthetic"] else ""
    fields = _record_fields(record) if record.get("kind") == "record" else _result_fields(record)
    return "  ".join([f"{record['recipe']:<10}", *fields, machine]) + mark


def _record_fields(record: Mapping[str, Any]) -> list[str]:
    summary = record["summary"]
    return [
        f"n={summary['n']}",
        f"acc {words.percent(summary['mean'], summary['std'])}",
        f"time {words.seconds(summary['seconds_mean'], summary['seconds_std'])}",
    ]


def _result_fields(record: Mapping[str, Any]) -> list[str]:
    accuracy, seconds = record["accuracy"], record["seconds"]
    fields = [f"seed {record['seed']}", f"acc {words.percent(accuracy['test'])}"]
    if accuracy["test_tta"] is not None:
        fields.append(f"tta {words.percent(accuracy['test_tta'])}")
    fields.append(f"time {words.seconds(seconds['train'])}")
    if record["images_per_second"] is not None:
        fields.append(f"{record['images_per_second']:,.0f} images/s")
    if record["mfu"] is not None:
        fields.append(f"mfu {100 * record['mfu']:.0f} %")
    return fields
