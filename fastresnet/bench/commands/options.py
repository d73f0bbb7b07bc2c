"""Numbers and shares on a command line, with the rule in the message where one is broken."""

from __future__ import annotations

import argparse
import math

from fastresnet.settings.command_line import Parser


def parser(about: str | None) -> Parser:
    """A command line whose mistakes are one line; `about` is the command's own docstring."""
    return Parser(description=about, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)


def above_zero(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not value > 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    value = _number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(value)


def share(text: str) -> float:
    """`5%` or `0.05` -> 0.05."""
    value = _number(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0% and 100% (0.05 means 5%)")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text} is no number")
    return value
