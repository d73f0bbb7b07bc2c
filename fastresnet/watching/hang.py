"""Watches that a run goes on: where nothing is done for too long, stack traces of all threads and an end.

A thread of its own looks once a second, whatever the main thread waits for. What holds Python's own lock
keeps this thread from running too: that is what `sentry`, a process, is for. Only time in which the watcher
itself could run counts, so a process that was stopped, or a machine that slept, is not taken for hung.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

from fastresnet.base import exits, files, system, words
from fastresnet.base.sinks import for_terminal
from fastresnet.watching import sentry

FILE = "hang.txt"  # in the run's folder
FLOOR = 600.0  # s: the least that run.hang_after=null waits, a slow disk's and a slow network's time
PATIENCE = 100.0  # of the longest time between two steps so far
FIRST = 1800.0  # s before anything was done in any case: what compiles on first use is no hang
SENTRY_AFTER = 20.0  # s: shorter runs start no second process
SAYING = 5.0  # s: a disk that doesn't answer, or a pipe that nobody reads, may be what hangs
DEBUGGERS = ("bdb", "pdb", "pydevd", "debugpy")


class Watchdog:
    """Ends the process with exit 1 where `beat` isn't called for too long inside the block.

    after:   seconds; None: PATIENCE times the longest pause so far, at least FLOOR; 0: never
    folder:  where hang.txt goes; None: standard error has all of it
    told:    how far the run got, and how it is continued: `step 7; continue with ...`
    """

    def __init__(self, after: float | None, folder: Path | None, told: Callable[[], str]) -> None:
        self.after, self.folder, self.told = after, folder, told
        self._beats, self._longest = 0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Something was done. Costs nothing."""
        self._beats += 1

    @property
    def limit(self) -> float:
        """Seconds that may pass until the next beat."""
        limit = max(FLOOR, PATIENCE * self._longest) if self.after is None else self.after
        return limit if self._beats else max(limit, FIRST)

    def __enter__(self) -> Watchdog:
        if self.after != 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        tick = min(1.0, (self.after or FLOOR) / 10)
        beats, quiet, watched, last = 0, 0.0, 0.0, time.monotonic()
        second: Sentry | None = None
        while not self._done.wait(tick):
            now = time.monotonic()
            passed, last = min(now - last, 2 * tick), now  # more: this process stood still, all of it
            watched, quiet = watched + passed, quiet + passed
            if self._beats != beats:
                self._longest = max(self._longest, quiet) if beats else 0.0
                beats, quiet = self._beats, 0.0
            if second is None and watched > min(SENTRY_AFTER, self.limit / 4):
                second = Sentry(self.folder)
            if second is not None:
                second.beat(self.limit, self._why(self.limit))
            if quiet > self.limit:
                if not _debugged():
                    self._end(quiet)
                quiet = 0.0
        if second is not None:
            second.close()

    def _end(self, quiet: float) -> None:
        """Say where every thread and every child process stands, and leave without waiting for any."""
        try:
            with tempfile.TemporaryFile(buffering=0) as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                traces = file.read()
            children = ["", "Processes started by this one:", *system.children(), self._why(quiet), ""]
            text = b"\n" + traces + "\n".join(children).encode()
            say = threading.Thread(target=_say, args=(text, self.folder), daemon=True)
            say.start()
            say.join(SAYING)
        finally:
            os._exit(exits.FAILED)

    def _why(self, quiet: float) -> str:
        where = f" and in {self.folder / FILE}" if self.folder is not None else ""
        what = f"nothing was done for {words.duration(quiet)} (run.hang_after)"
        return for_terminal(f"error: {what} at {self.told()}; stack traces above{where}")


def _debugged() -> bool:
    """Whether a thread stands in a debugger: someone is thinking."""
    for frame in sys._current_frames().values():
        inner: FrameType | None = frame
        while inner is not None:
            if inner.f_globals.get("__name__", "").partition(".")[0] in DEBUGGERS:
                return True
            inner = inner.f_back
    return False


def _say(text: bytes, folder: Path | None) -> None:
    os.write(2, text)
    if folder is not None:
        files.write_bytes(folder / FILE, text)


class Sentry:
    """A process that ends this one where not even the watchdog's thread runs: something holds Python's lock.

    Only on Linux. Where it can't be started, or has died, nothing is said: the watchdog itself still watches.
    """

    def __init__(self, folder: Path | None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        number = getattr(signal, "SIGRTMAX", None)  # which nobody else uses
        if number is None or not Path("/proc/self/stat").exists():
            return
        with suppress(OSError):
            self._traces = tempfile.TemporaryFile(buffering=0)
            faulthandler.register(number, self._traces, all_threads=True)
            where = str(folder / FILE) if folder is not None else os.devnull
            command = [sys.executable, "-I", "-S", sentry.__file__, str(os.getpid()), str(int(number)), where]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._traces, start_new_session=True
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)

    def beat(self, limit: float, told: str) -> None:
        """The watchdog runs: be patient for `limit` seconds more, then say `told`."""
        if self._process is None or self._process.stdin is None:
            return
        with suppress(OSError):  # it reads no more, or isn't there any more
            os.write(self._process.stdin.fileno(), f"{limit} {told}\n".encode())

    def close(self) -> None:
        """Let it go."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            faulthandler.unregister(signal.SIGRTMAX)
            self._traces.close()
