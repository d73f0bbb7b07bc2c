"""What one value must be: its type, range and choices; checks a value, and says the rule in words.

Refuses to convert text: what a text means is read elsewhere, before the check.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from fastargs.validation import Checker

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text (not empty, in UTF-8)"}
LISTS = {int: "whole numbers", float: "numbers", str: "names"}
# What files can keep and be called by: a variable that a shell doesn't know gives no text at all.
TEXT = r"[^\0\ud800-\udfff]+"
LARGEST = 2**53  # whole numbers up to it are floating-point ones too


def _plain(value: Any) -> object:
    """Text for a path, and a number for a scalar of numpy or PyTorch: what callers in Python have at hand."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if getattr(value, "ndim", None) == 0 else value


@dataclass(frozen=True, kw_only=True)
class Rule(Checker):  # type: ignore[misc]  # fastargs has no types
    """What a value must be.

    kind:       of the value, or of a list's items
    depth:      0: a single value, 1: a list, 2: a list of lists (how long these are is checked elsewhere)
    optional:   whether null will do
    low, high:  bounds that are allowed themselves
    above:      a lower bound that isn't
    choices:    the only texts allowed; where `pattern` says what is, examples of it
    hint:       the likely mistake, for the end of a message
    """

    kind: type
    depth: int = 0
    optional: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    hint: str = ""

    def check(self, value: object) -> object:
        """The value in its proper type; ValueError says in words which rule it breaks and what it is."""
        if value is None and self.optional:
            return None
        if not self.depth:
            return self._scalar(value, value)
        if not isinstance(value, (list, tuple)) or (not value and self.kind is not str):
            raise ValueError(self._complain(value))
        return [self._item(item, value) for item in value]

    def _item(self, item: object, whole: object) -> object:
        if self.depth > 1 and isinstance(item, (list, tuple)):
            return [self._scalar(part, whole) for part in item]
        return self._scalar(item, whole)

    def _scalar(self, value: object, whole: object) -> object:
        value = _plain(value)
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind or not self._allows(value):
            raise ValueError(self._complain(whole))
        return value

    def _allows(self, value: object) -> bool:
        if isinstance(value, str):
            if self.choices and not self.pattern:
                return value in self.choices
            return re.fullmatch(self.pattern or TEXT, value) is not None
        if isinstance(value, (int, float)):
            enough = (self.low is None or value >= self.low) and (self.above is None or value > self.above)
            whole = isinstance(value, int) and abs(value) <= LARGEST
            finite = whole or (isinstance(value, float) and math.isfinite(value))
            return finite and enough and (self.high is None or value <= self.high)
        return True

    def _complain(self, value: object) -> str:
        plain = value is None or isinstance(value, bool)
        shown = str(value).lower().replace("none", "null") if plain else reprlib.repr(value)
        fits = type(value) is self.kind or (self.kind is float and type(value) is int)
        rule = self.range() if fits and self.kind in (int, float) and not self.depth else ""
        text = f"must {rule}, got {shown}" if rule else f"must be {self.help()}, got {shown}"
        return text + (f" ({self.hint})" if self.hint else "")

    def range(self) -> str:
        """The range in words ("lie between 0 and 1"), or an empty string where there is none."""
        low, high, above = (
            "" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:g}"
            for x in (self.low, self.high, self.above)
        )
        if low and high:
            return f"lie between {low} and {high}"
        if above:
            return f"be above {above}" + (f" and at most {high}" if high else "")
        return f"be at least {low}" if low else f"be at most {high}" if high else ""

    def help(self) -> str:
        """The rule in words, for messages and --help."""
        choices = ", ".join(self.choices)
        if self.depth:
            words = f"a list of {LISTS[self.kind]}" + (f" from {choices}" if choices else "")
        else:
            words = f"one of {choices}" if choices else KINDS[self.kind]
        limits = self.range().removeprefix("be ").replace("lie between", "between")
        return words + (f" {limits}" if limits else "") + (" or null" if self.optional else "")

    def type_name(self) -> str:
        """The type as --help prints it: `int`, `list of float`, `str or null`."""
        return ("list of " if self.depth else "") + self.kind.__name__ + (" or null" if self.optional else "")
