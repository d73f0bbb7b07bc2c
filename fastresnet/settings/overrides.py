"""Settings on a command line: `--section.key=value` found among other words, and the text made a value."""

from __future__ import annotations

from collections.abc import Iterable

from fastresnet.base import strict_yaml
from fastresnet.settings.keys import COMMAND_LINE, ConfigError, checked, known
from fastresnet.settings.sections import SETTINGS


def take_settings(arguments: Iterable[str]) -> tuple[dict[str, object], list[str]]:
    """Split a command line into its settings (--section.key=value, --section.key value) and the rest."""
    settings: dict[str, object] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            rest.append(word)
            continue
        key = known(name)
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                example = strict_yaml.write(SETTINGS[key].default)
                raise ConfigError(f"--{key} needs a value: --{key}={example}, for example")
        settings[key] = from_text(key, text)
    return settings, rest


def from_text(key: str, text: str) -> object:
    """What stands after --section.key=: text where text is wanted, else YAML; a list needs no brackets."""
    rule = SETTINGS[key].rule
    if rule.kind is str and not rule.depth:
        return None if rule.optional and text == "null" else text
    bare_list = rule.depth and not text.startswith("[") and text not in ("null", "")
    try:
        value = strict_yaml.parse(f"[{text}]" if bare_list else text)
    except strict_yaml.YamlError:
        value = text
    return checked(key, text if value is None and text != "null" else value, COMMAND_LINE)
