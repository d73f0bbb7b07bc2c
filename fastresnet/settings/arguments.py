"""The command line of every script: --config, --section.key=value, --print-config, --help with them all."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from typing import Any, Callable, NoReturn, Sequence

from fastresnet.settings.config import SECTIONS, SETTINGS, Config, ConfigError, load, recipes, take_settings

WIDTH = 110


class Parser(argparse.ArgumentParser):
    """argparse that raises a ConfigError of one line where it would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help lists every option)")


def parse(
    argv: Sequence[str] | None,
    description: str,
    extra: Callable[[argparse.ArgumentParser], Any] | None,
    default: str | None,
) -> tuple[Config, argparse.Namespace]:
    """See config.parse_args."""
    parser = Parser(
        description=description,
        allow_abbrev=False,
        epilog=settings_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        default=default,
        metavar="NAME|PATH",
        help=f"a YAML file, or one of {', '.join(recipes())} (default: {default or 'none'})",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting and who set it, as YAML, and leave"
    )
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


def _unknown(word: str, options: list[str]) -> str:
    name = word.partition("=")[0]
    if not name.startswith("-"):
        return f"don't know what to do with {word!r}: a setting is given as --section.key=value"
    guesses = [f"--{key}" for key in SETTINGS if key.partition(".")[2] == name.lstrip("-").replace("-", "_")]
    guesses = (
        guesses
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
        for key, setting in SETTINGS.items():
            if not key.startswith(section + "."):
                continue
            limits = setting.rule.range().removeprefix("be ").removeprefix("lie ")
            limits = f"one of {', '.join(setting.choices)}" if setting.choices else limits
            about = "; ".join(filter(None, (setting.help, setting.unit and f"unit: {setting.unit}", limits)))
            default = _default(setting.default)
            head = f"  --{key:<30} {setting.type_name():<14} {default:<11} "
            lines += textwrap.wrap(
                about, WIDTH, initial_indent=head, subsequent_indent=" " * 62, break_on_hyphens=False
            )
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
