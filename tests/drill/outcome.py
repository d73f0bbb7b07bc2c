"""What became of a try, and of a process."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of a run or a file, and why.

    survived:  it ended as it should, or was refused in words
    lost:      it can't go on, isn't whole, left something behind, or took the process with it
    wrong:     without a word it is another one
    """

    what: str
    why: str = ""


SURVIVED = Outcome("survived")


def lost(why: object) -> Outcome:
    """Lost, and why in one line."""
    return Outcome("lost", " ".join(str(why).split()))


def wrong(why: str) -> Outcome:
    """Silently wrong, and in what."""
    return Outcome("wrong", why)


def ended(child: int) -> int:
    """Wait for a child; its exit code, negative for a signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_done(child: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
