"""Processes of a job that watch each other: where one is killed or stands still, the others end in seconds.

A process that waits in a collective for a dead one can't look up, so a thread beside it does. Each beats in
the job's store and looks at the next one's beats; who finds one missing tells all. What a process waits for
is not known here: a thread that still beats beside hung work is for whoever watches the work.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import torch.distributed as dist

from fastresnet.base import exits
from fastresnet.machine.distributed import World

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

BEAT = 0.5  # seconds
ARRIVAL = 600.0  # seconds in which all processes must have come: torchrun starts them together
SILENT = 10.0  # seconds without a beat after which a process counts as lost
FAILED_SILENT = 3.0  # the same where a collective has failed already, which is the better witness
GRACE = 3.0  # seconds in which a process may end by itself, and say why, before its thread ends it
PATIENCE = 8.0  # the same after SIGTERM, which torchrun sends to all as soon as one has failed
LEFT = b"left"
GOES_ON = "; the same command goes on from what is kept, with as many processes or with others"
GONE = "the connection to the job's store, in torchrun or the first process, is gone"


class Lost(RuntimeError):
    """Another process of this job was lost: a failure of the run, not of its input."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which torchrun sends to all when one process has failed, or when it is ended itself."""


class Watch:
    """In its block, which begins when all have come, this process ends where another one does no longer beat.

    store:   of the job, through a connection that nobody else uses
    silent:  seconds without a beat after which a process counts as lost
    lost:    what befell another process, in words; None as long as nothing did
    Its end raises Lost where what ended the block was another process's loss, which a collective reports in
    words of its own. A process that waits forever is ended by the thread, with the same line and exit 1.
    """

    def __init__(self, place: World, store: Store, silent: float = SILENT) -> None:
        self.place, self.store, self.silent = place, store, silent
        self.lost: str | None = None
        self._ending, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Watch:
        self._wait_for_all()
        self._thread.start()
        if self._in_main:
            self._before = signal.signal(signal.SIGTERM, _end_soon)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if isinstance(error, (Exception, Terminated)):
            self.lost = self._what_befell() if _may_be_another_s(error) else None
            if self.lost is None:
                self._tell(f"rank {self.place.rank} failed: {' '.join(str(error).split())[:300]}")
        elif isinstance(error, KeyboardInterrupt) and not isinstance(error, exits.Interrupted):
            self._tell(f"rank {self.place.rank} was interrupted")  # it alone, maybe
        self._done.set()
        self._thread.join(2 * BEAT)
        if self._in_main and error is None:  # else what failed is still to be said, whoever ended before
            signal.signal(signal.SIGTERM, self._before)
        with suppress(RuntimeError):
            self._beat(LEFT)
        if self.lost:
            raise Lost(self.lost + GOES_ON) from None

    def _wait_for_all(self) -> None:
        """Until each has a beat in the store. Raises Lost, naming who has not come in time."""
        self._beat(b"0")
        until, ranks = time.monotonic() + ARRIVAL, range(self.place.size)
        while not self.store.check([f"beat/{rank}" for rank in ranks]):
            if time.monotonic() > until:
                late = next(rank for rank in ranks if not self._beat_of(rank))
                raise Lost(f"rank {late} has not come in {ARRIVAL:g} s{GOES_ON}")
            time.sleep(BEAT / 10)

    # ---- in the thread -------------------------------------------------------------------------------------

    def _watch(self) -> None:
        following, seen, unchanged, beats = (self.place.rank + 1) % self.place.size, b"", 0, 0
        try:
            while not self._done.wait(BEAT):
                beats += 1
                self._beat(str(beats).encode())
                beat = self._beat_of(following)
                # Looks are counted, not seconds: a machine that was suspended finds all as they were.
                unchanged = unchanged + 1 if beat == seen != LEFT else 0
                seen = beat
                told = self._told()
                if told is None and unchanged * BEAT > self.silent:
                    told = self._tell(f"rank {following} shows no sign of life for {self.silent:g} s")
                if told:
                    self._end(told)
        except RuntimeError:
            self._end(GONE)

    def _end(self, message: str) -> None:
        """End the process unless it is ending by itself."""
        if not self._ending.wait(GRACE):
            os._exit(exits.one_line(message + GOES_ON, exits.FAILED))

    # ---- in the process itself -----------------------------------------------------------------------------

    def _what_befell(self) -> str | None:
        """After a failed collective: what befell another process; None where all are well."""
        try:
            before = self._beats()
            for _ in range(round(FAILED_SILENT / BEAT)):
                if told := self._told():
                    return told
                time.sleep(BEAT)
            still = [rank for rank, beat in self._beats().items() if beat == before[rank] != LEFT]
            return self._tell(f"rank {still[0]} shows no sign of life") if still else None
        except RuntimeError:
            return GONE

    # ---- in the store --------------------------------------------------------------------------------------

    def _beat(self, beat: bytes) -> None:
        self.store.set(f"beat/{self.place.rank}", beat.decode())

    def _beat_of(self, rank: int) -> bytes:
        key = f"beat/{rank}"
        return self.store.get(key) if self.store.check([key]) else b""

    def _beats(self) -> dict[int, bytes]:
        return {rank: self._beat_of(rank) for rank in range(self.place.size) if rank != self.place.rank}

    def _told(self) -> str | None:
        return self.store.get("lost").decode() if self.store.check(["lost"]) else None

    def _tell(self, message: str) -> str:
        """Let all know, unless they know of another loss already; returns what they know."""
        with suppress(RuntimeError):
            return self.store.compare_set("lost", "", message).decode()
        return message


def _end_soon(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(PATIENCE, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def _may_be_another_s(error: Exception | Terminated) -> bool:
    """Whether another process may be what failed: gloo's errors of collectives have no class of their own."""
    return type(error) is RuntimeError or isinstance(error, (dist.DistError, Terminated))
