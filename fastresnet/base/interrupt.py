"""Ctrl-C, SIGTERM and SIGHUP as a request that a run can answer between two steps."""

from __future__ import annotations

import signal
import time
from types import FrameType

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
AGAIN_SECONDS = 1.0  # a launcher passes on to its processes what the terminal has told them already


class Interrupted(KeyboardInterrupt):
    """The user stopped the run, and all that continuing needs is on the disk."""


class StopRequest:
    """A signal asks for a stop at the next step; another one, a second later or more, stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def __enter__(self) -> StopRequest:
        self._before = {}
        for number in [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]:
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread (a notebook's worker): Ctrl-C keeps its usual meaning
                break
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._asked_at >= AGAIN_SECONDS:
            raise KeyboardInterrupt
        self.asked, self._asked_at = True, now if not self.asked else self._asked_at
