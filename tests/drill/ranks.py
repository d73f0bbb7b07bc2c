"""One of two processes that train together is killed: the other ends, and both go on to the same bits."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from fastresnet.runs import start
from tests.drill.ground import RECIPE, Ground, last_words, log_of, said, same
from tests.drill.outcome import SURVIVED, Outcome, ended, is_done, lost, wrong

PATIENCE = 30.0  # seconds in which the process that is left, or torchrun, must end; as long as torchrun waits
TRIES = 20  # runs begun for one kill: it comes after a random share of a run, which may have ended sooner
ROOT = Path(__file__).parents[2]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def one_of_two_killed(ground: Ground, chance: Random, number: int) -> Outcome:
    """As torchrun starts them and asks the other to end, but forked: without the seconds of its imports."""
    whole, seconds = _whole(ground)

    def mishap(folder: Path) -> Outcome | None:
        children = _begun(ground, folder)
        time.sleep(chance.uniform(0, seconds))
        os.kill(children[number % 2], signal.SIGKILL)
        killed = ended(children[number % 2]) == -signal.SIGKILL
        other, until = children[1 - number % 2], time.monotonic() + PATIENCE
        os.kill(other, signal.SIGTERM)
        while not is_done(other):
            if time.monotonic() > until:
                os.kill(other, signal.SIGKILL)
                ended(other)
                return lost(f"the other process still waited after {PATIENCE:.0f} s")
            time.sleep(0.01)
        ended(other)
        return _gone_on(ground, folder, whole) if killed else None

    return _until_killed(ground, mishap)


def one_killed_under_torchrun(ground: Ground, chance: Random, number: int) -> Outcome:
    """The command as users give it: the launcher ends with a failure, and the same command goes on."""
    whole, seconds = _whole(ground)

    def mishap(folder: Path) -> Outcome | None:
        with log_of(folder).open("w") as log:
            launcher = subprocess.Popen(
                _command(ground, folder), stdout=log, stderr=log, env=QUIET, start_new_session=True
            )
            while not (folder / "config.yaml").exists() and launcher.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, seconds))
            ranks = _children(launcher.pid)
            if ranks:
                os.kill(ranks[number % len(ranks)], signal.SIGKILL)
            try:
                code = launcher.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(launcher.pid, signal.SIGKILL)
                return lost(f"torchrun still waited after {PATIENCE:.0f} s")
        if code == 0:  # it had ended before the kill, or doesn't say that one was killed
            whole_run = (folder / "result.json").exists()
            return None if whole_run else lost("torchrun ended as if all were well")
        return _gone_on(ground, folder, whole)

    return _until_killed(ground, mishap)


def _until_killed(ground: Ground, mishap: Callable[[Path], Outcome | None]) -> Outcome:
    """What became of the first run that was really killed: None says that it had ended before."""
    for _ in range(TRIES):
        with ground.folder() as folder:
            if (outcome := mishap(folder)) is not None:
                return outcome
    return lost(f"none of {TRIES} runs could be killed before its end")


def _command(ground: Ground, folder: Path) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = {**ground.settings, "run.dir": str(folder)}
    words = [f"--{key}={_word(value)}" for key, value in settings.items()]
    return [*launch, str(ROOT / "scripts" / "train.py"), f"--config={RECIPE}", *words]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _children(parent: int) -> list[int]:
    """Processes that this one started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)


@cache
def _whole(ground: Ground) -> tuple[tuple[object, ...], float]:
    """What an undisturbed run of two processes ends with, and the seconds that it takes."""
    folder = ground.place / f"two-{os.getpid()}"
    began = time.monotonic()
    assert [ended(child) for child in _begun(ground, folder)] == [0, 0], said(folder)
    return ground.result(folder), time.monotonic() - began


def _begun(ground: Ground, folder: Path) -> list[int]:
    """The numbers of two processes that train together into `folder`."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]

    def work(rank: int) -> None:
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in place.items()})
        start.train(RECIPE, {**ground.settings, "run.dir": str(folder)})

    return [ground.fork(lambda rank=rank: work(rank), log_of(folder)) for rank in range(2)]


def _gone_on(ground: Ground, folder: Path, whole: tuple[object, ...]) -> Outcome:
    """The same two processes once more, unless the run was finished."""
    if of_ours(said(folder)):  # torchrun's own tells of the process that was killed
        return lost(f"a traceback instead of a line: {last_words(folder)}")
    if not (folder / "result.json").exists():
        codes = [ended(child) for child in _begun(ground, folder)]
        if codes != [0, 0]:
            return lost(f"the same command ended with {codes}: {last_words(folder)}")
    try:
        found = ground.result(folder)
    except (ValueError, OSError) as error:
        return lost(error)
    return SURVIVED if same(found, whole) else wrong("it ended with other bits")


def of_ours(text: str) -> bool:
    """Whether a traceback in it goes through the package, or a script of this checkout."""
    return re.search(rf'^ +File "{re.escape(str(ROOT))}/(fastresnet|scripts)/', text, re.M) is not None
