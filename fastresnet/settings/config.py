"""The settings of one run: defaults, then a recipe and its bases, then the command line. Knows who said what.

Nothing else speaks: no environment variable, no second file. What is wrong ends in a ConfigError of one line
that names the file, the key, the rule and the likely mistake.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from fastresnet.base import files, strict_yaml
from fastresnet.settings import conflicts
from fastresnet.settings.declarations import SECTIONS, SETTINGS

__all__ = [
    "SETTINGS",
    "SECTIONS",
    "Config",
    "ConfigError",
    "Values",
    "load",
    "from_dict",
    "recipes",
    "parse_args",
]

RECIPES = Path(__file__).parents[1] / "recipes"
COMMAND_LINE, DEFAULT = "command line", "default"


class ConfigError(ValueError):
    """The user's settings are wrong; the message is one line."""


class Values:
    """The settings of one section, as attributes. Can't be changed: `Config.replace` makes another Config."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values, _name=name)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        raise AttributeError(f"unknown setting {self._name}.{key}.{_meant(f'{self._name}.{key}', SETTINGS)}")

    def __setattr__(self, key: str, value: Any) -> None:
        change = {f"{self._name}.{key}": value}
        raise AttributeError(f"settings don't change: use Config.replace({change!r})")

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items() if k != '_name')})"


class Config:
    """Every setting of a run, checked: `cfg.optim.lr`, `cfg.recipe`, `cfg.provenance["optim.lr"]`.

    recipe:      name of the recipe, without folder and ending
    provenance:  for each setting "default", the file it stands in, "command line", or what a caller said
    """

    data: Values
    model: Values
    optim: Values
    schedule: Values
    train: Values
    eval: Values
    run: Values

    def __init__(self, recipe: str, given: Mapping[str, Any], provenance: Mapping[str, str]) -> None:
        self.recipe = recipe
        self.provenance = {key: provenance.get(key, DEFAULT) for key in SETTINGS}
        flat = {
            key: _checked(key, given[key], self.provenance[key]) if key in given else setting.default
            for key, setting in SETTINGS.items()
        }
        for name in SECTIONS:
            keys = [key for key in SETTINGS if key.startswith(name + ".")]
            setattr(self, name, Values(name, {key.partition(".")[2]: flat[key] for key in keys}))
        for keys_at_fault, rule in conflicts.found(self):
            origin = next(
                (self.provenance[k] for k in keys_at_fault if self.provenance[k] != DEFAULT), DEFAULT
            )
            raise ConfigError(rule if origin in (DEFAULT, COMMAND_LINE) else f"{origin}: {rule}")

    def flat(self) -> dict[str, Any]:
        """All settings by full name, in the order of their declaration."""
        return {key: getattr(getattr(self, key.partition(".")[0]), key.partition(".")[2]) for key in SETTINGS}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """All settings as nested plain dicts, ready for JSON; `from_dict` reads them back."""
        nested: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for key, value in self.flat().items():
            section, _, name = key.partition(".")
            nested[section][name] = value
        return nested

    def replace(self, changes: Mapping[str, Any], origin: str = "replaced") -> Config:
        """Another Config with some settings changed, checked like any other."""
        changes = {_known(key): value for key, value in changes.items()}
        provenance = {
            **{k: p for k, p in self.provenance.items() if p != DEFAULT},
            **dict.fromkeys(changes, origin),
        }
        given = {k: v for k, v in self.flat().items() if k in provenance}
        return Config(self.recipe, {**given, **changes}, provenance)

    def to_yaml(self) -> str:
        """The whole configuration as YAML that `load` reads back; each line says who set it."""
        lines = [f"recipe: {strict_yaml.write(self.recipe)}"]
        for section, values in self.to_dict().items():
            lines += ["", f"{section}:  # {SECTIONS[section]}"]
            for name, value in values.items():
                text = f"  {name}: {strict_yaml.write(value)}"
                lines.append(f"{text:<40}  # {self.provenance[f'{section}.{name}']}")
        return "\n".join(lines) + "\n"

    def dump(self, path: str | Path) -> None:
        """Write `to_yaml()` to a file."""
        files.write_text(path, self.to_yaml())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and (self.recipe, self.flat()) == (other.recipe, other.flat())

    def __repr__(self) -> str:
        return (
            f"Config({self.recipe!r}, "
            + ", ".join(f"{k}={v!r}" for k, v in self.flat().items() if self.provenance[k] != DEFAULT)
            + ")"
        )


def load(name: str | Path | None = "rn18.yaml", overrides: Mapping[str, Any] | Sequence[str] = ()) -> Config:
    """The settings of a recipe, then the overrides.

    name:      a path, or a name in fastresnet/recipes; None for the defaults alone
    overrides: {"section.key": value}, or ["--section.key=value", ...] as on a command line.
    Raises ConfigError, in one line, for anything that is wrong.
    """
    given, provenance, recipe = ({}, {}, "defaults") if name is None else _read_chain(_find(str(name)), ())
    if isinstance(overrides, Mapping):
        extra = {_known(key): value for key, value in overrides.items()}
    else:
        extra, rest = take_settings(overrides)
        if rest:
            raise ConfigError(f"a setting is given as --section.key=value, got {rest[0]!r}")
    return Config(recipe, {**given, **extra}, {**provenance, **dict.fromkeys(extra, COMMAND_LINE)})


def from_dict(
    nested: Mapping[str, Any], *, recipe: str = "defaults", origin: str = "saved settings"
) -> Config:
    """The Config that `Config.to_dict` gave; `origin` names the file in messages. Raises ConfigError."""
    given = _flatten(nested, origin)
    return Config(recipe, given, dict.fromkeys(given, origin))


def recipes() -> dict[str, str]:
    """The shipped recipes: file name -> the first line of its head comment."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: text.partition("\n")[0].lstrip("# ").strip() for name, text in texts.items()}


