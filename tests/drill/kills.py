"""Runs that are killed: at each kind of operation on files, in the middle of writing, at any time, twice."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from fastresnet.base import exits
from fastresnet.runs.folder import LAST
from tests.drill import operations
from tests.drill.ground import Ground, last_words
from tests.drill.outcome import Outcome, lost

PICTURED = {"run.report": True}
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
Attempt = Callable[[Ground, Random, int], Outcome]


def at_a_file_operation(ground: Ground, chance: Random, number: int) -> Outcome:
    """Killed before an operation on files, or in the middle of writing one; each kind in turn."""
    kinds = [*dict.fromkeys(ground.operations), "write"]
    kind = kinds[number % len(kinds)]
    if kind == "write":
        largest = (ground.place / "whole" / LAST).stat().st_size
        hook: Callable[[Path], object] = partial(_killed_beyond, chance.randrange(1, largest))
    else:
        index = chance.randrange(ground.operations.count(kind))
        hook = partial(operations.at, kind=kind, index=index, mishap=_kill)
    with ground.folder() as folder:
        code = ground.train(folder, hook, PICTURED)
        if code not in KILLED:
            return lost(f"it wasn't killed, but ended with {code}: {last_words(folder)}")
        return ground.finish(folder, PICTURED)


def at_any_time(number: signal.Signals, times: int = 1) -> Attempt:
    """Attempts that send a signal after a random share of a run, so many times in a row.

    A run that had ended before SIGKILL came wasn't killed: another one is begun.
    """

    def attempt(ground: Ground, chance: Random, _: int) -> Outcome:
        codes = list[int]()
        with ground.folder() as folder:
            while len(codes) < times and not (folder / "result.json").exists():
                codes.append(ground.killed_after(chance.uniform(0, ground.seconds), folder, number, {}))
                if codes[-1] not in (exits.DONE, exits.INTERRUPTED, -number):
                    return lost(f"it ended with {codes[-1]}: {last_words(folder)}")
            if number != signal.SIGKILL or codes.count(-number) == times:
                return ground.finish(folder)
        return attempt(ground, chance, _)

    return attempt


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_beyond(size: int, folder: Path) -> None:
    """The system ends this process where it writes a file beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
