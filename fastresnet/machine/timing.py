"""The only clock: when work on a device is really done, and how long calls take.

Refuses to know models, files or settings, to judge what it measures, and to print.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fastresnet.base.system import lines

OWN_STAT = Path("/proc/self/stat")
TURNS = "FASTRESNET_TURNS"  # in the environment: the number of the socket over which turns are given out


def synchronize(device: torch.device | str | None = None) -> None:
    """Wait until everything queued on `device` is done. A CPU has nothing to wait for."""
    kind = torch.device(device or "cpu").type
    if kind == "cuda":  # ROCm answers to this name too
        torch.cuda.synchronize(device)
    elif kind != "cpu":
        backend = getattr(torch, kind, None)
        if backend is not None and hasattr(backend, "synchronize"):
            backend.synchronize()


def now(device: torch.device | str | None = None) -> float:
    """Seconds on a monotonic clock, after all queued work of `device` is done."""
    synchronize(device)
    return time.perf_counter()


def process_age() -> float | None:
    """Seconds since the operating system started this process: the interpreter's start and imports count.

    To a hundredth. None where no /proc tells it.
    """
    fields = "".join(lines(OWN_STAT)).rpartition(")")[2].split()  # before that its name, of any characters
    ticks, clock = int(fields[19]) if len(fields) > 19 else 0, getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) - ticks / os.sysconf("SC_CLK_TCK") if ticks and clock else None


class Stopwatch:
    """Splits a stretch of time into named laps, `seconds`, with a synchronise at each boundary.

    A name used twice adds up.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._last = now(device)

    def lap(self, name: str) -> float:
        """Book the time since the last boundary under `name`; returns those seconds."""
        moment = now(self.device)
        passed, self._last = moment - self._last, moment
        self.seconds[name] = self.seconds.get(name, 0.0) + passed
        return passed


class Turns:
    """A process's turns among several of which only one works at any moment; alone it has them all.

    Whoever started them gives the turns out, over a socket each.
    """

    def __init__(self) -> None:
        number = os.environ.pop(TURNS, None)
        self._link = socket.socket(fileno=int(number)) if number else None
        self._waited = self._began = 0.0
        self.pass_on()

    @property
    def alone(self) -> bool:
        """Whether nobody gives this process its turns, or not any more."""
        return self._link is None

    def clock(self) -> float:
        """Seconds on a monotonic clock that stands still while others have their turn."""
        return time.perf_counter() - self._waited

    def pass_on(self, least: float = 0.0) -> bool:
        """After `least` seconds of this turn let the others work, and wait for the next one. Did they?"""
        if self._link is None or self.clock() - self._began < least:
            return False
        left, moment = time.perf_counter(), signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            self._link.sendall(b".")
            self._link = self._link if self._link.recv(1) else None
        except OSError:
            self._link = None
        self._waited += time.perf_counter() - left
        self._began = self.clock()
        signal.setitimer(signal.ITIMER_REAL, *moment)  # what may end this one's work stands still, too
        return not self.alone


@functools.cache
def turns() -> Turns:
    """This process's turns. The first call waits for the first of them."""
    return Turns()


def time_calls(
    function: Callable[[], object], count: int, device: torch.device | str = "cpu", *, repeats: int = 1
) -> list[float]:
    """Seconds a call of `function`, `count` samples of `repeats` calls each.

    CUDA and ROCm: device events around each sample, one synchronise at the end, so that the host may run
    ahead as it does in training. Elsewhere: the monotonic clock with a synchronise on both sides.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _time_with_events(function, count, device, repeats)
    samples = []
    for _ in range(count):
        start = now(device)
        for _ in range(repeats):
            function()
        samples.append((now(device) - start) / repeats)
    return samples


def _time_with_events(
    function: Callable[[], object], count: int, device: torch.device, repeats: int
) -> list[float]:
    with torch.cuda.device(device):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        synchronize(device)
        marks[0].record()
        for mark in marks[1:]:
            for _ in range(repeats):
                function()
            mark.record()
        synchronize(device)
        return [a.elapsed_time(b) / 1e3 / repeats for a, b in zip(marks, marks[1:])]
