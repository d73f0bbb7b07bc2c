"""What a shell completes: a script for bash or zsh, which shtab writes (extra `completion`).

Knows no option by itself: each command's parser is caught as it is about to parse.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import NoReturn
from unittest import mock

from fastresnet.settings.command_line import Parser
from fastresnet.settings.reading import recipes
from fastresnet.settings.sections import SETTINGS

CONFIG = "_fastresnet_recipes"  # completes recipes and files
SHELLS = {  # with the function CONFIG of each
    "bash": f'{CONFIG}() {{ compgen -W "%s" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": f"{CONFIG}() {{ _alternative 'recipes:recipe:(%s)' 'files:file:_files' }}",
}


class _Caught(Exception):
    """Holds a parser."""


def script(shell: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """The script for `shell`, of {command: (its module, what it does)}. ValueError where that can't be."""
    if shell not in SHELLS:
        raise ValueError(f"--completion is for {' or '.join(SHELLS)}, got {shell!r}")
    try:
        import shtab
    except ImportError as error:
        raise ValueError("--completion needs the package shtab: pip install shtab") from error
    whole = argparse.ArgumentParser(prog="fastresnet")
    several = whole.add_subparsers()
    for name, (module, what) in commands.items():
        one = several.add_parser(name, help=what, parents=[_parser_of(module)], add_help=False)
        _complete(one, shtab.FILE)
    return str(shtab.complete(whole, shell, preamble=SHELLS[shell] % " ".join(recipes())))


def _parser_of(module: str) -> Parser:
    def caught(parser: Parser, *_: object) -> NoReturn:
        raise _Caught(parser)

    with mock.patch.object(Parser, "parse_known_args", caught):
        try:
            importlib.import_module(f"fastresnet.{module}").main([])
        except _Caught as held:
            return held.args[0]
    raise AssertionError(f"{module} has no parser")


def _complete(parser: argparse.ArgumentParser, file: object) -> None:
    """Give it the settings where it takes any, and files wherever a value is no choice of a few."""
    if "--config" in parser._option_string_actions:
        for key, one in SETTINGS.items():
            choices = ("true", "false") if one.rule.kind is bool else one.rule.choices
            parser.add_argument(f"--{key}", choices=choices or None)
    for action in parser._actions:
        if action.nargs != 0 and not action.choices:
            config = dict.fromkeys(SHELLS, CONFIG)
            vars(action)["complete"] = config if action.dest == "config" else file
