"""What every benchmark shares: cases with a time slice, samples, marks for noise, rows for mishaps.

Knows nothing of models or loaders. A case that fails, runs out of memory or out of time is a row, never the
end of the suite.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from fastresnet.base import words
from fastresnet.base.statistics import quantiles
from fastresnet.bench.measuring.file import Figure, Row
from fastresnet.machine import memory, meters, timing

# seconds; calls are grouped until a sample lasts this long, so that the clock costs far below 1 %
SHORTEST_SAMPLE = 2e-3
# samples a case
FEWEST, MOST = 5, 400
# of the median; above these a row is marked noisy
SPREAD_LIMIT, DRIFT_LIMIT = 0.06, 0.03
# seconds, where several processes take turns
LEAST_TURN = 0.1
# samples between two looks at the clock
CPU_CHUNK, GPU_CHUNK = 1, 20
# seconds; a call of that length needs no grouping
LONG_CALL = 0.2


class NotAvailable(Exception):
    """This machine or PyTorch can't do what the case asks: a row, not a failure."""


class OutOfTime(Exception):
    """The case's or the suite's time is up."""


class Disagrees(Exception):
    """A variant computes something else than the reference does: its speed means nothing."""


@dataclass(frozen=True)
class Measured:
    """What a case brings back: raw samples in the case's unit, and figures derived from them."""

    samples: list[float]
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One row to measure.

    settings:  what is run; with `part` and `name` the identity by which two files are compared
    measure:   gets the seconds it may sample for
    weight:    share of the time that is left, relative to the other cases
    estimate:  seconds that the shortest useful measurement takes, where that can be told beforehand
    """

    part: str
    name: str
    settings: Mapping[str, object]
    measure: Callable[[float], Measured]
    unit: str = "s"
    weight: float = 1.0
    estimate: Callable[[], float] = lambda: 0.0

    @property
    def id(self) -> str:
        return f"{self.part}/{self.name}"


# ---- samples -----------------------------------------------------------------------------------------------


def sample(
    function: Callable[[], object], device: torch.device, seconds: float, *, fewest: int = FEWEST
) -> list[float]:
    """Seconds a call of `function`, one entry a sample, for about `seconds` but at least `fewest` samples.

    One call warms up; short calls are grouped until a sample lasts SHORTEST_SAMPLE. When the case's time is
    up, what there is must do: few samples mark the row as noisy.
    """
    turns = timing.turns()
    began = turns.clock()
    once, repeats = _grouping(function, device)
    chunk = GPU_CHUNK if device.type == "cuda" and once < LONG_CALL else CPU_CHUNK
    samples: list[float] = []
    with keeping(samples):
        while len(samples) < MOST and (len(samples) < fewest or turns.clock() - began < seconds):
            samples += timing.time_calls(function, chunk, device, repeats=repeats)
            if turns.pass_on(LEAST_TURN):
                function()  # the caches are another's now
    return samples


def _grouping(function: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """(seconds a call, calls a sample), after one call that warms up."""
    once = timing.time_calls(function, 1, device)[0]
    if once < LONG_CALL:
        once = min(timing.time_calls(function, 2, device))
    repeats = _repeats(once)
    if repeats > 1:  # a call alone includes the wait for the device, many in a row don't
        once = min(timing.time_calls(function, 2, device, repeats=repeats))
        repeats = _repeats(once)
    return once, repeats


def _repeats(once: float) -> int:
    return max(1, math.ceil(SHORTEST_SAMPLE / max(once, 1e-9)))


@contextlib.contextmanager
def keeping(samples: Sequence[object]) -> Iterator[None]:
    """Let the end of the time end the block, where a sample was taken by then."""
    try:
        yield
    except OutOfTime:
        if not samples:
            raise


def overhead() -> dict[str, float]:
    """The harness's own time as a share of the shortest sample, and the clock's resolution in seconds."""
    costs = timing.time_calls(lambda: None, 2000)
    ticks = [time.perf_counter() for _ in range(2000)]
    steps = [b - a for a, b in zip(ticks, ticks[1:]) if b > a]
    return {
        "overhead_share": median(costs) / SHORTEST_SAMPLE,
        "clock_resolution_seconds": min(steps, default=0.0),
    }


def noise(samples: Sequence[float]) -> str | None:
    """Why these samples can't be trusted to a few percent, or None: too few, too spread, or drifting."""
    if len(samples) < FEWEST:
        return f"{len(samples)} sample{'s' * (len(samples) != 1)} only"
    found = quantiles(samples)
    if not found["median"]:
        return None
    spread = (found["p80"] - found["p20"]) / abs(found["median"])
    half = len(samples) // 2
    drift = abs(median(samples[half:]) / median(samples[:half]) - 1) if median(samples[:half]) else 0.0
    if spread > SPREAD_LIMIT:
        return f"spread {words.percent(spread, digits=0)}"
    return f"drift {words.percent(drift, digits=0)}" if drift > DRIFT_LIMIT else None


