"""A suite repeated in fresh processes, in turns: what varies between them becomes part of the samples.

Each process measures every case once, so that a case's repetitions lie far apart in time. Memory layout,
clocks, other tenants and the order of allocations differ between processes and hardly within one. Two
checkouts take turns, slice by slice of their samples, so that both meet the same machine.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from fastresnet.base import words
from fastresnet.base.statistics import quantiles
from fastresnet.base.system import output
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.file import Benchmark, Figure, Row
from fastresnet.bench.measuring.harness import SPREAD_LIMIT
from fastresnet.machine import timing

# figures that add up over processes; the others are averaged
COUNTS = ("runs", "runs_planned")
PACKAGE_HOME = Path(__file__).resolve().parents[3]
# seconds between two looks at a process's file, and for it to end after an interruption
LOOK, FAREWELL = 0.5, 20.0


def environment(home: Path = PACKAGE_HOME) -> dict[str, str]:
    """This process's environment, for a Python process anywhere that must find the package of `home`."""
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    data = os.environ.get("FASTRESNET_DATA")
    found = {"FASTRESNET_DATA": os.path.abspath(data)} if data else {}
    return os.environ | found | {"PYTHONPATH": os.pathsep.join(paths)}


def repeat(command: Sequence[str], count: int, folder: Path) -> Iterator[Benchmark]:
    """Run `command --out FILE` in `count` processes one after the other; yields all so far after each case.

    folder:  where the processes' own files go
    Raises RuntimeError where a process ends without a file.
    """
    done: list[Benchmark] = []
    for index in range(count):
        path = folder / f"{index}.json"
        for latest in _files_of([*command, "--out", str(path)], path):
            yield merged([*done, latest]) | {"processes_planned": count, "processes_done": index}
        done.append(file.read(path))
        yield merged(done) | {"processes_planned": count, "processes_done": index + 1}


def in_turns(
    command: Sequence[str], homes: Sequence[Path], count: int, folder: Path
) -> Iterator[list[Benchmark]]:
    """Run `command --out FILE` with each home's package in `count` rounds; yields all files after each.

    In a round all take turns of a tenth of a second, so that they meet the same machine: a busy spell, or a
    clock that changes. What went well for some homes only counts for none in that round.
    folder:  where the processes work, find the data of the folder that this process works in, and leave files
    Raises RuntimeError where a process ends without a file.
    """
    if Path("data").exists():
        (folder / "data").symlink_to(Path("data").resolve())
    turns, done = secrets.token_hex(8), [list[Benchmark]() for _ in homes]
    for index in range(count):
        order = [*range(len(homes))][:: 1 if index % 2 == 0 else -1]  # a steady drift cancels, too
        paths = {side: folder / f"{index}-{side}.json" for side in order}
        _round(command, [(homes[side], paths[side]) for side in order], folder)
        for side, path in paths.items():
            done[side].append(file.read(path))
        yield [
            merged(files) | {"turns": turns, "processes_planned": count, "processes_done": index + 1}
            for files in _measured_by_all(done)
        ]


def _measured_by_all(done: Sequence[Sequence[Benchmark]]) -> list[list[Benchmark]]:
    """Each home's files without what another lacks in that round, unless it lacks that in all rounds."""
    good = [[{row["id"] for row in one["cases"] if row["status"] == "ok"} for one in files] for files in done]
    rounds = [set.intersection(*sides) for sides in zip(*good)]
    ever = set[str]().union(*rounds)
    return [
        [
            {**one, "cases": [row for row in one["cases"] if row["id"] in both or row["id"] not in ever]}
            for one, both in zip(files, rounds)
        ]
        for files in done
    ]


@contextlib.contextmanager
def checkout(against: str) -> Iterator[Path]:
    """The folder that holds another checkout: `against` itself, or a work tree of that commit for the block.

    Raises ValueError where `against` is neither.
    """
    with contextlib.ExitStack() as stack:
        folder, git = Path(against).expanduser().resolve(), ("git", "-C", PACKAGE_HOME)
        commit = output(*git, "rev-parse", "--verify", "--quiet", f"{against}^{{commit}}")
        if not folder.is_dir() and commit:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "tree")
            output(*git, "worktree", "add", "--detach", "--force", folder, commit)
            stack.callback(output, *git, "worktree", "remove", "--force", folder)
        if not (folder / "fastresnet" / "__main__.py").is_file():
            raise ValueError(
                f"--against {against}: no folder with a checkout of fastresnet, and no commit of this one"
            )
        yield folder


