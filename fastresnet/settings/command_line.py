"""The command line of every script: --config, --section.key=value, --print-config, --help with them all."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastresnet.base import strict_yaml
from fastresnet.settings.config import Config, load
from fastresnet.settings.keys import ConfigError
from fastresnet.settings.overrides import take_settings
from fastresnet.settings.reading import recipes
from fastresnet.settings.rule import Rule
from fastresnet.settings.sections import SECTIONS, SETTINGS

WIDTH = 110
PICTURES = (".png", ".svg", ".pdf", ".jpg")


class Parser(argparse.ArgumentParser):
    """argparse that raises a ConfigError of one line where it would print its usage and leave."""

    def __init__(self, description: str | None, epilog: str | None = None) -> None:
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, epilog=epilog, allow_abbrev=False, formatter_class=kind)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help lists every option)")

    def parse_known_args(  # type: ignore[override]  # of its overloads one is used
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse; a word without a value, which a variable leaves that isn't set, is refused."""
        for word in sys.argv[1:] if args is None else args:
            if not word or re.fullmatch(r"--[\w-]+=", word):
                self.error(f"a value is missing: {word!r} says nothing")
        return super().parse_known_args(args, namespace)


def number(rule: Rule) -> Callable[[str], object]:
    """The `type` of an option whose value is held to a rule, as settings are."""

    def parse(text: str) -> object:
        try:
            return rule.check(strict_yaml.parse(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


at_least_one = number(Rule(kind=int, low=1))
above_zero = number(Rule(kind=float, above=0))


def picture(text: str) -> Path:
    """The `type` of an option that names a picture to draw."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(PICTURES)}, got {text!r}")
    return Path(text)


def parse_args(
    argv: Sequence[str] | None = None,
    description: str | None = None,
    extra: Callable[[argparse.ArgumentParser], object] | None = None,
    default: str | None = "rn18.yaml",
) -> tuple[Config, argparse.Namespace]:
    """The settings and the options (`extra(parser)` adds some) that a command line gives.

    argv:         the words; None: those of this process
    description:  what the script does, for --help
    default:      the recipe where --config names none; None: the defaults alone
    Raises ConfigError; --help and --print-config SystemExit.
    """
    parser = _parser(description, default)
    if extra is not None:
        extra(parser)
    settings, rest = take_settings(sys.argv[1:] if argv is None else argv)
    namespace, unknown = parser.parse_known_args(rest)
    if unknown:
        raise ConfigError(_unknown(unknown[0], list(parser._option_string_actions)))
    cfg = load(namespace.config, settings)
    if namespace.print_config:
        print(cfg.to_yaml(), end="")
        raise SystemExit(0)
    return cfg, namespace


def _parser(description: str | None, default: str | None) -> Parser:
    parser = Parser(description, settings_table())
    names = f"a YAML file, or one of {', '.join(recipes())} (default: {default or 'none'})"
    parser.add_argument("--config", default=default, metavar="NAME|PATH", help=names)
    shown = "print every setting and who set it, as YAML, and leave"
    parser.add_argument("--print-config", action="store_true", help=shown)
    return parser


def _unknown(word: str, options: list[str]) -> str:
    name = word.partition("=")[0]
    if not name.startswith("-"):
        return f"don't know what to do with {word!r}: a setting is given as --section.key=value"
    last = name.lstrip("-").replace("-", "_")
    guesses = (
        [f"--{key}" for key in SETTINGS if key.partition(".")[2] == last]
        or difflib.get_close_matches(name, options, 1)
        or difflib.get_close_matches(name, [f"--{key}" for key in SETTINGS], 1)
    )
    hint = f"Did you mean {' or '.join(guesses)}?" if guesses else "--help lists every option"
    return f"unknown option {name}. {hint}"


def settings_table() -> str:
    """Every setting by section: type, default, unit, choices or range, meaning; at most 110 columns wide."""
    lines = ["Settings (--section.key=value, or the same keys in a YAML file):"]
    for section, what in SECTIONS.items():
        lines += ["", f"{section}: {what}"]
        for key in SETTINGS:
            if key.startswith(f"{section}."):
                lines += _row(key)
    return "\n".join(lines)


def _row(key: str) -> list[str]:
    one = SETTINGS[key]
    limits = one.rule.range().removeprefix("be ").removeprefix("lie ")
    limits = f"one of {', '.join(one.rule.choices)}" if one.rule.choices else limits
    about = "; ".join(filter(None, (one.help, one.unit and f"unit: {one.unit}", limits)))
    head = f"  --{key:<30} {one.rule.type_name():<14} {_default(one.default):<11} "
    return textwrap.wrap(
        about, WIDTH, initial_indent=head, subsequent_indent=" " * 62, break_on_hyphens=False
    )


def _default(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
