"""A line now and then while something long runs: a thread looks and says. Touches nothing on the clock."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

TERMINAL_SECONDS, LOG_SECONDS = 5.0, 60.0  # of silence, before a line on a terminal, and in a log


class Heartbeat:
    """Says `where()` on standard error when nothing was said for a while; `quiet` says nothing of itself."""

    def __init__(
        self, where: Callable[[], str], *, quiet: bool = False, patience: float | None = None
    ) -> None:
        self.where, self.quiet = where, quiet
        self.patience = patience or (TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS)
        self._said_at, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def say(self, line: str) -> None:
        """One line; the silence begins anew."""
        self._said_at = time.monotonic()
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            rest = self._said_at + self.patience - time.monotonic()
            if self._over.wait(max(rest, 0.01)):
                return
            if time.monotonic() - self._said_at >= self.patience:
                self.say(self.where())
