"""A search for better recipes: successive halving over seeds (Jamieson and Talwalkar 2016). Prints nothing.

Trial 0 is the recipe as it is; the others draw from a space. In each round all trials still in it run the
same seeds, twice as many as before, and the better half goes on. A trial is judged by its gain over the
recipe at the same seeds, and its standard error: what chance could turn is not dropped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any, Literal

from fastresnet.bench.protocol import protocol, space
from fastresnet.bench.protocol.beside import Seat
from fastresnet.bench.protocol.runlog import RunLog
from fastresnet.data import Splits
from fastresnet.series.rows import Row, accuracy_of

RUN_STD = 0.0014  # of a run's accuracy, until this search has seen its own (DESIGN: 0.13 to 0.15 points)
PRICE = 0.007  # of accuracy that a run of twice the cost must gain: from 94 to 96 % others paid 2.8 doublings
FIXED = {
    "recipe": "the recipe",
    "config": "the settings",
    "space": "the space",
    "objective": "the objective",
    "data": "the data",
}
Objective = Literal["seconds", "flops"]


@dataclass
class Trial:
    """Some settings and their runs so far; `message` says why it can't run."""

    number: int
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    message: str | None = None

    @property
    def who(self) -> str:
        return f"trial {self.number}"

    @property
    def seeds(self) -> set[int]:
        return {row["seed"] for row in self.rows}

    def accuracy(self) -> float:
        """The mean over its runs; a failed run knows nothing."""
        return fmean(accuracy_of(row) for row in self.rows)

    def cost(self, objective: Objective) -> float:
        return fmean(cost_of(row, objective) for row in self.rows)


@dataclass(frozen=True)
class Gain:
    """Of a trial over the recipe: mean paired difference and its standard error, shares of accuracy."""

    mean: float
    error: float
    pairs: int


def cost_of(row: Row, objective: Objective) -> float:
    return float(row["flops"] if objective == "flops" else row["seconds"]["total"] or 0.0)


def trials(space_: space.Space, count: int) -> list[Trial]:
    """The recipe and `count` draws, the same for the same space; more draws begin with the same ones."""
    chance = random.Random(0)
    return [Trial(0, {})] + [Trial(number, space.draw(space_, chance)) for number in range(1, count + 1)]


def gains(tried: Sequence[Trial], objective: Objective, price: float = PRICE) -> dict[int, Gain]:
    """Each trial's gain over trial 0 at the same seeds: accuracy, less `price` a doubling of the cost."""
    base = {row["seed"]: row for row in tried[0].rows}
    pairs = {
        trial.number: [
            _gain(base[row["seed"]], row, objective, price) for row in trial.rows if row["seed"] in base
        ]
        for trial in tried
    }
    spread = _spread([values for number, values in pairs.items() if number and len(values) > 1])
    return {
        number: Gain(fmean(values), spread / math.sqrt(len(values)) if number else 0.0, len(values))
        for number, values in pairs.items()
        if values
    }


def _gain(base: Row, row: Row, objective: Objective, price: float) -> float:
    doublings = math.log2(cost_of(row, objective) / cost_of(base, objective))
    return accuracy_of(row) - accuracy_of(base) - price * doublings


def _spread(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation of a paired difference, pooled over all trials with several."""
    if not groups:
        return math.sqrt(2.0) * RUN_STD
    squares = sum(variance(values) * (len(values) - 1) for values in groups)
    return math.sqrt(squares / sum(len(values) - 1 for values in groups))


def survivors(tried: Sequence[Trial], found: dict[int, Gain]) -> list[Trial]:
    """The recipe, the better half of the others, and who is within two standard errors of that half."""
    others = sorted((t for t in tried if t.number and t.number in found), key=lambda t: -found[t.number].mean)
    kept = others[: math.ceil(len(others) / 2)]
    if not kept:
        return [tried[0]]
    last = found[kept[-1].number]

    def may_be_better(trial: Trial) -> bool:
        own = found[trial.number]
        return own.mean + 2 * math.hypot(own.error, last.error) > last.mean

    near = [trial for trial in others[len(kept) :] if may_be_better(trial)]
    return [tried[0], *kept, *near[: len(kept) // 2]]


def rounds(seeds: int) -> Iterator[int]:
    """How many seeds each trial has run after a round: 1, 2, 4, … and `seeds` at last."""
    count = 1
    while count < seeds:
        yield count
        count *= 2
    yield seeds


Piece = tuple[int, list[int]]  # a trial's number, and the seeds that one process runs of it
Came = tuple[int, Row | str]  # a trial's number, and a run or why it can't run


@dataclass(frozen=True)
class Search:
    """A search under way.

    tried:  all trials; what is known of their runs is known in the first process alone
    log:    of that one; None in others
    at:     told which run of this process is under way
    """

    seat: Seat
    splits: Splits
    tried: Sequence[Trial]
    log: RunLog | None
    objective: Objective
    price: float
    at: Callable[[str], None] = lambda line: None

    def run(self, seeds: int, said: Callable[[Trial, Row], None]) -> None:
        """All rounds; runs that the log holds already are not run again."""
        for trial in self.tried:
            trial.rows = self.log.of(trial.who) if self.log else []

        def heard(came: Came) -> None:
            trial, row = self.tried[came[0]], came[1]
            if isinstance(row, str):
                trial.message = row
                return
            assert self.log is not None, "it is the first process that hears"
            self.log.add(trial.who, row)
            trial.rows.append(row)
            said(trial, row)

        left, table = list(self.tried), self.seat.table
        for count in rounds(seeds):
            table.share(table.of_each(pieces(left, count, self.seat.at_once))[0], self._take, heard)
            left = [trial for trial in left if trial.message is None]
            if count < seeds:
                left = survivors(left, gains(left, self.objective, self.price))

    def _take(self, piece: Piece) -> Iterator[Came]:
        number, seeds = piece
        trial = self.tried[number]
        self.at(f"{trial.who} is made ready")
        try:
            cfg = self.seat.cfg.replace(trial.settings, origin="search")
            prepared = protocol.prepare(cfg, self.splits)
        except ValueError as error:  # settings that can't stand together
            if not number:
                raise
            yield number, str(error)
            return
        try:
            for seed in seeds:
                self.at(f"{trial.who}, seed {seed} is under way")
                split = "val" if "val" in prepared.experiment.eval_loaders else "test"
                row = protocol.run_once(prepared, seed, timed=self.seat.timed, split=split)
                row["flops"], row["settings"] = prepared.flops["train"], trial.settings
                yield number, row
        finally:
            prepared.experiment.close()


def pieces(left: Sequence[Trial], count: int, processes: int) -> list[Piece]:
    """What a round's runs lack, a piece a trial, or several where more processes than trials are there."""
    parts, found = max(1, processes // len(left)), list[Piece]()
    for trial in left:
        missing = [seed for seed in range(count) if seed not in trial.seeds]
        found += [(trial.number, missing[part::parts]) for part in range(parts)]
    return [piece for piece in found if piece[1]]
