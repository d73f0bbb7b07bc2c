"""How a setting is declared: an annotated line in a class, from which its rule and its help are made.

Refuses to know any setting by name, and to read a value from anywhere.
"""

from __future__ import annotations

import types
import typing
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Union, cast, get_args, get_origin

from fastargs import Config as Register
from fastargs import Param, Section

from fastresnet.settings.rule import Rule

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11's

T = TypeVar("T")
REGISTER = Register()  # our own: fastargs' default is shared by the whole process


class Limits(TypedDict, total=False):
    """What a line says of a setting's values beside their type; see Rule."""

    low: float
    high: float
    above: float
    pattern: str
    hint: str


def setting(default: T, help: str, *, unit: str = "", choices: str = "", **limits: Unpack[Limits]) -> T:
    """The default of a field that is a setting, with what --help and messages say of it.

    What texts are allowed is said by the annotation (`Literal["a", "b"]`); where there is no end of them by
    `pattern`, a regular expression, with examples in `choices`.
    """
    metadata = {"help": help, "unit": unit, "choices": tuple(choices.split()), "limits": limits}
    if isinstance(default, list):
        return cast(T, field(default_factory=default.copy, metadata=metadata))
    return field(default=default, metadata=metadata)


class Setting(Param):  # type: ignore[misc]  # fastargs has no types
    """One setting: a fastargs parameter with a strict rule, a unit and a help text.

    default:  a value that the rule allows, in its proper type
    """

    def __init__(self, rule: Rule, default: object, help: str, unit: str) -> None:
        self.rule, self.help, self.unit = rule, help, unit
        super().__init__(rule, help, rule.check(default))


def declare(name: str, section: type) -> dict[str, Setting]:
    """The settings of a section by full name (`optim.lr`), made from its class and told to fastargs."""
    hints = typing.get_type_hints(section)
    defaults = section()
    made = {one.name: _setting(one, hints[one.name], getattr(defaults, one.name)) for one in fields(section)}
    Section(name, section.__doc__, config_descriptor=REGISTER).params(**made)
    return {f"{name}.{key}": value for key, value in made.items()}


def _setting(one: Field[Any], hint: object, default: object) -> Setting:
    optional = get_origin(hint) in (Union, types.UnionType)
    if optional:
        hint = next(part for part in get_args(hint) if part is not type(None))
    depth = 0
    while get_origin(hint) is list:
        hint, depth = get_args(hint)[0], depth + 1
    choices = get_args(hint) if get_origin(hint) is Literal else one.metadata["choices"]
    kind, limits = str if choices else cast(type, hint), one.metadata["limits"]
    rule = Rule(kind=kind, depth=depth, optional=optional, choices=choices, **limits)
    return Setting(rule, default, one.metadata["help"], one.metadata["unit"])
