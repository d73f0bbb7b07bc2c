"""Settings on a command line: `--section.key=value` found among other words, and the text made a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
        value = from_text(key, text)
        if settings.setdefault(key, value) != value:
            raise ConfigError(f"--{key} is given twice, {settings[key]} and then {value}: leave one out")
    return settings, rest


def as_words(settings: Mapping[str, object]) -> list[str]:
    """`--section.key=value` of each, which `take_settings` reads back."""
    return [f"--{key}={_as_text(key, value)}" for key, value in settings.items()]


def _as_text(key: str, value: object) -> str:
    rule = SETTINGS[key].rule
    if rule.kind is str and not rule.depth and value is not None:
        return str(value)
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else strict_yaml.write(value)


def swept(text: str) -> dict[str, list[object]]:
    """`optim.lr=0.05,0.1` -> {"optim.lr": [0.05, 0.1]}. Raises ConfigError; the values are checked later."""
    name, _, values = text.partition("=")
    key = known(name, "--sweep")
    if not values:
        raise ConfigError(f"--sweep={text}: it wants a setting and its values: optim.lr=0.05,0.1,0.2")
    if SETTINGS[key].rule.kind is str and not SETTINGS[key].rule.depth:
        return {key: [from_text(key, part) for part in values.split(",")]}
    try:
        return {key: list(strict_yaml.parse(f"[{values}]"))}
    except strict_yaml.YamlError as error:
        raise ConfigError(f"--sweep={text}: broken YAML: {error}") from None


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
