"""timing: the clock adds up, and repeated calls are divided out."""

import time

from fastresnet.machine import timing


def test_laps_add_up_to_the_wall_time():
    with timing.Stopwatch() as watch:
        time.sleep(0.01)
        watch.lap("one")
        time.sleep(0.005)
        watch.lap("two")
        watch.lap("one")
    laps = watch.seconds["one"] + watch.seconds["two"]
    assert 0.015 <= laps <= watch.seconds["wall"] < laps + 0.01
    assert list(watch.seconds) == ["one", "two", "wall"]


def test_repeated_calls_are_divided_out():
    samples = timing.time_calls(lambda: time.sleep(0.002), 3, repeats=4)
    assert len(samples) == 3 and all(0.002 <= t < 0.05 for t in samples)