# ---- cases -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside the block when `seconds` are over.

    Needs Unix and the main thread; elsewhere the block just runs on.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s, its time was up")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_case(case: Case, device: torch.device, seconds: float, limit: float) -> Row:
    """Measure one case and return its row; never raises but for KeyboardInterrupt.

    seconds:  what it may sample for
    limit:    seconds after which it is stopped, done or not
    """
    turns = timing.turns()
    turns.pass_on()
    began = turns.clock()
    memory.reset_peak(device)
    measured, status, message = _attempt(case, seconds, limit)
    seen = meters.condition(device)  # at once: a GPU at rest no longer says what held it back
    memory.give_back(device)
    why = noise(measured.samples) if measured.samples else None
    return {
        "id": case.id,
        "part": case.part,
        "name": case.name,
        "settings": dict(case.settings),
        "status": status,
        "message": message,
        "unit": case.unit,
        "better": "lower" if case.unit in ("s", "share") else "higher",
        "samples": [float(f"{value:.6g}") for value in measured.samples],
        "quantiles": quantiles(measured.samples) if measured.samples else None,
        "noisy": why is not None,
        "noise": why,
        "figures": measured.figures,
        "condition": seen,
        "seconds": round(turns.clock() - began, 3),
    }


def _attempt(case: Case, seconds: float, limit: float) -> tuple[Measured, str, str | None]:
    """(what was measured, status, message)."""
    try:
        with time_limit(limit):
            needed = case.estimate()
            if limit <= 0 or needed > limit:
                raise OutOfTime(f"needs about {max(needed, 1):.0f} s, {max(limit, 0):.0f} s were left")
            return case.measure(seconds), "ok", None
    except Exception as error:
        return Measured([]), *_what_happened(error)


def _what_happened(error: Exception) -> tuple[str, str]:
    """The status and one line for a case that raised."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, NotAvailable):
        return "not available", text
    if isinstance(error, OutOfTime):
        return "skipped", text
    if memory.ran_out(error):
        return "out of memory", text or type(error).__name__
    return "failed", text if isinstance(error, Disagrees) else f"{type(error).__name__}: {text}"


class Schedule:
    """Shares the time that is left among the cases that are left, and never grants more than there is.

    total:    seconds for the whole suite
    began:    timing.turns().clock() where its clock starts
    reserve:  seconds kept back for writing the file
    """

    def __init__(self, cases: Sequence[Case], total: float, began: float, reserve: float = 2.0) -> None:
        self.cases, self.began, self.end = list(cases), began, began + total - reserve
        self.weight_left = sum(case.weight for case in self.cases)

    def left(self) -> float:
        """Seconds until the suite must end."""
        return self.end - timing.turns().clock()

    def slice(self, case: Case) -> tuple[float, float]:
        """(seconds to sample for, seconds after which the case is stopped) of the next case.

        One that takes longer than its share may borrow a quarter of what is meant for the later ones.
        """
        left = self.left()
        share = left * case.weight / max(self.weight_left, case.weight)
        self.weight_left -= case.weight
        borrowed = 0.25 * max(left - share, 0.0)
        return 0.6 * share, max(0.0, min(left, share + borrowed))
