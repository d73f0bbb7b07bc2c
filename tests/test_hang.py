"""hang: a process in which nothing goes on ends with its stack traces, one that was stopped goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import ctypes, subprocess, sys, threading, time
from pathlib import Path
from fastresnet.watching import hang
hang.FIRST, hang.SENTRY_AFTER = 60.0, 0.0
{before}
with hang.Watchdog({after}, Path({folder!r}), lambda: "step 7; continue with --run.resume=it") as watchdog:
    {work}
print("done")
"""
C_CODE = "watchdog.beat(); ctypes.CDLL(None).sleep(60)"
PYTHON = "watchdog.beat(); threading.Event().wait()"
# A mutex locked twice, without letting go of Python's own lock: no signal ends that.
LOCKED = """
    watchdog.beat()
    time.sleep(0.5)
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_init(mutex, None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def watched(folder, work, *, after=0.5, before=""):
    """A process that does `work` under a watchdog that waits for `after` seconds."""
    text = PROGRAM.format(after=after, folder=str(folder), work=work, before=before)
    command = [sys.executable, "-W", "error", "-c", text]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes)


def ended(process):
    """Its exit code, what it said, and what it complained of."""
    said, complained = process.communicate(timeout=200)
    return process.returncode, said, complained


@pytest.mark.parametrize("work", [C_CODE, PYTHON], ids=["C", "Python"])
def test_what_hangs_ends_with_exit_1_and_says_where_it_stood(tmp_path, work):
    code, said, complained = ended(watched(tmp_path, work))
    assert (code, said) == (1, "")
    assert "most recent call first" in complained and 'File "<string>", line' in complained
    last = complained.splitlines()[-1]
    assert last.startswith("error: nothing was done for 0.")
    assert "at step 7; continue with --run.resume=it; stack traces above and in" in last
    assert (tmp_path / "hang.txt").read_text() == complained


@linux
def test_processes_that_it_had_started_are_named_with_their_state(tmp_path):
    quiet = "stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    _, _, complained = ended(watched(tmp_path, C_CODE, before=f"subprocess.Popen(['sleep', '5'], {quiet})"))
    assert "sleep, S (sleeping)" in complained.partition("Processes started by this one:")[2]


@linux
def test_what_hangs_with_pythons_own_lock_held_is_ended_by_the_second_process(tmp_path):
    code, said, complained = ended(watched(tmp_path, LOCKED, after=1.0))
    assert (code, said) == (-signal.SIGKILL, "")
    assert "most recent call first" in complained and "at step 7; continue with --run.resume=it" in complained
    assert "most recent call first" in (tmp_path / "hang.txt").read_text()


@linux
def test_a_stopped_process_is_not_taken_for_hung(tmp_path):
    """It computes for 0.2 s between beats, and is stopped meanwhile for longer than anyone waits for it."""
    work = """
    watchdog.beat()
    time.sleep(1.0)
    print("ready", flush=True)
    for _ in range(5):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        watchdog.beat()
"""
    process = watched(tmp_path, work, after=3.0)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4.0)
    process.send_signal(signal.SIGCONT)
    assert ended(process) == (0, "done\n", "")
    assert not (tmp_path / "hang.txt").exists()


def test_what_goes_on_is_left_alone_and_the_first_step_may_take_longer(tmp_path):
    slow_start = "time.sleep(1.5); watchdog.beat(); time.sleep(0.1); watchdog.beat()"
    assert ended(watched(tmp_path, slow_start)) == (0, "done\n", "")


def test_who_thinks_in_a_debugger_is_not_hurried(tmp_path):
    process, said = watched(tmp_path, "watchdog.beat(); breakpoint()"), ""
    while not said.endswith("(Pdb) ") and (one := process.stdout.read(1)):
        said += one
    time.sleep(1.5)
    said, complained = process.communicate("c\n", timeout=60)
    assert (process.returncode, complained) == (0, "") and said.endswith("done\n")


def test_nothing_is_watched_where_that_is_asked_for(tmp_path):
    work = "watchdog.beat(); assert threading.active_count() == 1; time.sleep(0.2)"
    assert ended(watched(tmp_path, work, after=0)) == (0, "done\n", "")


def test_by_itself_it_waits_for_a_hundred_times_the_longest_step_and_ten_minutes_at_least():
    from fastresnet.watching.hang import Watchdog

    watchdog = Watchdog(None, None, lambda: "")
    assert watchdog.limit == 1800
    watchdog.beat()
    assert watchdog.limit == 600
    watchdog._longest = 8.0
    assert watchdog.limit == 800


HUNG = """
import sys, threading
from fastresnet.base import exits
from fastresnet.loading.resident import ResidentLoader
from fastresnet.runs import start
whole = ResidentLoader.epoch

def epoch(self, number, *more):
    for place, batch in enumerate(whole(self, number, *more)):
        if {hangs} and self.asked.shuffle and (number, place) == (1, 1):
            threading.Event().wait()
        yield batch

ResidentLoader.epoch = epoch
sys.exit(exits.exit_code(lambda: start.train("smoke.yaml", {settings!r}) and None))
"""


@pytest.mark.slow(20)
def test_a_run_whose_loader_hangs_ends_and_goes_on_to_the_same_bits(tmp_path):
    import torch
    from drawn import betons

    from fastresnet.runs import checkpoint

    small = {
        "train.epochs": 2, "train.batch_size": 50, "train.checkpoint_every": "1 steps", "run.hang_after": 2,
        "data.source": "synthetic", "data.synthetic_train": 200, "data.synthetic_test": 60,
        "data.betons": str(tmp_path / "betons"), "run.report": False, "run.threads": 1, "run.progress": "off",
    }  # fmt: skip
    betons(small)

    def run(folder, hangs):
        settings = small | {"run.dir": str(tmp_path / folder)}
        command = [sys.executable, "-c", HUNG.format(settings=settings, hangs=hangs)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)

    assert run("whole", False).returncode == 0
    hung = run("part", True)
    assert hung.returncode == 1
    assert f"at step 5; continue with --run.resume={tmp_path / 'part'}" in hung.stderr.splitlines()[-1]
    assert "in epoch" in (tmp_path / "part" / "hang.txt").read_text()
    assert not (tmp_path / "part" / "result.json").exists()
    assert run("part", False).returncode == 0
    whole, part = (checkpoint.load(tmp_path / name)["model"] for name in ("whole", "part"))
    assert all(torch.equal(value, part[key]) for key, value in whole.items())
