"""Tests of a changed copy of the tree, each time in a fork of this process, so that PyTorch is imported once.

The parent imports what is slow and nothing of the package. For the scripts that plant faults and mutants.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("fastresnet", "tests", "benchmarks", "scripts", "docs", "pyproject.toml", "README.md", "Makefile")


@dataclass(frozen=True)
class Outcome:
    """What became of the tests: passed, failed, late (killed after the limit) or broken (they never began).

    first:    the first test that failed, or the file that could not be collected
    seconds:  how long it took
    """

    what: str
    first: str
    seconds: float


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A temporary copy of the files that tests read, without caches."""
    with tempfile.TemporaryDirectory(prefix="changed-") as folder:
        for name in FILES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / name).is_file():
                shutil.copy(ROOT / name, Path(folder, name))
        yield Path(folder)


def import_what_is_slow() -> None:
    """Packages that the tests need, without beginning any thread."""
    import numba  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)


def run(tree: Path, tests: Sequence[str], limit: float) -> Outcome:
    """Run tests of `tree` until the first fails, in a fork; `limit` in seconds."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        os.close(reading)
        os._exit(_in_child(tree, list(tests), writing))
    os.close(writing)
    code = _waited(child, began + limit)
    with os.fdopen(reading) as pipe:
        first = pipe.read().strip()
    seconds = time.monotonic() - began
    if code is None:
        return Outcome("late", first, seconds)
    return Outcome({0: "passed", 1: "failed"}.get(code, "broken"), first, seconds)


def _waited(child: int, until: float) -> int | None:
    """The exit code of a child, or None where it had to be killed, with what it had started."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)


def _in_child(tree: Path, tests: list[str], pipe: int) -> int:
    import pytest

    class Tell:
        """The first failure, to the parent."""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                os.write(pipe, f"{report.nodeid}\n".encode())

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                os.write(pipe, f"{report.nodeid} (not collected)\n".encode())

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.dont_write_bytecode = True
    sys.path[:] = [
        str(tree),
        *(path for path in sys.path if not Path(path or ".").resolve().is_relative_to(ROOT)),
    ]
    try:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={tree}"]
        return int(pytest.main([*options, *tests], plugins=[Tell()]))
    except BaseException:  # whatever a mutant does, this process must end here
        return 1
