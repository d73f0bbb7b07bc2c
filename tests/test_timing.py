"""timing: the clock adds up, and repeated calls are divided out."""

import os
import subprocess
import time

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


def test_a_process_knows_how_long_it_lives(tmp_path, monkeypatch):
    first, began = timing.process_age(), time.perf_counter()
    told = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True)
    assert first is not None and abs(first - int(told.stdout)) < 3
    assert timing.process_age() - first == pytest.approx(time.perf_counter() - began, abs=0.03)
    for text in ("", "7 (a name) R 1 2 3", "7 (a name) R " + "0 " * 40):
        (tmp_path / "stat").write_text(text)
        monkeypatch.setattr(timing, "OWN_STAT", tmp_path / "stat")
        assert timing.process_age() is None, "no guess"


def test_a_name_with_brackets_and_spaces_hides_no_start(tmp_path, monkeypatch):
    plain = timing.process_age()
    text = timing.OWN_STAT.read_text().replace("(", "(x) y 1 (", 1)
    (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(timing, "OWN_STAT", tmp_path / "stat")
    assert timing.process_age() == pytest.approx(plain, abs=1)
