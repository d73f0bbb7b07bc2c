"""The short form of the gate's drill: it works. `make gate` is the long one, whose verdict counts."""

import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parent / "gate_drill.py"


@pytest.mark.slow(45)
def test_the_gate_is_tried_on_real_suites_of_equal_and_slower_code():
    command = [sys.executable, str(DRILL), "--trials=1", "--rounds=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert "trial  1: equal " in done.stdout and "of 1 with 8 % more work failed" in done.stdout
