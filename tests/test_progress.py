"""What is printed while a run trains."""

import errno
import io
import os
import signal

import pytest

from fastresnet.base import exits as interrupt
from fastresnet.runs import progress
from fastresnet.runs.progress import Progress

ROW = {
    "epoch": 1,
    "train_loss": 1.5,
    "train_accuracy": 0.5,
    "val_accuracy": None,
    "test_accuracy": 0.6125,
    "lr": 0.4,
    "images_per_second": 1234.4,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printer(mode="auto", err=None):
    one = Progress(mode, peek=True, out=io.StringIO(), err=err or io.StringIO())
    one.start(epochs=2.0, total_steps=20, batch_size=100, first_step=0, advise=False)
    return one


def test_an_epoch_is_one_line_on_standard_output():
    one = printer()
    one.epoch(ROW, seconds_left=8)
    line = one.out.getvalue()
    assert line.count("\n") == 1
    for part in (
        "1/2",
        "loss 1.500",
        "train 50.00 %",
        "test 61.25 %",
        "lr 0.4",
        "1,234 images/s",
        "left 8.0 s",
    ):
        assert part in line
    assert "val" not in line


def test_a_terminal_gets_a_live_line_that_the_next_print_wipes():
    one = printer(err=Terminal())
    one._shown_at = -1e9
    one.step(0, 3, 2.5)
    live = one.err.getvalue()
    assert "loss 2.500" in live and "\n" not in live
    one.note("hello")
    assert one.err.getvalue().endswith("\rhello\n")


def test_elsewhere_a_plain_line_comes_every_few_seconds():
    one = printer()
    one.step(0, 1, 2.5)
    assert one.err.getvalue() == ""
    one._shown_at = -1e9
    one.step(0, 2, None)
    assert (
        one.err.getvalue().count("\n") == 1
        and "loss" not in one.err.getvalue()
        and "\r" not in one.err.getvalue()
    )


def test_off_prints_nothing_but_banners():
    one = printer("off", err=Terminal())
    one._shown_at = -1e9
    one.step(0, 1, 1.0)
    one.epoch(ROW, 1.0)
    one.note("x")
    one.say("y")
    assert one.err.getvalue() == one.out.getvalue() == ""
    one.banner("SYNTHETIC DATA")
    assert "SYNTHETIC DATA" in one.err.getvalue()


def test_a_long_run_on_a_cpu_is_told_once_how_long_and_what_suits(monkeypatch):
    clock = iter(range(0, 100000, 1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    one = Progress("plain", out=io.StringIO(), err=io.StringIO())
    one.start(epochs=16.0, total_steps=1000, batch_size=100, first_step=0, advise=True)
    for step in range(1, 9):
        one.step(0, step, None)
    assert one.err.getvalue().count("cpu.yaml") == 1


def test_a_short_run_gets_no_advice():
    one = Progress("plain", out=io.StringIO(), err=io.StringIO())
    one.start(epochs=1.0, total_steps=10, batch_size=100, first_step=0, advise=True)
    for step in range(1, 9):
        one.step(0, step, None)
    assert "cpu.yaml" not in one.err.getvalue()


class _Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_closed_pipe_is_told_once_and_ends_nothing():
    err = io.StringIO()
    one = Progress("plain", out=_Closed(), err=err)
    for _ in range(3):
        one.say("a line")
    assert err.getvalue() == "standard output is lost (Broken pipe): the run goes on without it\n"
    silent = Progress("plain", out=_Closed(), err=_Closed())
    silent.say("a line")
    silent.note("a note")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_asks_for_a_stop_and_only_a_later_one_stops_at_once(name, monkeypatch):
    number = getattr(signal, name)
    with interrupt.StopRequest() as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher passes it on
        assert stop.asked
        monkeypatch.setattr(interrupt, "AGAIN_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.getsignal(number)
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
