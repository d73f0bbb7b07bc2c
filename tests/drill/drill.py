"""The drill: runs are killed, starved of disk and handed damaged files, and must lose nothing.

`make drill` runs all of it and prints what was tried, survived, lost and silently wrong: the last two must be
0. Runs are forked from one process that has imported everything: a kill costs the run and not the imports.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from fastresnet import data
from fastresnet.base import exits
from fastresnet.reports import finished, plots, run_page  # noqa: F401  (imported before the forks)
from fastresnet.runs import checkpoint, ledger, record, start
from fastresnet.settings import config

SETTINGS = {
    "train.epochs": 2,
    "train.batch_size": 50,
    "train.precision": "fp32",
    "train.ema_decay": 0.9,
    "train.checkpoint_every": "2 steps",
    "data.synthetic_train": 220,
    "data.synthetic_test": 60,
    "run.progress": "off",
    "run.threads": 1,
}
CLOCKS = ("seconds", "images_per_second")  # what differs from run to run
Hook = Callable[[Path], None]  # called with the run's folder in the child, before it trains


@dataclass
class Tally:
    """How one kind of mishap went. lost: can't go on, or isn't whole; wrong: without a word other bits."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    wrong: int = 0

    def add(self, outcome: str) -> None:
        self.tried += 1
        setattr(self, outcome, getattr(self, outcome) + 1)


class Drill:
    """Trains one small run again and again under `place`, which holds its data and the run that went well.

    report:  draw plots and pages too, which takes most of a small run's time
    """

    def __init__(self, place: Path, seed: int, *, report: bool) -> None:
        self.place, self.random = place, random.Random(seed)
        torch.set_num_threads(1)  # a forked process has none of the parent's threads
        ledger.rate_ceiling(torch.device("cpu"), torch.float32, tf32=False)  # seconds, once
        self.settings = {**SETTINGS, "data.betons": str(place / "betons"), "run.report": report}
        self.count = 0
        assert self.train(place / "whole", lambda folder: self._prepare()) == 0, "an undisturbed run fails"
        self.whole = self.result(place / "whole")

    def _prepare(self) -> None:
        data.prepare(config.load("smoke.yaml", self.settings), lambda line: None)

    def train(self, folder: Path, hook: Hook = lambda folder: None) -> int:
        """Train in a child process; returns its exit code, negative for a signal's number."""
        child = os.fork()
        if not child:
            code = 1
            try:
                log = os.open(self.place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for stream in (1, 2):
                    os.dup2(log, stream)
                hook(folder)
                settings = {**self.settings, "run.dir": str(folder)}
                code = exits.exit_code(lambda: start.train("smoke.yaml", settings) and None)
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def result(self, folder: Path) -> tuple[object, ...]:
        """All of a finished run that must not depend on what befell it."""
        payload = checkpoint.load(folder)
        rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in finished.read(folder).history]
        result = record.read(folder / "result.json", "result")
        return rows, result["accuracy"], result["steps"], payload["model"], payload["averaged"]

    def outcome(self, hook: Hook, times: int = 1) -> str:
        """Disturb a run `times` times, then give the same command until it is done; what became of it."""
        self.count += 1
        folder = self.place / f"run{self.count}"
        for _ in range(times):
            self.train(folder, hook)
        if not (folder / "result.json").exists() and self.train(folder) != 0:
            return "lost"
        try:
            same = _equal(self.result(folder), self.whole)
        except (ValueError, OSError):
            return "lost"
        left = list(folder.rglob("*.tmp"))
        shutil.rmtree(folder)
        return "lost" if left else "survived" if same else "wrong"

    # ---- mishaps -------------------------------------------------------------------------------------------

    def at_file_operations(self, count: int) -> Iterator[str]:
        """Kills just before the n-th opening, renaming, removing or making of something in the folder."""
        total = self._operations()
        for number in sorted(self.random.sample(range(1, total + 1), min(count, total))):
            yield self.outcome(lambda folder, number=number: _kill_at(folder, number))

    def _operations(self) -> int:
        def count(folder: Path) -> None:
            _each_operation(folder, lambda number: (self.place / "count").write_text(str(number)))

        self.train(self.place / "counted", count)
        return int((self.place / "count").read_text())

    def at_random_times(self, count: int, number: signal.Signals, times: int = 1) -> Iterator[str]:
        """Sends a signal after a random part of the seconds that a run takes."""
        if not count:
            return
        began = time.monotonic()
        self.train(self.place / f"timed{self.random.random()}")
        whole = time.monotonic() - began
        for _ in range(count):
            yield self.outcome(lambda folder: _signal_after(self.random.uniform(0, whole), number), times)

    def on_full_disks(self, count: int) -> Iterator[str]:
        """Lets no file grow beyond a random size, which is what a full disk does to the largest ones."""
        size = (self.place / "whole" / "checkpoints" / "last.pt").stat().st_size
        for _ in range(count):
            limit = self.random.randrange(200, 2 * size)
            yield self.outcome(lambda folder, limit=limit: _limit_files(limit))

    def damaged_checkpoints(self, count: int, *, forged: bool) -> Iterator[str]:
        """Changes bytes of a checkpoint; forged ones bear a seal that fits. Refused, or the same weights."""
        path = self.place / "damaged.pt"
        whole = (self.place / "whole" / "checkpoints" / "last.pt").read_bytes()
        for _ in range(count):
            path.write_bytes(_mutated(whole, self.random))
            try:
                if forged:
                    path.write_bytes(path.read_bytes()[: -checkpoint.SEAL_BYTES])
                    checkpoint._seal(path)
                model, _ = checkpoint.load_model(path)
            except (ValueError, OSError):
                yield "survived"
            else:
                yield "survived" if forged or _equal(model.state_dict(), self.whole[4]) else "wrong"

    def damaged_texts(self, count: int, name: str, read: Callable[[Path], object]) -> Iterator[str]:
        """Changes bytes of a text of the run's folder: its reader refuses it in words or reads it."""
        path = self.place / "damaged"
        path.mkdir(exist_ok=True)
        for file in (self.place / "whole").glob("*.*"):
            shutil.copy(file, path)
        whole = (path / name).read_bytes()
        for _ in range(count):
            (path / name).write_bytes(_mutated(whole, self.random))
            try:
                read(path)
            except ValueError:
                pass
            yield "survived"


