"""Time on a CUDA GPU alone: calls queue behind a pause, so that the host's launches don't count."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fastresnet.bench.measuring.harness import FEWEST, MOST, keeping
from fastresnet.machine import timing

# calls a sample, queued at once
QUEUED = 20
# times the seconds that queueing took before: so long the device pauses
PAUSE = 3.0
# cycles a second; no GPU's clock is faster, so that a pause is never shorter than asked for
FASTEST_CLOCK = 3e9
# samples after which the host is held to be unable to run ahead
TRIES = 5


def sample_queued(function: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds that a call keeps a CUDA GPU busy, whatever its launch takes; one entry for QUEUED calls.

    Empty where the host can't run ahead, because a call waits for the device.
    """
    began, samples, tries = time.perf_counter(), list[float](), 0
    pause = 1e-3
    with keeping(samples):
        while len(samples) < MOST and (len(samples) < FEWEST or time.perf_counter() - began < seconds):
            took, ahead, queueing = _queued(function, device, pause)
            samples += [took] if ahead else []
            pause, tries = max(pause, PAUSE * queueing), tries + 1
            if tries == TRIES and not samples:
                break
    return samples


def _queued(function: Callable[[], object], device: torch.device, pause: float) -> tuple[float, bool, float]:
    """(seconds a call, whether all were queued before the device began, seconds of queueing)."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    timing.synchronize(device)
    torch.cuda._sleep(int(pause * FASTEST_CLOCK))
    began = time.perf_counter()
    start.record()
    for _ in range(QUEUED):
        function()
    end.record()
    queueing, ahead = time.perf_counter() - began, not start.query()
    timing.synchronize(device)
    return start.elapsed_time(end) / 1e3 / QUEUED, ahead, queueing
