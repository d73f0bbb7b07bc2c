"""Does the gate of 5 % pass what is equal and fail what does 8 % more work? Real suites: `make gate`.

Three copies of the package take turns on this machine, in fresh processes: two equal ones, and one in which
the convolutions get 8 % more images than they are counted for. A trial holds the first against the other two.
Of twenty trials one may go wrong in either, of fewer none. It wants an idle machine.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fastresnet.bench.commands import run
from fastresnet.bench.judging import comparison
from fastresnet.bench.measuring import processes

ALLOWED, CASE = 0.05, "ceilings/cpu/conv3x3-bf16"
IMAGES, MORE = 100, 108  # percent of the images that the case is there for
LINE = re.compile(r"( +)flops, call = operation\(device, name, size\)\n")
PLANTED = r"""\g<0>\1if operation is convolution:
\1    call = operation(device, name, size * {percent} // 100)[1]
"""
COMMAND = ["bench", "--only", "ceilings", "--device", "cpu", "--budget", "6"]


@dataclass
class Tally:
    """How often equal suites passed, and slower ones failed."""

    passed: int = 0
    failed: int = 0
    trials: int = 0


def main(words: list[str] | None = None) -> int:
    """Try; a line for each trial, then the verdict. The exit code is 1 where the gate isn't to be trusted."""
    options = parse(words)
    tally, until = Tally(), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        homes = [planted(Path(folder, str(i)), percent) for i, percent in enumerate((IMAGES, IMAGES, MORE))]
        longest = 0.0
        while tally.trials < options.trials and time.monotonic() + longest < until:
            began = time.monotonic()
            try_once(homes, options.rounds, tally)
            longest = max(longest, time.monotonic() - began)
    print(
        f"{tally.passed} of {tally.trials} equal suites passed, "
        f"{tally.failed} of {tally.trials} with 8 % more work failed"
    )
    if tally.trials < options.trials:
        print(f"cut short: {options.trials} trials were asked for in {options.minutes:g} minutes")
        return 1
    return 0 if min(tally.passed, tally.failed) >= tally.trials - tally.trials // 20 else 1


def parse(words: list[str] | None) -> argparse.Namespace:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--trials", type=int, default=20)
    given.add_argument("--rounds", type=int, default=run.ROUNDS, help="processes of each copy a trial")
    given.add_argument("--minutes", type=float, default=50.0, help="begin no trial that would end later")
    return given.parse_args(words)


def planted(home: Path, percent: int) -> Path:
    """A copy of the package in which convolutions get so many percent of their images."""
    shutil.copytree(
        Path(processes.PACKAGE_HOME, "fastresnet"),
        home / "fastresnet",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    path = home / "fastresnet" / "bench" / "measuring" / "cases" / "ceilings.py"
    text = path.read_text("utf-8")
    text, found = LINE.subn(PLANTED.format(percent=percent), text)
    assert found == 1, "the suite's code has changed: plant the work anew"
    path.write_text(text, "utf-8")
    return home


def try_once(homes: list[Path], rounds: int, tally: Tally) -> None:
    """One more trial, of so many processes of each home."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fastresnet", *COMMAND]
        *_, files = processes.in_turns(command, homes, rounds, Path(folder))
    same, slower = (comparison.compare([files[0], other], ["base", "other"]) for other in files[1:])
    wrong, found = (comparison.gate(compared, ALLOWED)[0] for compared in (same, slower))
    named = [one.case for one in found]
    tally.trials += 1
    tally.passed += not wrong
    tally.failed += CASE in named
    told = [f"{name} {ratio(compared)}" for name, compared in (("equal", same), ("slower", slower))]
    verdicts = f"equal {'FAILED' if wrong else 'passed'}, slower {'failed' if CASE in named else 'PASSED'}"
    print(f"trial {tally.trials:>2}: {verdicts}  ({', '.join(told)})", flush=True)


def ratio(compared: comparison.Comparison) -> str:
    """The speed of the case that may have more work."""
    found = compared.cases[CASE][1].ratio
    assert found is not None
    return f"{found.ratio:.3f}x [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
