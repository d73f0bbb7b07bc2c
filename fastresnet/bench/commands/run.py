"""Benchmark this machine: `python benchmarks/run.py --suite standard [--only loader,step] [--out FILE]`.

With --processes 5 the suite runs in five fresh processes: such files can be compared. --against measures
another checkout beside this one, slice by slice: so a change is told from a machine that drifts. --gate 5%
does that with the last commit, or what --against names, and exits 1 where a case became slower beyond noise.
--operators RECIPE says instead where a training step's time goes.
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

from fastresnet.base import files, words
from fastresnet.base.exits import Interrupted
from fastresnet.bench import places
from fastresnet.bench.commands import compare
from fastresnet.bench.judging.comparison import FEWEST_PROCESSES
from fastresnet.bench.measuring import file, operators, processes, profiles
from fastresnet.bench.measuring.cases import PARTS
from fastresnet.bench.measuring.context import SUITES, Context
from fastresnet.bench.measuring.file import Benchmark, unfinished
from fastresnet.bench.measuring.suite import BUDGETS, Suite, default_name, describe, summary
from fastresnet.bench.pages import picture
from fastresnet.machine import hardware, timing
from fastresnet.machine.devices import choose_device, make_current
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings.command_line import Parser, above_zero, at_least_one

# of two checkouts that take turns; an even number cancels a steady drift
ROUNDS = 6


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and write its file after each case. The exit code is 1 where every case failed."""
    turns = timing.turns()
    began = BEGAN if argv is None and turns.alone else turns.clock()  # together they import all at once
    options = parse(argv)
    device = choose_device(options.device, option="--device")
    make_current(device)
    context = Context(device, options.suite, options.scale == "tiny", say)
    if options.operators:
        return _operators(context, options.operators, options.out)
    results, paths = _written(_measuring(options, context, began), options.out)
    if options.profile:
        with Heartbeat(lambda: f"profiling into {options.profile}"):
            profiles.write(context, options.profile, say)
    for result, path in zip(results, paths):
        print(words.fitted(f"{summary(result)}\nwritten: {path}", sys.stdout))
        drawn = picture.scaling(result, hardware.short_name(result["hardware"]))
        if drawn is not None:
            print(f"drawn: {files.write_text(path.with_suffix('.svg'), drawn)}")
    if options.gate is not None:
        return compare.main([str(paths[1]), str(paths[0]), f"--gate={options.gate}"])
    if options.against:
        print(words.then("compare", paths[1], paths[0], "--gate=5%"))
    elif sys.stdout.isatty():
        print(words.then("compare", paths[0], "OTHER.json", "--html=both.html"))
    return 0 if any(row["status"] == "ok" for row in results[0]["cases"]) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises ConfigError for a wrong one."""
    given = Parser(__doc__)
    add = given.add_argument
    add("--suite", choices=SUITES, default="quick", help="quick: 2 minutes; standard: about 12; full: hours")
    add("--only", type=parts, default=[], help=f"parts, with commas: {','.join(PARTS)}")
    add("--out", type=Path, help="result file (default: benchmarks/results/<machine>-<suite>-<date>.json)")
    add("--processes", type=at_least_one, metavar="N", help="repeat in N fresh processes (1; --against: 6)")
    add("--against", metavar="OTHER", help="take turns with another checkout's folder or a commit")
    told = "measure in turns with --against (HEAD) and exit 1 where a case is slower by more, beyond noise"
    add("--gate", type=compare.share, metavar="5%%", help=told)
    add("--operators", metavar="RECIPE", help="instead of a suite: where a training step goes, by operator")
    add("--profile", type=Path, metavar="DIR", help="also write a Chrome trace and a table of kernels there")
    add("--scale", choices=("normal", "tiny"), default="normal", help="tiny: does everything run? for CI")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--budget", type=above_zero, metavar="SECONDS", help="another time limit, for each process")
    options = given.parse_args(argv)
    if options.gate is not None:
        options.against = options.against or "HEAD"
    if options.operators and options.against:
        given.error("--operators takes a step apart: it has no turns to take, nor a gate")
    options.processes = options.processes or (ROUNDS if options.against else 1)
    if options.against and options.processes < FEWEST_PROCESSES:
        given.error(f"--against needs --processes {FEWEST_PROCESSES} or more, got {options.processes}")
    return options


def parts(text: str) -> list[str]:
    """`loader,step` -> ["loader", "step"]."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in found if part not in PARTS]
    if unknown or not found:
        raise argparse.ArgumentTypeError(f"{(unknown or [text])[0]!r}: the parts are {', '.join(PARTS)}")
    return found


