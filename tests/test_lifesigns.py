"""Processes that watch each other, by a store in memory: who is lost is named, in one line."""

import contextlib
import signal
import threading
import time

import pytest
import torch.distributed as dist

from fastresnet.base.exits import Interrupted
from fastresnet.machine.distributed import World
from fastresnet.ranks import lifesigns
from fastresnet.ranks.lifesigns import LEFT, Lost, Terminated, Watch

FIRST = World(0, 0, 2)
CONNECTION = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:36173"


class Ended(list):
    """Exit codes with which a process would have ended."""

    def __init__(self):
        super().__init__()
        self.event = threading.Event()

    def __call__(self, code):
        self.append(code)
        self.event.set()


@pytest.fixture
def ended(monkeypatch):
    """Clocks a hundred times as fast, and nobody ends really."""
    codes = Ended()
    for name, seconds in {"BEAT": 0.01, "FAILED_SILENT": 0.2, "GRACE": 0.05}.items():
        monkeypatch.setattr(lifesigns, name, seconds)
    monkeypatch.setattr(lifesigns.os, "_exit", codes)
    before = signal.getsignal(signal.SIGTERM)
    yield codes
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def store():
    """Both processes have come."""
    return with_both(dist.HashStore())


def with_both(store):
    for rank in (0, 1):
        store.set(f"beat/{rank}", "0")
    return store


class Other:
    """The second process: beats until it is stopped."""

    def __init__(self, store):
        self.store, self.stopped = store, threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)

    def beat(self):
        count = 0
        while not self.stopped.wait(0.01):
            count += 1
            self.store.set("beat/1", str(count))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopped.set()
        self.thread.join()


def test_as_long_as_all_beat_nobody_ends(store, ended):
    with Other(store), Watch(FIRST, store, silent=0.3):
        time.sleep(0.6)
    assert ended == [] and store.get("beat/0") == LEFT


def test_who_has_left_is_not_missed(store, ended):
    store.set("beat/1", "left")
    with Watch(FIRST, store, silent=0.05):
        time.sleep(0.4)
    assert ended == []


def test_who_waits_for_a_dead_one_is_ended_with_one_line_and_exit_1(store, ended, capsys):
    with Other(store) as other, Watch(FIRST, store, silent=0.1):
        time.sleep(0.1)
        other.stopped.set()
        assert ended.event.wait(5)
    err = capsys.readouterr().err
    assert ended[0] == 1 and err.startswith("error: rank 1 shows no sign of life for 0.1 s; the same command")


def test_a_failed_collective_is_told_as_the_loss_that_it_is(store, ended):
    with pytest.raises(Lost, match="rank 1 shows no sign of life; the same command goes on from what"):
        with Other(store) as other, Watch(FIRST, store):
            other.stopped.set()
            raise RuntimeError(CONNECTION)
    assert ended == []


def test_who_is_ended_because_another_one_was_lost_says_that(store, ended):
    with pytest.raises(
        Lost, match="rank 1 shows no sign of life; the same command goes on from what is kept"
    ):
        with Other(store) as other, Watch(FIRST, store):
            other.stopped.set()
            raise Terminated
    with pytest.raises(Terminated), Other(again := with_both(dist.HashStore())), Watch(FIRST, again):
        raise Terminated
    assert ended == []


def test_a_failed_collective_among_the_living_stays_what_it_is(store, ended):
    with pytest.raises(RuntimeError, match="Connection closed") as caught:
        with Other(store), Watch(FIRST, store):
            raise RuntimeError(CONNECTION)
    assert caught.type is RuntimeError


def test_what_another_one_failed_of_is_said_by_all(store, ended):
    with pytest.raises(ValueError, match="no such file"):
        with Watch(World(1, 1, 2), store):
            raise ValueError("train.beton: no such file")
    with pytest.raises(Lost, match="rank 1 failed: train.beton: no such file; the same command"):
        with Watch(FIRST, store):
            raise RuntimeError(CONNECTION)
    assert ended == []


def test_the_first_loss_is_the_one_that_is_told(store, ended):
    store.set("lost", "rank 3 failed: the first")
    with pytest.raises(Lost, match="rank 3 failed: the first"):
        with Watch(FIRST, store):
            raise RuntimeError(CONNECTION)


def test_a_store_that_is_gone_ends_who_still_waits(ended, capsys):
    class Gone(dist.HashStore):
        here = True

        def check(self, keys):
            if not self.here:
                raise RuntimeError("Broken pipe")
            return super().check(keys)

    store = with_both(Gone())
    with Watch(FIRST, store):
        store.here = False
        assert ended.event.wait(5)
    assert "the connection to the job's store, in torchrun or the first" in capsys.readouterr().err


@pytest.mark.parametrize("stop, told", [(Interrupted("at step 3"), False), (KeyboardInterrupt(), True)])
def test_ctrl_c_is_told_to_the_others_unless_all_stop_together(store, ended, stop, told):
    with pytest.raises(KeyboardInterrupt), Watch(FIRST, store):
        raise stop
    assert store.check(["lost"]) == told and store.get("beat/0") == LEFT
    assert not told or store.get("lost") == b"rank 0 was interrupted"


def test_the_block_begins_when_all_have_come(ended):
    store = dist.HashStore()
    late = threading.Timer(0.2, store.set, ("beat/1", "0"))
    late.start()
    with Watch(FIRST, store, silent=0.05):
        assert store.check(["beat/1"])
    assert ended == []


def test_who_does_not_come_is_named(ended, monkeypatch):
    monkeypatch.setattr(lifesigns, "ARRIVAL", 0.05)
    with pytest.raises(Lost, match=r"rank 1 has not come in 0\.05 s"), Watch(FIRST, dist.HashStore()):
        pass


@pytest.mark.parametrize("failing", [False, True])
def test_who_failed_may_still_say_so_when_torchrun_ends_it(store, ended, failing):
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError), Watch(FIRST, store):
        assert signal.getsignal(signal.SIGTERM) is lifesigns._end_soon
        if failing:
            raise ValueError("train.beton: no such file")
    assert signal.getsignal(signal.SIGTERM) is (lifesigns._end_soon if failing else before)
