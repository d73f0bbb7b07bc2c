"""The results of runs as data: written, read and checked against the JSON Schemas that ship with the package.

Refuses to measure, to judge and to write half a file. Four kinds of file: `result` (one training run),
`series` (several runs, each with a folder), `record` (many runs of one recipe under the measuring protocol)
and `benchmark` (one machine's speeds).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fastresnet.base import files, sinks

KINDS = ("result", "series", "record", "benchmark")
SCHEMAS = (*KINDS, "checkpoint")
SCHEMA_VERSION = 1
Rule = Mapping[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list, tuple), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
_SILENT = {"$schema", "$defs", "title", "description"}
_CHECKED = {"type", "const", "enum", "required", "properties", "additionalProperties", "items", "minimum"}
_CHECKED |= {"maximum", "minItems", "maxItems", "anyOf", "$ref"}


class RecordError(ValueError):
    """A file or dict that isn't what its kind should be."""


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
    found = problems(record, kind)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RecordError(f"not a valid {kind}: {found[0]}{more}")


def write(path: str | Path, record: Mapping[str, Any]) -> None:
    """Validate `record` and write it in one move. Raises RecordError and writes nothing if it is invalid."""
    validate(record)
    files.write_text(path, pretty(record))


def pretty(record: Mapping[str, Any]) -> str:
    """JSON that a person can read and git can compare: indented, with rows of plain numbers on one line."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def read(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read and validate; its texts hold nothing that a terminal would obey.

    Raises RecordError for a file that is missing, no JSON, invalid, of another kind.
    """
    try:
        record = sinks.harmless(json.loads(Path(path).read_text(encoding="utf-8")))
        validate(record)
        if kind is not None and record.get("kind", "result") != kind:
            raise RecordError(f"it is a {record.get('kind', 'result')} file, a {kind} file is wanted")
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: can't be read as JSON ({error})") from error
    return dict(record)


def dumps(record: Mapping[str, Any]) -> str:
    """The record as JSON in one line: the last line that a run prints."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# ---- the part of JSON Schema that the schemas use; one that uses more is an assertion --------------------


@cache
def schema(kind: str) -> Rule:
    """The JSON Schema (draft 2020-12) of `kind`, one of SCHEMAS."""
    file = resources.files("fastresnet") / "schemas" / f"{kind}.schema.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def problems(value: object, kind: str) -> list[str]:
    """What is wrong with `value` by the schema of `kind`: a sentence each, naming the place and the rule."""
    return list(_problems(value, schema(kind), schema(kind), ""))


def _problems(value: object, rule: Rule, root: Rule, place: str) -> Iterator[str]:
    unknown = set(rule) - _CHECKED - _SILENT
    assert not unknown, f"the checker doesn't know {unknown}"
    dot = f"{place}." if place else ""
    if "$ref" in rule:
        yield from _problems(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root, place)
    elif "anyOf" in rule:
        tries = [list(_problems(value, choice, root, place)) for choice in rule["anyOf"]]
        if all(tries):
            yield from max(tries, key=lambda found: len(found[0]))
    elif fault := _fault(value, rule):
        yield f"{place or 'the whole'} {fault}"
    elif isinstance(value, dict):
        yield from (f"{dot}{name} is missing" for name in rule.get("required", ()) if name not in value)
        for name, item in value.items():
            inside = rule.get("properties", {}).get(name, rule.get("additionalProperties", {}))
            if inside is False:
                yield f"{dot}{name} is not a field of it"
            else:
                yield from _problems(item, inside, root, f"{dot}{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _problems(item, rule.get("items", {}), root, f"{place}[{index}]")


def _fault(value: object, rule: Rule) -> str:
    """What is wrong with a value whatever it holds inside, or nothing."""
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "const" in rule and value != rule["const"]:
        return f"must be {rule['const']!r}, got {value!r:.60}"
    if "enum" in rule and value not in rule["enum"]:
        return f"must be one of {', '.join(map(str, rule['enum']))}, got {value!r:.60}"
    if kinds and not _is_any(value, kinds):
        return f"must be {' or '.join(kinds)}, got {value!r:.60}"
    if isinstance(value, (list, tuple)):
        low, high = rule.get("minItems", 0), rule.get("maxItems", math.inf)
        return "" if low <= len(value) <= high else f"must hold {low} to {high} items, got {len(value)}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return ""
    low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
    if not math.isfinite(value):
        return f"is {value}, which JSON has no word for: write null"
    return "" if low <= value <= high else f"must lie in {low}..{high}, got {value}"


def _is_any(value: object, kinds: list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES[kind]) for kind in kinds)
