"""Recipes: found by name or path, read strictly, followed down to their bases. Knows who said what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastresnet.base import strict_yaml
from fastresnet.settings.keys import ConfigError, checked, known, meant
from fastresnet.settings.sections import SECTIONS, SETTINGS

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Recipe:
    """What a recipe and its bases say: values by full name, the file that each comes from, its name."""

    given: dict[str, object]
    provenance: dict[str, str]
    name: str


def recipes() -> dict[str, str]:
    """The shipped recipes: file name -> the first line of its head comment."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: text.partition("\n")[0].lstrip("# ").strip() for name, text in texts.items()}


def read(name: str) -> Recipe:
    """The recipe of that name or path, on top of its bases. Raises ConfigError."""
    return _chain(_find(name), ())


def _find(name: str, folder: Path | None = None) -> Path:
    """A file beside the one that names it, a path, or a shipped recipe (with or without .yaml)."""
    candidates = [Path(name), RECIPES / name, RECIPES / f"{name}.yaml"]
    for path in ([folder / name] if folder is not None else []) + candidates:
        if path.is_file():
            return path
    if Path(name).is_dir():
        raise ConfigError(f"{name} is a folder: --config wants a YAML file or the name of a recipe")
    names = [recipe.removesuffix(".yaml") for recipe in recipes()]
    guess = meant(name.removesuffix(".yaml"), names)
    raise ConfigError(f"no file and no recipe is called {name}.{guess} The recipes are {', '.join(names)}")


def _chain(path: Path, above: tuple[Path, ...]) -> Recipe:
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path))
        raise ConfigError(f"{above[0].name}: the recipes inherit in a circle: {chain}")
    content = _content(path)
    name, base = _word(content, "recipe", path), _word(content, "base", path)
    given = flatten(content, path.name)
    for key, value in given.items():
        checked(key, value, path.name)
    own = Recipe(given, dict.fromkeys(given, path.name), name or path.stem)
    if base is None:
        return own
    try:
        found = _find(base, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: base: {error}") from None
    below = _chain(found, (*above, path.resolve()))
    return Recipe({**below.given, **own.given}, {**below.provenance, **own.provenance}, own.name)


def _content(path: Path) -> dict[object, object]:
    try:
        return strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise ConfigError(str(error)) from None


def _word(content: dict[object, object], key: str, path: Path) -> str | None:
    """Take the text that stands at the recipe's top under `key`, if any."""
    value = content.pop(key, None)
    if value is None or isinstance(value, str):
        return value
    raise ConfigError(f"{path.name}: {key} must be text, got {value!r}")


def flatten(content: Mapping[object, object], origin: str) -> dict[str, object]:
    """{"optim": {"lr": 0.1}} -> {"optim.lr": 0.1}; ConfigError names unknown sections and keys."""
    flat: dict[str, object] = {}
    for section, values in content.items():
        if section in SETTINGS:
            name, _, key = str(section).partition(".")
            raise ConfigError(f"{origin}: {section} is written as {key}: in the section {name}:")
        if section not in SECTIONS:
            guess = meant(str(section), [*SECTIONS, *SETTINGS, "base"])
            raise ConfigError(f"{origin}: unknown section {section}.{guess}".rstrip("."))
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: {section} must hold indented lines of key: value, got {values!r}")
        flat |= {known(f"{section}.{key}", origin): value for key, value in (values or {}).items()}
    return flat
