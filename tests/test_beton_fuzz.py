"""10,000 mutated betons: each is read as an independent reader reads it, or refused with a BetonError."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MUTATIONS = 10_000


def test_every_mutated_beton_is_read_correctly_or_refused(tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "fuzz_beton.py"), str(MUTATIONS), "1", str(tmp_path)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    outcomes = counts["outcomes"]
    with capsys.disabled():
        print(
            f"\nbeton fuzz: {MUTATIONS} mutations"
            f" ({', '.join(f'{k} {n}' for k, n in outcomes.items())});"
            f" no crash, no hang, peak {counts['peak_bytes'] / 2**20:.0f} MiB,"
            f" {counts['cpu_seconds']:.1f} s of CPU"
        )
        print("  " + ", ".join(f"{kind} {n}" for kind, n in sorted(counts["kinds"].items())))
    assert sum(outcomes.values()) == MUTATIONS and set(outcomes) == {"accepted", "refused"}
    assert counts["peak_bytes"] < 400 << 20
