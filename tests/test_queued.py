"""queued: calls are timed on the device alone, and only while the host runs ahead of it."""

import pytest
import torch

from fastresnet.bench.measuring import queued

CUDA = torch.device("cuda")


def device(launch, ahead_from):
    """A pretended GPU: queueing takes `launch` seconds; the host is ahead where the pause is long enough."""
    pauses = []

    def timed(function, place, pause):
        pauses.append(pause)
        return 1e-5, pause >= ahead_from, launch

    return timed, pauses


def test_the_pause_grows_until_the_host_runs_ahead(monkeypatch):
    timed, pauses = device(launch=0.004, ahead_from=0.01)
    monkeypatch.setattr(queued, "_queued", timed)
    samples = queued.sample_queued(lambda: None, CUDA, 0.0)
    assert samples == [1e-5] * queued.FEWEST  # the first sample, which was the host's, is left out
    assert len(pauses) == queued.FEWEST + 1 and pauses[1] == pytest.approx(0.012)


def test_nothing_is_sampled_where_each_call_waits_for_the_device(monkeypatch):
    timed, pauses = device(launch=0.004, ahead_from=1e9)
    monkeypatch.setattr(queued, "_queued", timed)
    assert queued.sample_queued(lambda: None, CUDA, 0.0) == []
    assert len(pauses) == queued.TRIES


@pytest.mark.gpu
def test_a_launch_costs_the_device_less_than_the_host():
    x = torch.zeros(1, device=CUDA)
    samples = queued.sample_queued(lambda: x.add_(1), CUDA, 0.1)
    assert len(samples) >= queued.FEWEST and 0 < sorted(samples)[len(samples) // 2] < 2e-5
