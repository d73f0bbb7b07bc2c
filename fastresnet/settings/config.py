"""The settings of one run: defaults, then a recipe and its bases, then the command line. Knows who said what.

Nothing else speaks: no environment variable, no second file. What is wrong ends in a ConfigError of one line
that names the file, the key, the rule and the likely mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from fastresnet.base import files, sinks, strict_yaml
from fastresnet.settings.conflicts import found
from fastresnet.settings.keys import COMMAND_LINE, DEFAULT, ConfigError, checked, known
from fastresnet.settings.overrides import take_settings
from fastresnet.settings.reading import Recipe, flatten, read
from fastresnet.settings.sections import (
    CLASSES,
    SECTIONS,
    SETTINGS,
    Data,
    Eval,
    Model,
    Optim,
    Run,
    Schedule,
    Train,
)


class Config:
    """Every setting of a run, checked: `cfg.optim.lr`, `cfg.recipe`, `cfg.provenance["optim.lr"]`.

    recipe:      name of the recipe, without folder and ending; folders and files are called so
    provenance:  for each setting "default", the file it stands in, "command line", or what a caller said
    """

    data: Data
    model: Model
    optim: Optim
    schedule: Schedule
    train: Train
    eval: Eval
    run: Run

    def __init__(self, recipe: str, given: Mapping[str, object], provenance: Mapping[str, str]) -> None:
        self.recipe = sinks.for_path(recipe)
        self.provenance = {key: provenance.get(key, DEFAULT) for key in SETTINGS}
        values: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
        for key, value in given.items():
            section, _, name = key.partition(".")
            values[section][name] = checked(key, value, self.provenance[key])
        for name, section_class in CLASSES.items():
            setattr(self, name, section_class(**values[name]))
        for conflict in found(self.data, self.model, self.optim, self.schedule, self.train, self.run):
            raise ConfigError(f"{self._blamed(conflict)}{conflict}")

    def _blamed(self, conflict: str) -> str:
        """Where the first of the settings stands that a conflict names, for the beginning of its message."""
        named = [key for key in re.findall(r"[a-z]+\.\w+", conflict) if key in SETTINGS]
        origins = [self.provenance[key] for key in named if self.provenance[key] != DEFAULT]
        return f"{origins[0]}: " if origins and origins[0] != COMMAND_LINE else ""

    def flat(self) -> dict[str, object]:
        """All settings by full name, in the order of their declaration."""
        nested = self.to_dict()
        return {f"{section}.{name}": value for section in nested for name, value in nested[section].items()}

    def asked(self) -> dict[str, object]:
        """The settings that the command line gave, by full name."""
        return {key: value for key, value in self.flat().items() if self.provenance[key] == COMMAND_LINE}

    def to_dict(self) -> dict[str, dict[str, object]]:
        """All settings as nested plain dicts, ready for JSON; `from_dict` reads them back."""
        return {name: dict(vars(getattr(self, name))) for name in SECTIONS}

    def replace(self, changes: Mapping[str, object], origin: str = "replaced") -> Config:
        """Another Config with some settings changed, checked like any other."""
        changes = {known(key): value for key, value in changes.items()}
        said = {key: who for key, who in self.provenance.items() if who != DEFAULT}
        provenance = {**said, **dict.fromkeys(changes, origin)}
        given = {key: value for key, value in self.flat().items() if key in provenance}
        return Config(self.recipe, {**given, **changes}, provenance)

    def to_yaml(self) -> str:
        """The whole configuration as YAML that `load` reads back; each line says who set it."""
        lines = [f"recipe: {strict_yaml.write(self.recipe)}"]
        for section, values in self.to_dict().items():
            lines += ["", f"{section}:  # {SECTIONS[section]}"]
            for name, value in values.items():
                text = f"  {name}: {strict_yaml.write(value)}"
                who = sinks.for_terminal(self.provenance[f"{section}.{name}"])
                lines.append(f"{text:<40}  # {who}")
        return "\n".join(lines) + "\n"

    def dump(self, path: str | Path) -> None:
        """Write `to_yaml()` to a file."""
        files.write_text(path, self.to_yaml())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and (self.recipe, self.flat()) == (other.recipe, other.flat())

    def __repr__(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.flat().items() if self.provenance[key] != DEFAULT]
        return f"Config({', '.join([repr(self.recipe), *said])})"


def load(
    name: str | Path | None = "rn18.yaml", overrides: Mapping[str, object] | Sequence[str] = ()
) -> Config:
    """The settings of a recipe, then the overrides.

    name:      a path, or a name in fastresnet/recipes; None for the defaults alone
    overrides: {"section.key": value}, or ["--section.key=value", ...] as on a command line.
    Raises ConfigError, in one line, for anything that is wrong.
    """
    listed = isinstance(overrides, (list, tuple)) and all(isinstance(word, str) for word in overrides)
    if not (listed or isinstance(overrides, Mapping)):
        raise ConfigError(f"overrides must be a dict or a list of --section.key=value, got {overrides!r}")
    recipe = Recipe({}, {}, "defaults") if name is None else read(str(name))
    extra, rest = (overrides, []) if isinstance(overrides, Mapping) else take_settings(overrides)
    if rest:
        raise ConfigError(f"a setting is given as --section.key=value, got {rest[0]!r}")
    extra = {known(key): value for key, value in extra.items()}
    provenance = {**recipe.provenance, **dict.fromkeys(extra, COMMAND_LINE)}
    return Config(recipe.name, {**recipe.given, **extra}, provenance)


def from_dict(
    nested: Mapping[str, object], *, recipe: str = "defaults", origin: str = "saved settings"
) -> Config:
    """The Config that `Config.to_dict` gave; `origin` names the file in messages. Raises ConfigError."""
    given = flatten(cast("Mapping[object, object]", nested), origin)
    return Config(recipe, given, dict.fromkeys(given, origin))


# The settings that may name code of the user's own, `module:attribute`; see base.parts.
NAMING_CODE = ("model.arch", "optim.name", "schedule.name", "data.source", "run.loggers")


def check_named_code(
    saved: Config, told: Mapping[str, object], origin: str, keys: Sequence[str] = NAMING_CODE
) -> None:
    """Raises ConfigError where saved settings name code that `told`, what the caller says now, doesn't.

    A file that came from elsewhere never chooses what is imported.
    """
    flat = saved.flat()
    for key in keys:
        value = flat[key]
        names = value if isinstance(value, list) else [value]
        if any(":" in str(name) for name in names) and told.get(key) != value:
            shown = ",".join(map(str, names))
            raise ConfigError(
                f"{origin}: {key}={shown} names code of its user's own, which no checkpoint may import: "
                f"say --{key}={shown} too, or give the recipe"
            )