def _mutated(whole: bytes, choice: random.Random) -> bytes:
    """Some bytes changed, a stretch left out, or the end cut off."""
    kind, at = choice.randrange(4), choice.randrange(len(whole))
    if kind == 0:
        return whole[:at]
    if kind == 1:
        return whole[:at] + whole[at + choice.randrange(1, 64) :]
    changed = bytearray(whole)
    for _ in range(choice.randrange(1, 4)):
        changed[choice.randrange(len(changed))] ^= 1 << choice.randrange(8)
    return bytes(changed)


def _each_operation(folder: Path, call: Callable[[int], object]) -> None:
    """Call `call(n)` before the n-th operation of this process that changes something in `folder`."""
    inside, number, busy = str(folder), 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number, busy
        changing = event in ("os.rename", "os.remove", "os.mkdir")
        if event == "open" and isinstance(arguments[2], int):
            changing = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if changing and not busy and str(arguments[0]).startswith(inside):
            number, busy = number + 1, True
            call(number)
            busy = False

    sys.addaudithook(hook)


def _limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error at the write, as a full disk gives
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _kill_at(folder: Path, last: int) -> None:
    _each_operation(folder, lambda number: number == last and os.kill(os.getpid(), signal.SIGKILL))


def _signal_after(seconds: float, number: signal.Signals) -> None:
    def later() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=later, daemon=True).start()


def _equal(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def main(words: list[str] | None = None) -> int:
    """Run the drill and print its table; 1 where something was lost or silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=60, help="kills at file operations; others in proportion"
    )
    parser.add_argument("--mutations", type=int, default=10000, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without plots and pages")
    args = parser.parse_args(words)
    kills, mutations = args.kills, args.mutations
    with tempfile.TemporaryDirectory() as place:
        drill = Drill(Path(place), args.seed, report=not args.plain)
        table = {
            "killed at a file operation": drill.at_file_operations(kills),
            "killed at a random time": drill.at_random_times(kills // 3, signal.SIGKILL),
            "killed twice": drill.at_random_times(kills // 6, signal.SIGKILL, times=2),
            "terminal closed (SIGHUP)": drill.at_random_times(kills // 6, signal.SIGHUP),
            "terminated (SIGTERM)": drill.at_random_times(kills // 6, signal.SIGTERM),
            "disk full": drill.on_full_disks(kills // 3),
            "checkpoint damaged": drill.damaged_checkpoints(mutations, forged=False),
            "checkpoint forged": drill.damaged_checkpoints(mutations // 10, forged=True),
            "config damaged": drill.damaged_texts(mutations // 10, "config.yaml", _read_config),
            "record damaged": drill.damaged_texts(mutations, "result.json", _read_record),
            "metrics damaged": drill.damaged_texts(mutations, "metrics.jsonl", _read_metrics),
            "predictions damaged": drill.damaged_texts(mutations, "predictions.npz", finished.predictions),
        }
        print(f"{'mishap':<28}{'tried':>8}{'survived':>10}{'lost':>6}{'silently wrong':>16}{'s':>7}")
        bad = 0
        for name, outcomes in table.items():
            tally, began = Tally(), time.monotonic()
            for outcome in outcomes:
                tally.add(outcome)
            bad += tally.lost + tally.wrong
            print(
                f"{name:<28}{tally.tried:>8}{tally.survived:>10}{tally.lost:>6}{tally.wrong:>16}"
                f"{time.monotonic() - began:>7.0f}",
                flush=True,
            )
    return 1 if bad else 0


def _read_config(folder: Path) -> object:
    return config.load(folder / "config.yaml")


def _read_record(folder: Path) -> object:
    try:
        record.read(folder / "result.json")
    except ValueError:
        pass
    return finished.read(folder)


def _read_metrics(folder: Path) -> object:
    (folder / "result.json").unlink(missing_ok=True)
    return finished.read(folder)


if __name__ == "__main__":
    sys.exit(main())
