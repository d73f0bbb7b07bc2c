"""The ground of the drill: one small run, trained again and again in forks, and what it must end with.

Forks of a process that has imported everything: a mishap costs the run and not the imports.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch

from fastresnet import data
from fastresnet.base import exits
from fastresnet.reports import finished, plots, run_page  # noqa: F401  (imported before the forks)
from fastresnet.runs import checkpoint, ledger, record, start
from fastresnet.runs.folder import LAST
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from tests.drill.operations import recorded
from tests.drill.outcome import SURVIVED, Outcome, ended, lost, wrong

RECIPE = "smoke.yaml"
SETTINGS = {
    "train.epochs": 2, "train.batch_size": 50, "train.precision": "fp32", "train.ema_decay": 0.9,
    "train.checkpoint_every": "2 steps", "data.synthetic_train": 220, "data.synthetic_test": 60,
    "run.progress": "off", "run.threads": 1, "run.report": False,
}  # fmt: skip
STEPS = 8
CLOCKS = ("seconds", "images_per_second")  # what differs from run to run
Hook = Callable[[Path], object]  # called with the run's folder in the child, before it trains
Changes = Mapping[str, object]
NOTHING: Changes = {}


class Ground:
    """What all drills share, made once before the forks: under `place`, data and the run that went well.

    whole:       what a finished run must hold
    operations:  the kinds of operations on files that a run with pictures makes, in order
    seconds:     that a run without pictures takes, and that `converting` the data took
    growth:      bytes of address space that a run takes beyond this process's
    """

    def __init__(self, place: Path) -> None:
        torch.set_num_threads(1)  # a forked process has none of the parent's threads
        ledger.rate_ceiling(torch.device("cpu"), torch.float32, tf32=False)  # seconds, once
        self.place = place
        self.betons = place / "betons"
        self.settings: Changes = {**SETTINGS, "data.betons": str(self.betons)}
        self.converting = self._timed(self.convert(self.betons, place / "convert.log"), "convert")
        self._warm_up()
        kinds, grown = place / "operations", place / "growth"
        whole = self.begin(place / "whole", lambda run: recorded(run, kinds), {"run.report": True})
        self._timed(whole, "whole")
        self.operations = kinds.read_text().split()
        self.whole = self.result(place / "whole")
        self.seconds = self._timed(self.begin(place / "plain"), "plain")
        assert same(self.result(place / "plain"), self.whole), "two undisturbed runs differ"
        self._timed(self.fork(lambda: self._grow(grown), place / "growth.log"), "growth")
        self.growth = int(grown.read_text())

    def _warm_up(self) -> None:
        """Load here what every run loads: the kernels that numba compiled."""
        with redirect_stderr(io.StringIO()):  # the word on synthetic data
            one = Experiment(config.load(RECIPE, self.settings))
        one.loaders.warm_up()
        one.close()

    def _timed(self, child: int, name: str) -> float:
        began = time.monotonic()
        code = ended(child)
        if code:
            raise RuntimeError(f"undisturbed, {name} ended with {code}: {last_words(self.place / name)}")
        return time.monotonic() - began

    def _grow(self, to: Path) -> None:
        before = address_space("VmSize")
        self._train(self.place / "grown", NOTHING)
        to.write_text(str(address_space("VmPeak") - before))

    # ---- processes -----------------------------------------------------------------------------------------

    def fork(self, work: Callable[[], object], log: Path) -> int:
        """The number of a child that does `work` as a command would, its words in `log`."""
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for stream in (1, 2):
                    os.dup2(words, stream)
                code = exits.exit_code(lambda: work() and None)
            finally:
                os._exit(code)
        return child

    def begin(self, folder: Path, hook: Hook = lambda folder: None, changes: Changes = NOTHING) -> int:
        """The number of a child that trains into `folder`."""

        def work() -> None:
            hook(folder)
            self._train(folder, changes)

        return self.fork(work, log_of(folder))

    def _train(self, folder: Path, changes: Changes) -> None:
        start.train(RECIPE, {**self.settings, **changes, "run.dir": str(folder)})

    def convert(self, betons: Path, log: Path) -> int:
        """The number of a child that makes the betons of the small set."""
        settings = {**self.settings, "data.betons": str(betons)}
        return self.fork(lambda: data.prepare(config.load(RECIPE, settings), print), log)

    def train(self, folder: Path, hook: Hook = lambda folder: None, changes: Changes = NOTHING) -> int:
        """Train in a child process; its exit code, negative for a signal's number."""
        return ended(self.begin(folder, hook, changes))

    def killed_after(self, seconds: float, folder: Path, number: signal.Signals, changes: Changes) -> int:
        """Train in a child process that gets a signal after so long; its exit code as `train` gives it."""
        child = self.begin(folder, changes=changes)
        time.sleep(seconds)
        os.kill(child, number)
        return ended(child)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A run's folder that isn't there yet, in one that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.place, ignore_cleanup_errors=True) as parent:
            yield Path(parent, "run")

    # ---- what became of it ---------------------------------------------------------------------------------

    def result(self, folder: Path) -> tuple[object, ...]:
        """All of a finished run that must not depend on what befell it."""
        payload = checkpoint.load(folder)
        return *figures(folder), payload["model"], payload["averaged"]

    def finish(self, folder: Path, changes: Changes = NOTHING) -> Outcome:
        """Give the same command once more, and judge the run."""
        if (folder / "result.json").exists():
            changes = {**changes, "run.resume": "auto"}  # what is missing is drawn
        code = self.train(folder, changes=changes)
        if code:
            return lost(f"the same command ended with {code}: {last_words(folder)}")
        return self.judge(folder, changes)

    def judge(self, folder: Path, changes: Changes = NOTHING) -> Outcome:
        """Hold a finished run to the undisturbed one; a traceback on the way isn't a line."""
        if told := traceback_in(folder):
            return lost(f"a traceback instead of a line: {told}")
        try:
            found = self.result(folder)
        except (ValueError, OSError) as error:
            return lost(error)
        wanted = ["report.html", "plots/curves.png"] if changes.get("run.report") else []
        missing = [name for name in ["predictions.npz", *wanted] if not (folder / name).exists()]
        if missing:
            return lost(f"{missing[0]} is missing")
        left = list(folder.rglob(".*.tmp"))
        if left:
            return lost(f"{left[0].name} was left")
        return SURVIVED if same(found, self.whole) else wrong("it ended with other bits")


def figures(folder: Path) -> tuple[object, ...]:
    """Rows, accuracy and steps of a finished run, without what clocks say."""
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in finished.read(folder).history]
    result = record.read(folder / "result.json", "result")
    return rows, result["accuracy"], result["steps"]


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return (folder / LAST).exists()


def log_of(folder: Path) -> Path:
    """Where the words of the runs of a folder are."""
    return folder.with_name(f"{folder.name}.log")


def said(folder: Path) -> str:
    """What the runs of a folder said so far."""
    return log_of(folder).read_text(errors="replace") if log_of(folder).exists() else ""


def last_words(folder: Path) -> str:
    """The last line that a run of this folder said."""
    return (said(folder).strip().splitlines() or ["not a word"])[-1]


def traceback_in(folder: Path) -> str:
    """What the first traceback that the runs of this folder printed ends with, if there is any."""
    found = re.search(r"^Traceback .*\n(?:[ \t].*\n)*(.*)", said(folder), re.M)
    return found[1] if found else ""


def address_space(what: str) -> int:
    """Bytes of address space of this process, now (VmSize) or at most (VmPeak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def same(left: object, right: object) -> bool:
    """Whether two nested values are equal, tensors to the last bit."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