def _measuring(options: argparse.Namespace, context: Context, began: float) -> Iterator[list[Benchmark]]:
    """The files as they grow: one, and with --against the other checkout's behind it."""
    budget = options.budget or BUDGETS[options.suite][context.on_gpu]
    if options.processes == 1:
        return ([one] for one in _once(Suite(context, options.only, budget, began)))
    return _repeated(options, budget)


def _once(measured: Suite) -> Iterator[Benchmark]:
    """The file after each case; a line of progress for each, with the time left."""
    count, budget = len(measured.cases), words.duration(measured.budget)
    if not count:
        raise ValueError(f"suite {measured.context.suite} has no case in {', '.join(measured.only)}")
    name = hardware.short_name(hardware.describe())
    say(f"{measured.context.suite} suite on {name}: {count} cases, and what is left of {budget}")

    def where() -> str:
        place = min(len(measured.rows), count - 1)
        case = measured.cases[place]
        return f"{place + 1:>2}/{count} under way: {case.part}/{case.name}"

    with Heartbeat(where) as heart:
        for index, (row, left) in enumerate(measured.measure(), 1):
            head, room = f"{index:>2}/{count} {words.duration(left, digits=0):>8} ", words.room(sys.stderr)
            heart.say(head + describe(row, room and room - len(head)))
            yield measured.file()


def _repeated(options: argparse.Namespace, budget: float) -> Iterator[list[Benchmark]]:
    """The file of all processes so far after each case; with the other checkout's, after each round."""
    command = [sys.executable, "-m", "fastresnet", "bench"]
    command += ["--suite", options.suite, "--scale", options.scale, "--device", options.device]
    command += ["--budget", f"{budget:g}", *(["--only", ",".join(options.only)] if options.only else [])]
    with contextlib.ExitStack() as stack:
        homes = [processes.PACKAGE_HOME]
        homes += [stack.enter_context(processes.checkout(options.against))] if options.against else []
        count, folder = options.processes, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        longest = words.duration(len(homes) * count * budget)
        say(f"{len(homes) * count} processes, at most {longest} in all")
        if options.against:
            yield from processes.in_turns(command, homes, count, folder)
        else:
            yield from ([one] for one in processes.repeat(command, count, folder))


def _written(measuring: Iterator[list[Benchmark]], out: Path | None) -> tuple[list[Benchmark], list[Path]]:
    """(the last files, where they lie), each written in place of the one before."""
    latest, paths = list[Benchmark](), list[Path]()
    try:
        with _ending_on_sigterm():
            for latest in measuring:
                paths = paths or _places(out, latest)
                for path, one in zip(paths, latest):
                    file.write(path, one)
    except KeyboardInterrupt as stop:
        if not latest:
            raise
        raise Interrupted(f"interrupted: {unfinished(latest[0]) or 'all'} in {paths[0]}") from stop
    return latest, paths


def _places(out: Path | None, files: Sequence[Benchmark]) -> list[Path]:
    """Where the files go; what took turns with another checkout is no result of this machine's table."""
    if len(files) == 1:
        return [out or default_name(files[0])]
    out = out or default_name(files[0], places.ROOT / "runs" / "against")
    return [out, out.with_name(f"{out.stem}-against{out.suffix}")]


def _operators(context: Context, recipe: str, out: Path | None) -> int:
    """Print and write where a step of the recipe goes."""
    with Heartbeat(lambda: f"watching steps of {recipe}"):
        found = operators.measure(context, recipe)
    path = out or places.ROOT / "runs" / f"operators-{found.recipe}-{found.device}.json"
    operators.write(path, found)
    print(f"{operators.table(found)}\nwritten: {path}")
    return 0


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
    print(words.fitted(text, sys.stderr), file=sys.stderr, flush=True)
