"""What is printed while a run trains."""

import errno
import hashlib
import io
import os
import signal
import sys
import threading
import time

import pytest

from fastresnet.base import exits as interrupt
from fastresnet.runs import progress
from fastresnet.runs.progress import Progress

ROW = {
    "epoch": 1, "train_loss": 1.5, "train_accuracy": 0.5, "val_accuracy": None, "test_accuracy": 0.6125,
    "lr": 0.4, "images_per_second": 1234.4,
}  # fmt: skip


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
    wanted = "1/2|loss 1.500|train 50.00 %|test 61.25 %|lr 0.4|1,234 images/s|left 8.0 s"
    assert not [part for part in wanted.split("|") if part not in line]
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
    said = one.err.getvalue()
    assert said.count("\n") == 1 and "loss" not in said and "\r" not in said


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
    before = signal.getsignal(number)  # a shell's background job ignores some
    with interrupt.StopRequest() as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher passes it on
        assert stop.asked
        monkeypatch.setattr(interrupt, "AGAIN_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.getsignal(number)
    assert signal.getsignal(number) == before


def test_a_signal_is_answered_while_an_operation_goes_on(monkeypatch):
    """Python's own handlers wait until the operation gives the interpreter back; the answer doesn't."""
    answered = []

    class Timed(io.StringIO):
        def write(self, text):
            answered.append((time.perf_counter(), text))
            return len(text)

    monkeypatch.setattr(sys, "stderr", Timed())
    with interrupt.StopRequest() as stop:
        stop.answer = "so be it"
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # most of a second without the interpreter
        ended = time.perf_counter()
    assert stop.asked and "".join(text for _, text in answered) == "so be it\n"
    assert answered[0][0] - began < 0.9 * (ended - began)


def test_lines_on_a_terminal_fit_it_and_lose_the_least_first(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    one = Progress("auto", out=Terminal(), err=Terminal())
    one.start(epochs=200.0, total_steps=156_000, batch_size=128, first_step=0, advise=False)
    row = {**ROW, "epoch": 100, "val_accuracy": 0.5, "images_per_second": 12345.6, "lr": 0.00123}
    one.epoch(row, seconds_left=3723)
    line = one.out.getvalue()
    assert len(line) <= 81 and "train" not in line and "loss" not in line and " lr " not in line
    for part in ("epoch 100/200", "val 50.00 %", "test 61.25 %", "12,346 images/s", "left 1:02:03 h"):
        assert part in line
    one.note("a word " * 20 + "runs/" + "x" * 90)
    one.say("0123456 " * 20)
    shown = one.err.getvalue().splitlines() + one.out.getvalue().splitlines()
    assert [len(text) for text in shown if len(text) > 80] == [97], "a path stays whole"
    monkeypatch.setenv("COLUMNS", "200")
    one.epoch(row, seconds_left=3723)
    assert "lr 0.00123" in one.out.getvalue() and "train 50.00 %" in one.out.getvalue()


def test_a_live_line_is_cut_where_the_terminal_would_break_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    one = printer(err=Terminal())
    one._shown_at = -1e9
    one.step(0, 3, 2.5)
    assert len(one.err.getvalue()) == 39


def test_what_takes_long_is_said_on_a_terminal_and_wiped(monkeypatch):
    one = printer(err=Terminal())
    with one.busy("evaluating the test set"):
        assert one.err.getvalue().endswith("evaluating the test set ...")
    assert one.err.getvalue().endswith("\r") and "\n" not in one.err.getvalue()
    elsewhere = printer()
    with elsewhere.busy("evaluating"):
        pass
    assert elsewhere.err.getvalue() == ""


def test_a_heartbeat_says_where_something_stands_and_for_how_long_when_nothing_else_is_said():
    said, beaten = [], threading.Event()

    def say(line):
        said.append(line)
        if line in ("step 2 of 9 ... 0 s", "step 3 of 9"):
            beaten.set()

    for where in (None, lambda: "step 3 of 9"):
        said.clear()
        beaten.clear()
        with progress.Heartbeat(where, patience=0.02, say=say) as heart:
            heart.say("first")
            heart.at("step 2 of 9")
            assert beaten.wait(60)
        assert said[0] == "first" and ("step 3 of 9" in said) == (where is not None)
