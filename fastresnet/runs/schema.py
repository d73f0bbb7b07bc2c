"""The JSON Schemas that ship with the package, and a checker of the part of JSON Schema that they use.

Refuses to know what the fields mean. A schema that uses more than the checker knows is an assertion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

KINDS = ("result", "record", "benchmark", "checkpoint")
Rule = Mapping[str, Any]
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
_CHECKED = {"type", "const", "enum", "required", "properties", "additionalProperties", "items", "minimum"}
_CHECKED |= {"maximum", "minItems", "maxItems", "anyOf", "$ref"}


@cache
def schema(kind: str) -> Rule:
    """The JSON Schema (draft 2020-12) of `kind`, one of KINDS. Raises ValueError for another."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    file = resources.files("fastresnet") / "schemas" / f"{kind}.schema.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def problems(value: object, kind: str) -> list[str]:
    """What is wrong with `value` by the schema of `kind`: a sentence each, naming the place and the rule."""
    return list(_problems(value, schema(kind), schema(kind), ""))


def _problems(value: object, rule: Rule, root: Rule, place: str) -> Iterator[str]:
    unknown = set(rule) - _CHECKED - _SILENT
    assert not unknown, f"the checker doesn't know {unknown}"
    here = place or "the whole"
    if "$ref" in rule:
        yield from _problems(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root, place)
    elif "anyOf" in rule:
        tries = [list(_problems(value, choice, root, place)) for choice in rule["anyOf"]]
        if all(tries):
            yield from max(tries, key=lambda found: len(found[0]))
    elif "const" in rule and value != rule["const"]:
        yield f"{here} must be {rule['const']!r}, got {value!r:.60}"
    elif "enum" in rule and value not in rule["enum"]:
        yield f"{here} must be one of {', '.join(map(str, rule['enum']))}, got {value!r:.60}"
    elif "type" in rule and not _is_any(value, rule["type"]):
        kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        yield f"{here} must be {' or '.join(kinds)}, got {value!r:.60}"
    elif isinstance(value, dict):
        yield from _in_object(value, rule, root, place)
    elif isinstance(value, (list, tuple)):
        yield from _in_array(value, rule, root, place)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _of_number(value, rule, here)


def _in_object(value: dict[str, object], rule: Rule, root: Rule, place: str) -> Iterator[str]:
    dot = f"{place}." if place else ""
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{dot}{name} is missing"
    for name, item in value.items():
        inside = rule.get("properties", {}).get(name, rule.get("additionalProperties", {}))
        if inside is False:
            yield f"{dot}{name} is not a field of it"
        else:
            yield from _problems(item, inside, root, f"{dot}{name}")


def _in_array(value: list[object] | tuple[object, ...], rule: Rule, root: Rule, place: str) -> Iterator[str]:
    low, high = rule.get("minItems", 0), rule.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        yield f"{place or 'the whole'} must hold {low} to {high} items, got {len(value)}"
    for index, item in enumerate(value):
        yield from _problems(item, rule.get("items", {}), root, f"{place}[{index}]")


def _of_number(value: float, rule: Rule, here: str) -> Iterator[str]:
    low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
    if not math.isfinite(value):
        yield f"{here} is {value}, which JSON has no word for: write null"
    elif not low <= value <= high:
        yield f"{here} must lie in {low}..{high}, got {value}"


def _is_any(value: object, kinds: str | list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in ([kinds] if isinstance(kinds, str) else kinds)
    return any(isinstance(value, _TYPES[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds))
