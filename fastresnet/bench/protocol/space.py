"""What a search may try: settings with choices or ranges, as YAML, and one draw from them.

optim.lr: {low: 0.1, high: 0.4, log: true}
train.epochs: {low: 6, high: 10, step: 0.5}
train.batch_size: [1000, 1536, 2000]
train.resolutions: [null, [[0.35, 24], [0.7, 28], [1.0, 32]]]
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastresnet.base import strict_yaml
from fastresnet.settings.config import Config


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        return self.values

    def draw(self, chance: random.Random) -> Any:
        return chance.choice(self.values)


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included: in steps (whole numbers by default), or of any size."""

    low: float
    high: float
    step: float | None
    log: bool

    def ends(self) -> tuple[Any, ...]:
        return self.low, self.high

    def draw(self, chance: random.Random) -> float:
        if self.log:
            return math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        if self.step is None:
            return chance.uniform(self.low, self.high)
        count = math.floor((self.high - self.low) / self.step + 1e-9)
        return self.low + self.step * chance.randint(0, count)


Space = Mapping[str, Choices | Range]


def read(path: Path, cfg: Config) -> Space:
    """The space of a file. Raises ValueError, naming file and key.

    Each end is tried on the recipe at once, so that a wrong key or value shows before the first run.
    """
    try:
        told = strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise ValueError(str(error)) from None
    if not told:
        raise ValueError(f"{path}: the space is empty: name a setting and what it may be")
    space: dict[str, Choices | Range] = {}
    for key, values in told.items():
        try:
            space[key] = _parsed(values)
            for value in space[key].ends():
                cfg.replace({key: value}, origin=path.name)
        except ValueError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    return space


def _parsed(values: Any) -> Choices | Range:
    if isinstance(values, list) and values:
        return Choices(tuple(values))
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log", "step"}:
        raise ValueError(f"must be a list of choices or {{low, high, log, step}}, got {values!r}")
    low, high, log = values["low"], values["high"], bool(values.get("log"))
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (low, high))
    if not numbers or low > high or (log and low <= 0):
        least = "above 0 (a logarithm)" if log else "numbers"
        raise ValueError(f"low and high must be {least}, low at most high, got {low!r} and {high!r}")
    whole = isinstance(low, int) and isinstance(high, int) and not log
    step = values.get("step", 1 if whole else None)
    if step is not None and not (isinstance(step, (int, float)) and step > 0):
        raise ValueError(f"step must be a number above 0, got {step!r}")
    return Range(low, high, step, log)


def draw(space: Space, chance: random.Random) -> dict[str, Any]:
    """One value for each setting of the space."""
    return {key: values.draw(chance) for key, values in space.items()}
