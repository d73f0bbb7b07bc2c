"""The results of runs as data: read, written and checked against the JSON Schemas that ship with the package.

Refuses to measure, to judge and to write half a file. Three kinds of file: `result` (one training run),
`record` (many runs of one recipe) and `benchmark` (one machine's speeds).
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fastresnet.base import files, words
from fastresnet.machine import hardware

KINDS = ("result", "record", "benchmark")
SCHEMA_VERSION = 1
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_SILENT = {"$schema", "$defs", "title", "description"}
_CHECKED = {
    "type",
    "const",
    "enum",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "minimum",
    "maximum",
    "anyOf",
    "$ref",
}


class RecordError(ValueError):
    """A file or dict that isn't a valid result, record or benchmark."""


@cache
def schema(kind: str = "result") -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind`, one of KINDS."""
    if kind not in KINDS:
        raise RecordError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    file = resources.files("fastresnet") / "schemas" / f"{kind}.schema.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def __getattr__(name: str) -> Any:
    if name == "SCHEMA":  # the schema of result.json, read when asked for
        return schema("result")
    raise AttributeError(f"module 'fastresnet.runs.record' has no attribute {name!r}")


def validate(record: Any, kind: str | None = None) -> None:
    """Check `record` against the schema of `kind` (by default the one its own `kind` field names, else
    `result`).

    Raises RecordError naming the place and the rule of the first problem, and how many more there are.
    """
    if not isinstance(record, dict):
        raise RecordError(f"a record is an object, got {type(record).__name__}")
    kind = kind or record.get("kind", "result")
    rules = schema(kind)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{kind}: schema_version is {version!r}, this release reads {SCHEMA_VERSION}: "
            "use the release that wrote it, or run again"
        )
    problems = list(_problems(record, rules, rules, ""))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecordError(f"not a valid {kind}: {problems[0]}{more}")


def _problems(value: Any, rule: dict[str, Any], root: dict[str, Any], place: str) -> list[str]:
    """What is wrong with `value`: the part of JSON Schema that our schemas use, and an assertion where one
    uses more."""
    unknown = set(rule) - _CHECKED - _SILENT
    assert not unknown, f"the checker doesn't know {unknown}"
    here = place or "the whole"
    if "$ref" in rule:
        return _problems(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root, place)
    if "anyOf" in rule:
        tries = [_problems(value, choice, root, place) for choice in rule["anyOf"]]
        return [] if any(not found for found in tries) else max(tries, key=lambda found: len(found[0]))
    if "const" in rule and value != rule["const"]:
        return [f"{here} must be {rule['const']!r}, got {value!r}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"{here} must be one of {', '.join(map(str, rule['enum']))}, got {value!r}"]
    if "type" in rule and not _is_any(value, rule["type"]):
        kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        return [f"{here} must be {' or '.join(kinds)}, got {value!r:.60}"]
    if isinstance(value, dict):
        return _problems_inside(value, rule, root, place)
    if isinstance(value, (list, tuple)) and "items" in rule:
        return [
            text
            for i, item in enumerate(value)
            for text in _problems(item, rule["items"], root, f"{place}[{i}]")
        ]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or value in (float("inf"), -float("inf")):
            return [f"{here} is {value}, which JSON has no word for: write null"]
        low, high = rule.get("minimum", value), rule.get("maximum", value)
        return (
            []
            if low <= value <= high
            else [f"{here} must lie in {rule.get('minimum')}..{rule.get('maximum')}, got {value}"]
        )
    return []


def _problems_inside(
    value: dict[str, Any], rule: dict[str, Any], root: dict[str, Any], place: str
) -> list[str]:
    dot = f"{place}." if place else ""
    found = [f"{dot}{name} is missing" for name in rule.get("required", ()) if name not in value]
    others = rule.get("additionalProperties", {})
    for name, item in value.items():
        inside = rule.get("properties", {}).get(name, others)
        if inside is False:
            found.append(f"{dot}{name} is not a field of it")
        else:
            found += _problems(item, inside, root, f"{dot}{name}")
    return found


def _is_any(value: Any, kinds: str | list[str]) -> bool:
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, bool):
            if kind == "boolean":
                return True
        elif isinstance(value, _TYPES[kind]):
            return True
    return False


def write(path: str | Path, record: dict[str, Any]) -> None:
    """Validate `record`, write it beside `path` and rename it into place. Raises RecordError and writes
    nothing if invalid."""
    validate(record)
    files.write_text(path, pretty(record))


def pretty(record: dict[str, Any]) -> str:
    """JSON that a person can read and git can compare: indented, with rows of plain numbers on one line."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def read(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read and validate. Raises RecordError, naming the file, where it is missing, no JSON, of another kind,
    or invalid."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path}: can't be read as JSON ({error})") from error
    try:
        validate(record)
        if kind is not None and record.get("kind", "result") != kind:
            raise RecordError(f"it is a {record.get('kind', 'result')} file, a {kind} file is wanted")
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    return dict(record)


def dumps(record: dict[str, Any]) -> str:
    """The record as JSON in one line: the last line that a run prints."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# ---- one line for a person ----------------------------------------------------------------


def line(record: dict[str, Any]) -> str:
    """One aligned line of a result or a record: `speed94  n=200  acc 94.02 ±0.14 %  time 0.71 ±0.01 s  1x
    H200`."""
    machine = hardware.short_name(record["hardware"])
    mark = "  SYNTHETIC DATA" if record["data"]["synthetic"] else ""
    fields = _record_fields(record) if record.get("kind") == "record" else _result_fields(record)
    return "  ".join([f"{record['recipe']:<10}", *fields, machine]) + mark


def _record_fields(record: dict[str, Any]) -> list[str]:
    summary = record["summary"]
    return [
        f"n={summary['n']}",
        f"acc {words.percent(summary['mean'], summary['std'])}",
        f"time {words.seconds(summary['seconds_mean'], summary['seconds_std'])}",
    ]


def _result_fields(record: dict[str, Any]) -> list[str]:
    accuracy, seconds = record["accuracy"], record["seconds"]
    fields = [f"seed {record['seed']}", f"acc {words.percent(accuracy['test'])}"]
    if accuracy["test_tta"] is not None:
        fields.append(f"tta {words.percent(accuracy['test_tta'])}")
    fields.append(f"time {words.seconds(seconds['train'])}")
    if record["images_per_second"] is not None:
        fields.append(f"{record['images_per_second']:,.0f} images/s")
    if record["mfu"] is not None:
        fields.append(f"mfu {words.percent(record['mfu'], digits=0)}")
    return fields
