"""timing: the clock adds up, and repeated calls are divided out."""

import pytest

from fastresnet.machine import timing


@pytest.fixture
def clock(monkeypatch):
    """`clock.sleep(seconds)` moves the only clock there is."""

    class Clock:
        time = 100.0

        def sleep(self, seconds):
            self.time += seconds

    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.time)
    return made


def test_laps_add_up_to_the_wall_time(clock):
    watch = timing.Stopwatch()
    clock.sleep(0.5)
    watch.lap("one")
    clock.sleep(0.25)
    watch.lap("two")
    clock.sleep(1.0)
    watch.lap("one")
    clock.sleep(2.0)
    assert watch.seconds == {"one": 1.5, "two": 0.25}


def test_repeated_calls_are_divided_out(clock):
    assert timing.time_calls(lambda: clock.sleep(0.5), 3, repeats=4) == [0.5] * 3
