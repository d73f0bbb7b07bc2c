"""A rival's command, timed as it comes: one call is one row. Refuses to look inside."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from typing import Any

from fastresnet.machine import timing
from fastresnet.series.rows import Row


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
    it has one); without it the whole call is timed and its accuracy stays unknown.
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
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        row["status"], row["message"] = "failed", f"exit {done.returncode}: {said}"
        return row
    told = _last_json(done.stdout)
    row["accuracy_tta"] = told.get("accuracy")
    row["seconds"] = {"total": float(told.get("seconds", wall)), "wall": wall}
    row["clock"] = "its own" if "seconds" in told else "the whole call"
    return row


def _last_json(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
