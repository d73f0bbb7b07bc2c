"""YAML as people write it: only `true` and `false` are booleans, `1e-3` is a number, a key twice is an error.

YAML 1.1 reads `off` as false, `1e-3` as text and `010` as eight; here `compile: off` is a word.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml


class YamlError(ValueError):
    """A YAML text that can't be read; the message is one line."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader, but a key that stands twice is an error."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _error("a key must be a word", key_node)
            key = self.construct_object(key_node)
            if key in seen:
                raise _error(f"the key {key!r} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _error(problem: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_NUMBER = "-+.0123456789"
for _tag, _pattern, _first_letters in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?[0-9]+", [*_NUMBER]),
    ("float", r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", [*_NUMBER]),
):
    for _letter in _first_letters:
        _rule = (f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"))
        _Loader.yaml_implicit_resolvers.setdefault(_letter, []).append(_rule)


def _decimal(loader: Any, node: Any) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse(text: str) -> Any:
    """The value of a YAML text; YamlError where it is broken."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise YamlError(f"{line}{error.problem}") from None
    except RecursionError:
        raise YamlError("it is nested too deeply to be read") from None
    except (LookupError, AttributeError, TypeError):  # PyYAML checks no text that a tag stands before
        raise YamlError("a tag (!!bool, !!set) stands before what can't be one") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(" ".join(str(error).split())) from None


def read(path: Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds, {} for an empty file; YamlError names the file and the line."""
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise YamlError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise YamlError(f"{path.name}: isn't a text in UTF-8, so no YAML file") from None
    except YamlError as error:
        raise YamlError(f"{path.name}: broken YAML: {error}") from None
    if not isinstance(content, (dict, type(None))):
        raise YamlError(
            f"{path.name}: a recipe holds sections (data:, model:, ...), this file holds one "
            f"{type(content).__name__}"
        )
    return content or {}


def write(value: Any) -> str:
    """A value on one line of YAML, which `parse` and every other reader read back alike."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("...\n").strip()
