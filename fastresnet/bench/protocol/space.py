"""What a search may try: settings with choices or ranges, as YAML, and one draw from them.

optim.lr: {low: 0.1, high: 0.4, log: true}
train.epochs: {low: 6, high: 10, step: 0.5}
train.batch_size: [1000, 1536, 2000]
train.resolutions: [null, [[0.35, 24], [0.7, 28], [1.0, 32]]]
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastresnet.base import strict_yaml
from fastresnet.settings.config import Config
from fastresnet.settings.sections import SETTINGS


@dataclass(frozen=True)
class Values:
    """What a setting may be.

    ends:  values that are tried on the recipe before the first run
    draw:  one value
    """

    ends: tuple[Any, ...]
    draw: Callable[[random.Random], Any]


Space = Mapping[str, Values]
TRIED = 20  # draws of each setting


def read(path: Path, cfg: Config) -> Space:
    """The space of a file. Raises ValueError, naming file and key.

    Ends and some draws are tried on the recipe at once: a wrong key or value shows before the first run.
    """
    told = strict_yaml.read(path)
    if not told:
        raise ValueError(f"{path}: the space is empty: name a setting and what it may be")
    space, chance = dict[str, Values](), random.Random(0)
    for key, values in told.items():
        try:
            space[key] = _parsed(values, key in SETTINGS and SETTINGS[key].rule.kind is int)
            drawn = [space[key].draw(chance) for _ in range(TRIED)]
            for value in (*space[key].ends, *drawn):
                cfg.replace({key: value}, origin=path.name)
        except ValueError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    return space


def _parsed(values: Any, whole: bool) -> Values:
    """whole: whether the setting is a whole number."""
    if isinstance(values, list) and values:
        return Values(tuple(values), lambda chance: chance.choice(values))
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log", "step"}:
        raise ValueError(f"must be a list of choices or {{low, high, log, step}}, got {values!r}")
    low, high, log = values["low"], values["high"], bool(values.get("log"))
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (low, high))
    if not numbers or low > high or (log and low <= 0):
        least = "above 0 (a logarithm)" if log else "numbers"
        raise ValueError(f"low and high must be {least}, low at most high, got {low!r} and {high!r}")
    if log and "step" in values:
        raise ValueError("log and step don't go together: leave one out")
    steps = isinstance(low, int) and isinstance(high, int) and not log
    step = values.get("step", 1 if steps else None)
    fits = isinstance(step, (int, float)) and step > 0 and math.isfinite((high - low) / step)
    if step is not None and not fits:
        raise ValueError(f"step must be a number above 0 that fits the range, got {step!r}")
    return Values((low, high), partial(_number, low, high, step, log, whole))


def _number(
    low: float, high: float, step: float | None, log: bool, whole: bool, chance: random.Random
) -> float:
    """A number from low to high, both included: in steps (whole numbers by default), or of four digits."""
    if step is not None:
        return low + step * chance.randint(0, math.floor((high - low) / step + 1e-9))
    drawn = math.exp(chance.uniform(math.log(low), math.log(high))) if log else chance.uniform(low, high)
    return round(drawn) if whole and log else min(max(float(f"{drawn:.4g}"), low), high)


def draw(space: Space, chance: random.Random) -> dict[str, Any]:
    """One value for each setting of the space."""
    return {key: values.draw(chance) for key, values in space.items()}
