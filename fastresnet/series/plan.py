"""Which runs make a series: seeds, the values of one setting, a folder's name for each. Runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastresnet.base import sinks, strict_yaml
from fastresnet.machine.distributed import check_alone
from fastresnet.settings.config import Config
from fastresnet.settings.keys import COMMAND_LINE, known
from fastresnet.settings.rule import Rule

COUNT = Rule(kind=int, low=1, high=1000)  # of seeds
ORIGIN = "the series"  # who set what its runs differ in


@dataclass(frozen=True)
class Member:
    """One run: the name of its folder inside the series', and its settings but for that folder."""

    name: str
    seed: int
    value: object  # of the setting that is swept, None without one
    cfg: Config


@dataclass(frozen=True)
class Plan:
    """What all runs have in common, and what they differ in; `key` is the setting that is swept, if any."""

    cfg: Config
    seeds: tuple[int, ...]
    key: str | None = None
    values: tuple[object, ...] = (None,)

    @property
    def kind(self) -> str:
        """What its folder's name ends in."""
        return "sweep" if self.key else "seeds"

    def members(self) -> list[Member]:
        """All runs, every value with the first seed first: cut off, the values are still on a par."""
        return [self._member(seed, value) for seed in self.seeds for value in self.values]

    def _member(self, seed: int, value: object) -> Member:
        settings: dict[str, object] = {"run.seed": seed}
        name = f"s{seed}"
        if self.key:
            settings[self.key] = value
            last = self.key.rpartition(".")[2]
            name = sinks.for_path(f"{last}={strict_yaml.write(value)}").rstrip("-") + f"-{name}"
        return Member(name, seed, value, self.cfg.replace(settings, origin=ORIGIN))


def plan(cfg: Config, seeds: int | None = None, sweep: Mapping[str, Sequence[object]] | None = None) -> Plan:
    """The series of `seeds` runs for each value that `sweep` gives one setting; one seed where None is said.

    Raises ValueError, in one line, for counts, settings and values that can't be, before anything is read.
    """
    if seeds is None and sweep is None:
        raise ValueError("a series needs a number of seeds, or a setting to sweep")
    check_alone()
    if cfg.run.resume is not None:
        told = "a series goes on by the same command: leave it out"
        raise ValueError(f"run.resume={cfg.run.resume} goes on with one run; {told}")
    numbers = (cfg.run.seed,) if seeds is None else tuple(range(_count(cfg, seeds)))
    if sweep is None:
        return Plan(cfg, numbers)
    found = Plan(cfg, numbers, *_swept(cfg, sweep))
    names = [member.name for member in found.members()]  # their settings are checked as they are made
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"sweep of {found.key}: two values are called {twice[0]}: leave one out")
    return found


def _count(cfg: Config, seeds: int) -> int:
    try:
        COUNT.check(seeds)
    except ValueError as error:
        raise ValueError(f"seeds {error}") from None
    if cfg.run.seed or cfg.provenance["run.seed"] == COMMAND_LINE:
        raise ValueError(f"run.seed={cfg.run.seed}: a series of n seeds has 0 to n-1: leave run.seed out")
    return seeds


def _swept(cfg: Config, sweep: Mapping[str, Sequence[object]]) -> tuple[str, tuple[object, ...]]:
    if not isinstance(sweep, Mapping) or len(sweep) != 1:
        example = "{'optim.lr': [0.1, 0.2]}"
        raise ValueError(f"sweep must be one setting with its values, {example}, got {sweep!r}")
    ((name, values),) = sweep.items()
    key = known(name, "sweep")
    if key.startswith("run."):
        raise ValueError(f"sweep of {key}: it changes no result (several seeds: --seeds, in Python seeds=)")
    if cfg.provenance[key] == COMMAND_LINE:
        raise ValueError(f"sweep of {key}: it is set too, to {cfg.flat()[key]}: leave one out")
    if not isinstance(values, (list, tuple)) or len(values) < 2:
        raise ValueError(f"sweep of {key}: two values or more are wanted, got {values!r}")
    return key, tuple(cfg.replace({key: value}, origin="sweep").flat()[key] for value in values)
