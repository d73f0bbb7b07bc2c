"""The short form of the drill; `make drill` is the long one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parent / "drill" / "drill.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
def test_killed_starved_and_damaged_runs_lose_nothing_and_are_never_silently_wrong():
    command = [sys.executable, str(DRILL), "--kills=3", "--mutations=50", "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed at a file operation         3         3     0" in done.stdout
