"""Tries of drills on several processes, each drill at the same pace; knows nothing of what they do."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from random import Random
from typing import TYPE_CHECKING

from tests.drill.outcome import Outcome, ended, is_done, lost

if TYPE_CHECKING:
    from tests.drill.ground import Ground

SILENCE = 240.0  # seconds after which a try counts as hung


@dataclass(frozen=True)
class Drill:
    """One kind of mishap.

    attempt:  (ground, chance, number of the try) -> what became of it; all it draws, it draws from `chance`
    tries:    at full length
    batch:    tries that one process makes, one after the other
    """

    name: str
    attempt: Callable[[Ground, Random, int], Outcome]
    tries: int
    batch: int = 1


@dataclass
class Tally:
    """How one drill went; seconds of all its processes."""

    seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, what: str) -> int:
        return sum(outcome.what == what for outcome in self.outcomes)


class Worker:
    """A process that makes tries of one drill and tells of each."""

    def __init__(self, drill: Drill, numbers: Sequence[int], ground: Ground, seed: int) -> None:
        self.drill, self.left, self.over = drill, list(numbers), False
        self.reader, writer = Pipe(duplex=False)
        sys.stdout.flush()
        self.began = self.heard = time.monotonic()
        self.process = os.fork()
        if not self.process:
            self.reader.close()
            code = 1
            try:
                _make(drill, numbers, ground, seed, writer)
                code = 0
            finally:
                os._exit(code)
        writer.close()

    def news(self) -> Iterator[tuple[int, Outcome]]:
        """What became of tries since the last call; a process that hung is ended, and is a loss."""
        if time.monotonic() - self.heard > SILENCE:
            self.end()
        self.over = is_done(self.process)  # asked first: what it sent before is all that it sent
        try:
            while self.reader.poll():
                number, outcome = self.reader.recv()
                self.left.remove(number)
                self.heard = time.monotonic()
                yield number, outcome
        except EOFError:
            pass
        if self.over and self.left:
            yield self.left.pop(0), lost("it hung, or took the process with it")

    def end(self) -> None:
        """With all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)


def _make(drill: Drill, numbers: Sequence[int], ground: Ground, seed: int, writer: Connection) -> None:
    os.setsid()
    words = os.open(ground.place / "words", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(words, stream)
    for number in numbers:
        try:
            outcome = drill.attempt(ground, Random(f"{seed} {drill.name} {number}"), number)
        except Exception as error:
            outcome = lost(f"{type(error).__name__}: {error}")
        writer.send((number, outcome))


def carry_out(
    drills: dict[Drill, Sequence[int]],
    ground: Ground,
    seed: int,
    *,
    processes: int,
    until: float,
    failed: Callable[[Drill, int, Outcome], None],
) -> dict[Drill, Tally]:
    """Make the tries of these numbers, none after `until`; `failed` hears of each that didn't survive."""
    waiting = {drill: list(numbers) for drill, numbers in drills.items()}
    tallies = {drill: Tally() for drill in drills}
    workers: list[Worker] = []
    try:
        while True:
            while len(workers) < processes and time.monotonic() < until and any(waiting.values()):
                drill = max(
                    filter(waiting.get, waiting), key=lambda one: len(waiting[one]) / len(drills[one])
                )
                batch, waiting[drill] = waiting[drill][: drill.batch], waiting[drill][drill.batch :]
                workers.append(Worker(drill, batch, ground, seed))
            if not workers:
                return tallies
            wait([worker.reader for worker in workers], timeout=0.5)
            for worker in list(workers):
                for number, outcome in worker.news():
                    tallies[worker.drill].outcomes.append(outcome)
                    if outcome.what != "survived":
                        failed(worker.drill, number, outcome)
                if worker.over:
                    workers.remove(worker)
                    worker.end()  # what it may have left
                    ended(worker.process)
                    waiting[worker.drill] = worker.left + waiting[worker.drill]
                    tallies[worker.drill].seconds += time.monotonic() - worker.began
    finally:
        for worker in workers:
            worker.end()
