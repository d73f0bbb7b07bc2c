"""A rival's command, timed as it comes: one call is one row. Refuses to look inside."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from fastresnet.machine import timing
from fastresnet.series.rows import Row

OWN = "own"  # who runs in a log, where it is no rival
ITS_OWN, THE_CALL = "its own", "the whole call"
CLOCKS = {
    ITS_OWN: "timed by its own clock, of which nothing is known here",
    THE_CALL: "the whole call is timed, its start-up included",
}


def sides(commands: Sequence[str]) -> dict[str, str]:
    """Each rival's command under the name that a log has for it."""
    return {f"rival {number}" if number > 1 else "rival": one for number, one in enumerate(commands, 1)}


def check(command: str) -> None:
    """ValueError where nothing of that name can be started."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--versus: {command!r} is no command line: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise ValueError(
            f"--versus: {command!r} can't be started: there is no program {words[0] if words else ''!r}"
        )


def run(command: str, seed: int) -> Row:
    """One call of the command.

    Its last line on standard output may be JSON with "seconds" and "accuracy" (a share, with its own TTA, if
    it has one); without it the whole call is timed and its accuracy stays unknown. A figure that can't be
    makes the run a failed one.
    """
    began = timing.now("cpu")
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    wall = timing.now("cpu") - began
    row: Row = {
        "seed": seed,
        "status": "ok",
        "accuracy": None,
        "accuracy_tta": None,
        "seconds": {"total": wall},
    }
    told = last_json(done.stdout)
    if message := failure(done) or _impossible(told):
        return {**row, "status": "failed", "message": message}
    row["accuracy_tta"] = told.get("accuracy")
    row["seconds"] = {"total": float(told.get("seconds", wall)), "wall": wall}
    row["clock"] = ITS_OWN if "seconds" in told else THE_CALL
    return row


def timed_by(runs: Sequence[Row]) -> str:
    """Whose clock the seconds of a rival's runs are from, in words; nothing where no row says so."""
    clocks = dict.fromkeys(row["clock"] for row in runs if "clock" in row)
    return " and ".join(CLOCKS.get(clock, clock) for clock in clocks)


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """Its exit code and last words where it failed, else nothing."""
    if not done.returncode:
        return ""
    said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
    return f"exit {done.returncode}: {said}"


def _impossible(told: dict[str, Any]) -> str:
    """What is wrong with the figures that it told, or nothing."""
    for name, high, meant in (("accuracy", 1.0, "a share of 1, not percent"), ("seconds", 1e9, "a number")):
        value = told.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
            return f"its {name} is {value!r}, {meant} is wanted"
    return ""


def last_json(output: str) -> dict[str, Any]:
    """What it told; null counts as not told."""
    lines = output.strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        return {}
    return {key: value for key, value in told.items() if value is not None} if isinstance(told, dict) else {}