def parse_args(
    argv: Sequence[str] | None = None,
    description: str = "",
    extra: Any = None,
    default: str | None = "rn18.yaml",
) -> tuple[Config, Any]:
    """The command line of a script: --config, --help, --print-config, --section.key=value, `extra(parser)`.

    Returns the Config and argparse's Namespace. Raises ConfigError; --help and --print-config SystemExit.
    """
    from fastresnet.settings import arguments

    return arguments.parse(argv, description, extra, default)


# ---- recipes and their bases -------------------------------------------------------------------------------


def _find(name: str, folder: Path | None = None) -> Path:
    """A file beside the one that names it, a path, or a shipped recipe (with or without .yaml)."""
    candidates = [Path(name), RECIPES / name, RECIPES / f"{name}.yaml"]
    for path in ([folder / name] if folder is not None else []) + candidates:
        if path.is_file():
            return path
    if Path(name).is_dir():
        raise ConfigError(f"{name} is a folder: --config wants a YAML file or the name of a recipe")
    names = [recipe.removesuffix(".yaml") for recipe in recipes()]
    guess = _meant(name.removesuffix(".yaml"), names)
    raise ConfigError(f"no file and no recipe is called {name}.{guess} The recipes are {', '.join(names)}")


def _read_chain(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str], str]:
    """What a recipe and its bases say: flat values, the file that each comes from, the recipe's name."""
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path))
        raise ConfigError(f"{above[0].name}: the recipes inherit in a circle: {chain}")
    try:
        content = strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise ConfigError(str(error)) from None
    base, recipe = content.pop("base", None), content.pop("recipe", path.stem)
    for key, value in (("base", base), ("recipe", recipe)):
        if not isinstance(value, str) and not (key == "base" and value is None):
            raise ConfigError(f"{path.name}: {key} must be text, got {value!r}")
    given = _flatten(content, path.name)
    provenance = dict.fromkeys(given, path.name)
    for key, value in given.items():
        _checked(key, value, path.name)
    if base is None:
        return given, provenance, recipe
    try:
        below = _find(base, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: base: {error}") from None
    base_given, base_provenance, _ = _read_chain(below, (*above, path.resolve()))
    return {**base_given, **given}, {**base_provenance, **provenance}, recipe


def _flatten(content: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """{"optim": {"lr": 0.1}} -> {"optim.lr": 0.1}; ConfigError names unknown sections and keys."""
    flat = {}
    for section, values in content.items():
        if section in SETTINGS:
            name, _, key = str(section).partition(".")
            raise ConfigError(f"{origin}: {section} is written as {key}: in the section {name}:")
        if section not in SECTIONS:
            guess = _meant(str(section), [*SECTIONS, *SETTINGS, "base"])
            raise ConfigError(f"{origin}: unknown section {section}.{guess}".rstrip("."))
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: {section} must hold indented lines of key: value, got {values!r}")
        flat.update({_known(f"{section}.{key}", origin): value for key, value in (values or {}).items()})
    return flat


# ---- the command line --------------------------------------------------------------------------------------


def take_settings(arguments: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Split a command line into its settings (--section.key=value, --section.key value) and the rest."""
    settings: dict[str, Any] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            rest.append(word)
            continue
        key = _known(name, "--")
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                example = strict_yaml.write(SETTINGS[key].default)
                raise ConfigError(f"--{key} needs a value: --{key}={example}, for example")
        settings[key] = _from_text(key, text)
    return settings, rest


def _from_text(key: str, text: str) -> Any:
    """What stands after --section.key=: text where text is wanted, else YAML; a list needs no brackets."""
    setting = SETTINGS[key]
    if setting.type is str and not setting.items:
        return None if setting.optional and text == "null" else text
    bare_list = setting.items and not text.startswith("[") and text not in ("null", "")
    source = f"[{text}]" if bare_list else text
    try:
        value = strict_yaml.parse(source)
    except strict_yaml.YamlError:
        value = text
    return _checked(key, text if value is None and text != "null" else value, COMMAND_LINE)


# ---- rules -------------------------------------------------------------------------------------------------


def _checked(key: str, value: Any, origin: str) -> Any:
    """The value in its proper type, or ConfigError."""
    try:
        return SETTINGS[key].rule.check(value)
    except ValueError as error:
        prefix = {COMMAND_LINE: "--", DEFAULT: ""}.get(origin, f"{origin}: ")
        raise ConfigError(f"{prefix}{key} {error}") from None


def _known(key: Any, origin: str = "") -> str:
    """The key itself where such a setting exists, or ConfigError with the likely mistake."""
    if key in SETTINGS:
        return str(key)
    where = f"{origin}: " if origin not in ("", "--") else ""
    raise ConfigError(f"{where}unknown key {key}.{_meant(str(key), SETTINGS)}".rstrip("."))


# Names that people know from elsewhere, where letters alone don't lead to ours.
ALIASES = {
    "optim.learning_rate": "optim.lr",
    "optim.wd": "optim.weight_decay",
    "optim.optimizer": "optim.name",
    "train.bs": "train.batch_size",
    "train.amp": "train.precision",
    "train.dtype": "train.precision",
    "train.ema": "train.ema_decay",
    "data.dataset": "data.name",
}


def _meant(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?` or an empty string: by alias, by spelling, by the last word in another section."""
    known = list(known)
    if ALIASES.get(name) in known:
        return f" Did you mean {ALIASES[name]}?"
    last = name.rpartition(".")[2]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last]
    close = elsewhere or difflib.get_close_matches(name, known, 1, 0.6)
    close = close or [k for k in known if difflib.get_close_matches(last, [k.rpartition(".")[2]], 1, 0.75)]
    return f" Did you mean {' or '.join(close[:3])}?" if close else ""
