"""Benchmark this machine: `python benchmarks/run.py --suite standard [--only loader,step] [--out FILE]`.

With --processes 5 the suite runs in five fresh processes: such files can be compared, and gated.
"""

from __future__ import annotations

import time

# the suite's time includes the imports below
BEGAN = time.perf_counter()

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastresnet.base import words
from fastresnet.base.exits import Interrupted
from fastresnet.bench.commands.options import above_zero, at_least_one, parser
from fastresnet.bench.measuring import file, processes, profiles
from fastresnet.bench.measuring.cases import PARTS
from fastresnet.bench.measuring.context import SUITES, Context
from fastresnet.bench.measuring.file import Benchmark, unfinished
from fastresnet.bench.measuring.suite import BUDGETS, Suite, default_name, describe, summary
from fastresnet.machine import hardware
from fastresnet.machine.devices import choose_device, make_current


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and write its file after each case. The exit code is 1 where every case failed."""
    began = BEGAN if argv is None else time.perf_counter()
    options = parse(argv)
    device = choose_device(options.device, option="--device")
    make_current(device)
    context = Context(device, options.suite, options.scale == "tiny", say)
    budget = options.budget or BUDGETS[options.suite][context.on_gpu]
    if options.processes > 1:
        measuring = _repeated(options, budget)
    else:
        measuring = _once(Suite(context, options.only, budget, began))
    result, path = _written(measuring, options.out)
    if options.profile:
        profiles.write(context, options.profile, say)
    print(summary(result))
    print(f"written: {path}")
    return 0 if any(row["status"] == "ok" for row in result["cases"]) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises ConfigError for a wrong one."""
    given = parser(__doc__)
    add = given.add_argument
    add("--suite", choices=SUITES, default="quick", help="quick: 2 minutes; standard: about 12; full: hours")
    add("--only", type=parts, default=[], help=f"parts, with commas: {','.join(PARTS)}")
    add("--out", type=Path, help="result file (default: benchmarks/results/<machine>-<suite>-<date>.json)")
    add("--processes", type=at_least_one, default=1, metavar="N", help="repeat in N fresh processes (1)")
    add("--profile", type=Path, metavar="DIR", help="also write a Chrome trace and a table of kernels there")
    add("--scale", choices=("normal", "tiny"), default="normal", help="tiny: does everything run? for CI")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--budget", type=above_zero, metavar="SECONDS", help="another time limit, for each process")
    return given.parse_args(argv)


def parts(text: str) -> list[str]:
    """`loader,step` -> ["loader", "step"]."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in found if part not in PARTS]
    if unknown or not found:
        raise argparse.ArgumentTypeError(f"{(unknown or [text])[0]!r}: the parts are {', '.join(PARTS)}")
    return found


def _once(measured: Suite) -> Iterator[Benchmark]:
    """The file after each case; a line of progress for each, with the time left."""
    count, budget = len(measured.cases), words.duration(measured.budget)
    if not count:
        raise ValueError(f"suite {measured.context.suite} has no case in {', '.join(measured.only)}")
    name = hardware.short_name(hardware.describe())
    say(f"{measured.context.suite} suite on {name}: {count} cases, at most {budget}")
    for index, (row, left) in enumerate(measured.measure(), 1):
        say(f"[{index:>2}/{count}] {left // 60:.0f}:{left % 60:02.0f} left  {describe(row)}")
        yield measured.file()


def _repeated(options: argparse.Namespace, budget: float) -> Iterator[Benchmark]:
    """The file of all processes so far, after each case."""
    command = [sys.executable, "-m", "fastresnet", "bench"]
    command += ["--suite", options.suite, "--scale", options.scale, "--device", options.device]
    command += ["--budget", f"{budget:g}", *(["--only", ",".join(options.only)] if options.only else [])]
    say(f"{options.processes} processes, at most {words.duration(options.processes * budget)} in all")
    with tempfile.TemporaryDirectory() as folder:
        yield from processes.repeat(command, options.processes, Path(folder))


def _written(measuring: Iterator[Benchmark], out: Path | None) -> tuple[Benchmark, Path]:
    """(the last file, where it lies), each written in place of the one before."""
    latest: Benchmark | None = None
    try:
        with _ending_on_sigterm():
            for latest in measuring:
                out = out or default_name(latest)
                file.write(out, latest)
    except KeyboardInterrupt as stop:
        if latest is None:
            raise
        raise Interrupted(f"interrupted: {unfinished(latest) or 'all'} in {out}") from stop
    assert latest is not None and out is not None
    return latest, out


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does (in the main thread, which alone may say so)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
