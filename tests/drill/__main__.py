"""The drill's command, `make drill`: exit code 1 where something was lost, silently wrong or never tried.

python -m tests.drill --only="killed twice" --numbers=7:8     one try again, with the same random choices
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "1"}  # no thread survives a fork
os.environ |= {"OMP_NUM_THREADS": "1"}
sys.path.append(str(Path(__file__).parents[1]))  # the other tests' tools

from fastresnet import beton
from fastresnet.base import words
from fastresnet.base.system import cores_usable
from tests.drill import damage, handed, kills, ranks, starving
from tests.drill.ground import Ground
from tests.drill.outcome import Outcome
from tests.drill.running import Drill, Tally, carry_out

DRILLS = (
    Drill("killed at a file operation", kills.at_a_file_operation, 60),
    Drill("killed at any time", kills.at_any_time(signal.SIGKILL), 40),
    Drill("killed twice", kills.at_any_time(signal.SIGKILL, times=2), 10),
    Drill("terminal closed (SIGHUP)", kills.at_any_time(signal.SIGHUP), 10),
    Drill("terminated (SIGTERM)", kills.at_any_time(signal.SIGTERM), 10),
    Drill("one of two processes killed", ranks.one_of_two_killed, 6, batch=6),
    Drill("one killed under torchrun", ranks.one_killed_under_torchrun, 2, batch=2),
    Drill("killed while converting", handed.killed_while_it_converts, 6),
    Drill("disk full", starving.on_a_full_disk, 20),
    Drill("disk becomes read-only", starving.on_a_disk_that_becomes_read_only, 20),
    Drill("memory limited", starving.with_little_memory, 30),
    Drill("beton changed while streaming", handed.changed_while_it_streams, 24, batch=24),
    Drill("data replaced before going on", handed.other_data_before_it_goes_on, 24),
    Drill("beton damaged", damage.beton_damaged, 10000, batch=1000),
    Drill("picture damaged", damage.picture_damaged, 10000, batch=1000),
    *(Drill(name, kind.attempt, kind.tries, batch=kind.tries // 10) for name, kind in damage.FORMATS.items()),
)
MOST_TOLD = 5  # failures of a drill
NEED_FFCV = (handed.changed_while_it_streams, handed.killed_while_it_converts)
MEANS = {
    True: "disks are small tmpfs",
    False: "mounting isn't allowed here: a limit on the size of files stands for a full disk, refused "
    "operations for a read-only one",
}
COLUMNS = f"{'mishap':<31}{'of':>7}{'tried':>7}{'survived':>10}{'lost':>6}{'silently wrong':>16}{'s':>7}"


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the drills, print the table; 1 where something was lost, silently wrong or never tried."""
    asked = _parser().parse_args(argv)
    drills = _chosen(asked)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        ground = Ground(Path(place))
        found = carry_out(
            drills,
            ground,
            asked.seed,
            processes=asked.processes or cores_usable(),
            until=began + 60 * asked.minutes,
            failed=Teller(asked.seed),
        )
    print(_table(drills, found))
    print(f"{words.duration(time.monotonic() - began)}; {MEANS[starving.may_mount()]}")
    bad = sum(tally.count("lost") + tally.count("wrong") for tally in found.values())
    never = any(not tally.outcomes for tally in found.values())
    late = any(len(tally.outcomes) < len(drills[drill]) for drill, tally in found.items())
    if late:
        print("time was up: --minutes gives more")
    return 1 if bad or never else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=0, help="of all random choices")
    add("--minutes", type=float, default=10.0, help="no try begins later, each drill got as far (10)")
    add("--share", type=float, default=1.0, help="of the full length, at least one try of each (1)")
    add("--only", action="append", metavar="NAME", help="drills with this in their names")
    add("--numbers", metavar="FIRST:END", help="these tries alone")
    add("--processes", type=int, default=0, help="at a time (0: one a core)")
    return parser


def _chosen(asked: argparse.Namespace) -> dict[Drill, Sequence[int]]:
    """The drills that were asked for and can be done here, with the numbers of their tries."""
    drills = [one for one in DRILLS if not asked.only or any(name in one.name for name in asked.only)]
    if not drills:
        raise SystemExit(f"error: the drills are {', '.join(one.name for one in DRILLS)}")
    for one in [one for one in drills if one.attempt in NEED_FFCV and not beton.can_write()]:
        print(f"{one.name}: left out, it needs ffcv")
        drills.remove(one)
    numbers = {one: range(max(1, round(asked.share * one.tries))) for one in drills}
    if asked.numbers:
        first, _, end = asked.numbers.partition(":")
        numbers = dict.fromkeys(drills, range(int(first), int(end)))
    return numbers


class Teller:
    """Says what went wrong, and the command that does it again; of each drill only the first few."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.told: Counter[str] = Counter()

    def __call__(self, drill: Drill, number: int, outcome: Outcome) -> None:
        self.told[drill.name] += 1
        if self.told[drill.name] > MOST_TOLD:
            return
        print(f"{outcome.what}: {drill.name}, try {number}: {outcome.why}")
        again = f"--only='{drill.name}' --numbers={number}:{number + 1}"
        print(f"    python -m tests.drill --seed={self.seed} {again}", flush=True)


def _table(drills: dict[Drill, Sequence[int]], found: dict[Drill, Tally]) -> str:
    lines = [COLUMNS]
    for drill, tally in found.items():
        counts = f"{tally.count('survived'):>10}{tally.count('lost'):>6}{tally.count('wrong'):>16}"
        tried = f"{len(drills[drill]):>7}{len(tally.outcomes):>7}"
        lines.append(f"{drill.name:<31}{tried}{counts}{tally.seconds:>7.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