def _round(command: Sequence[str], sides: Sequence[tuple[Path, Path]], folder: Path) -> None:
    """Run `command --out FILE` once with each (home, FILE), by turns where all packages know of them."""
    if not all(_takes_turns(home) for home, _ in sides):
        for home, path in sides:
            for _ in _files_of([*command, "--out", str(path)], path, home, folder):
                pass
        return
    with contextlib.ExitStack() as stack:
        links, children = list[socket.socket](), list[subprocess.Popen[bytes]]()
        for home, path in sides:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            links.append(ours)
            children.append(
                stack.enter_context(_started([*command, "--out", str(path)], home, folder, theirs))
            )
            theirs.close()
        _give_turns(links)
        for child, (_, path) in zip(children, sides):
            child.wait()
            _check_left(child, path)


def _takes_turns(home: Path) -> bool:
    """Whether the package of `home` knows of turns; one of an earlier time doesn't."""
    module = home / "fastresnet" / "machine" / "timing.py"
    return os.name == "posix" and module.exists() and timing.TURNS in module.read_text("utf-8")


def _give_turns(links: Sequence[socket.socket]) -> None:
    """One turn after the other to each process that is still there, once all have begun."""
    alive = [link for link in links if link.recv(1)]
    while alive:
        alive = [link for link in alive if _turn(link)]


def _turn(link: socket.socket) -> bool:
    """Let the process behind `link` work until it has had enough. False where it has ended."""
    try:
        link.sendall(b".")
        return bool(link.recv(1))
    except OSError:
        return False


@contextlib.contextmanager
def _started(
    command: Sequence[str], home: Path, folder: Path | None, turns: socket.socket | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the suite, which ends with the block."""
    given = {timing.TURNS: str(turns.fileno())} if turns else {}
    keep = [turns.fileno()] if turns else []
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=environment(home) | given, cwd=folder, pass_fds=keep
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(FAREWELL)


def _files_of(
    command: Sequence[str], path: Path, home: Path = PACKAGE_HOME, folder: Path | None = None
) -> Iterator[Benchmark]:
    """The file of one process each time it has grown; ends the process where the user stops."""
    seen = 0.0
    with _started(command, home, folder) as child:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LOOK)
            if path.exists() and path.stat().st_mtime > seen:
                seen = path.stat().st_mtime
                yield file.read(path)
    _check_left(child, path)


def _check_left(child: subprocess.Popen[bytes], path: Path) -> None:
    if not path.exists():
        raise RuntimeError(f"a process of the suite ended with exit code {child.returncode} and left no file")


def merged(files: Sequence[Benchmark]) -> Benchmark:
    """One file of several processes' files, the first one's machine and date standing for all."""
    first, last = files[0], files[-1]
    rows: dict[str, list[Row]] = {}
    for one in files:
        for row in one["cases"]:
            rows.setdefault(row["id"], []).append(row)
    throttle = {reason for one in files for reason in one["condition"]["throttle"]}
    return {
        **first,
        "seconds": round(sum(one["seconds"] for one in files), 1),
        "budget_seconds": sum(one["budget_seconds"] for one in files),
        "condition": {
            "before": first["condition"]["before"],
            "after": last["condition"]["after"],
            "throttle": sorted(throttle),
        },
        "cases": [merged_row(repeated) for repeated in rows.values()],
    }


def merged_row(rows: Sequence[Row]) -> Row:
    """One row of the repetitions of a case; where it failed in every process, the first failure."""
    good = [row for row in rows if row["status"] == "ok"]
    if not good:
        return rows[0]
    samples = [value for row in good for value in row["samples"]]
    middles = [median(row["samples"]) for row in good]
    why = noise(middles) or next((row["noise"] for row in good if len(good) == 1), None)
    return {
        **good[0],
        "samples": samples,
        "processes": [len(row["samples"]) for row in good],
        "quantiles": {**quantiles(samples), "median": typical(middles)},
        "noisy": why is not None,
        "noise": why,
        "figures": {name: _figure(name, good) for name in good[0]["figures"]},
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }


def typical(values: Sequence[float]) -> float:
    """The geometric mean: the ratio of two such figures is what the ratios of their parts average to."""
    return math.exp(fmean(map(math.log, values))) if min(values) > 0 else fmean(values)


def noise(middles: Sequence[float]) -> str | None:
    """Why the medians of the processes can't be trusted to a few percent, or None."""
    spread = (max(middles) - min(middles)) / (abs(typical(middles)) or 1.0)
    return f"processes differ by {words.percent(spread, digits=0)}" if spread > SPREAD_LIMIT else None


def _figure(name: str, rows: Sequence[Row]) -> Figure:
    """A figure of all repetitions; what isn't a number in each of them is the first one's."""
    values = [file.number(row, name) for row in rows]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(rows):
        return rows[0]["figures"][name]
    return sum(numbers) if name in COUNTS else typical(numbers)
