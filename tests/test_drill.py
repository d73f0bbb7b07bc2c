"""The drill notices what it is for; and its short form. `make drill` is the long one."""

import itertools
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tests.drill import kills, ranks
from tests.drill.ground import Ground, log_of
from tests.drill.outcome import SURVIVED, lost

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="tries are forked")
SEEN = """
import os, pathlib, signal, sys, time
from types import SimpleNamespace
from tests.drill import running
from tests.drill.outcome import SURVIVED, wrong

def attempt(ground, chance, number):
    if number == 1:
        return wrong(f"{chance.random()}")
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        raise KeyError("a mistake")
    if number == 7:
        time.sleep(60)
    return SURVIVED

running.SILENCE = 1.5
ground = SimpleNamespace(place=pathlib.Path(sys.argv[1]))
drills = {running.Drill("a", attempt, 8, 3): range(int(sys.argv[2]), 9), running.Drill("b", attempt, 1): [0]}
tell = lambda drill, number, outcome: print(drill.name, number, outcome.what, outcome.why)
until = running.time.monotonic() + float(sys.argv[3])
found = running.carry_out(drills, ground, 7, processes=2, until=until, failed=tell)
tallies = found.values()
print([len(tally.outcomes) for tally in tallies], [tally.count("survived") for tally in tallies])
"""


def seen(folder, first=0, seconds=100.0):
    """What the running of tries tells of a drill whose tries go wrong in every way."""
    command = [sys.executable, "-c", SEEN, str(folder), str(first), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_wrong_dies_fails_or_hangs_is_counted_and_the_tries_after_it_are_made(tmp_path):
    *told, counts = seen(tmp_path)
    assert counts == "[9, 1] [5, 1]"
    assert sorted(line.split()[:3] for line in told) == [
        ["a", str(number), "wrong" if number == 1 else "lost"] for number in (1, 3, 5, 7)
    ]
    assert "KeyError: 'a mistake'" in "".join(told)


def test_a_try_by_itself_draws_the_same_and_none_begins_when_time_is_up(tmp_path):
    first = next(line for line in seen(tmp_path) if " 1 wrong" in line)
    assert first in seen(tmp_path, first=1)
    assert seen(tmp_path, seconds=0.0) == ["[0, 0] [0, 0]"]


def test_a_traceback_on_the_way_is_a_loss_whatever_the_run_holds_in_the_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "predictions.npz").touch()
    ground = SimpleNamespace(result=lambda folder: (1,), whole=(1,))
    assert Ground.judge(ground, folder) == SURVIVED
    log_of(folder).write_text(
        "Traceback (most recent call last):\n  ...\nRuntimeError: can't start new thread\n"
    )
    assert Ground.judge(ground, folder) == lost(
        "a traceback instead of a line: RuntimeError: can't start new thread"
    )


def test_a_run_that_ended_before_its_kill_is_tried_again_and_never_killed_is_a_loss(tmp_path):
    fates, folders = iter([None, None, SURVIVED]), itertools.count()
    ground = SimpleNamespace(folder=lambda: nullcontext(tmp_path / str(next(folders))))
    assert ranks._until_killed(ground, lambda folder: next(fates)) == SURVIVED and next(folders) == 3
    assert ranks._until_killed(ground, lambda folder: None).what == "lost"


@pytest.mark.parametrize(("times", "codes"), [(1, [0, 0, -9]), (2, [-9, 0, -9, -9])])
def test_a_kill_that_came_too_late_is_not_counted_as_one(tmp_path, times, codes):
    given, folders = iter(codes), itertools.count()

    def killed_after(seconds, folder, number, changes):
        code = next(given)
        folder.mkdir(exist_ok=True)
        if not code:
            (folder / "result.json").touch()
        return code

    ground = SimpleNamespace(seconds=0.0, killed_after=killed_after, finish=lambda folder: SURVIVED)
    ground.folder = lambda: nullcontext(tmp_path / str(next(folders)))
    assert kills.at_any_time(signal.SIGKILL, times)(ground, Random(0), 0) == SURVIVED
    assert list(given) == []


@pytest.mark.slow(45)
def test_killed_starved_and_damaged_runs_lose_nothing_and_are_never_silently_wrong():
    command = [sys.executable, "-m", "tests.drill", "--share=0.02"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\D+?) +(\d+) +(\d+) +(\d+) +0 +0 +\d+$", done.stdout, re.M)
    assert len(rows) >= 20 and all(of == tried == survived for _, of, tried, survived in rows), done.stdout


@pytest.mark.parametrize(
    "path, ours", [("fastresnet/runs/start.py", True), (".venv/lib/torch/run.py", False)]
)
def test_torchruns_own_traceback_is_none_of_ours_whatever_the_checkout_is_called(path, ours, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(ranks, "ROOT", Path("/home/me/fastresnet"))
        told = f'Traceback (most recent call last):\n  File "{ranks.ROOT}/{path}", line 1, in main\n'
        assert ranks.of_ours(told) == ours
