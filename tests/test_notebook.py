"""The notebook runs from top to bottom in a fresh process, and is kept without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "tour.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_is_kept_without_outputs():
    assert all(
        not cell["outputs"] and cell["execution_count"] is None
        for cell in cells()
        if cell["cell_type"] == "code"
    )


@pytest.mark.slow
def test_the_tour_runs_on_drawn_images(tmp_path):
    code = "\n\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code")
    smaller = code.replace(
        '"data.synthetic_train": 2000, "data.synthetic_test": 500',
        '"data.synthetic_train": 300, "data.synthetic_test": 60',
    )
    assert smaller != code
    smaller = smaller.replace(
        '"data.subset": 2000, "train.epochs": 2', '"data.subset": 200, "train.epochs": 1'
    )
    smaller = smaller.replace(
        '"train.batch_size": 100',
        '"train.batch_size": 50, "run.threads": 1, "model.stage_widths": [16, 32, 32]',
    )
    environment = {key: value for key, value in os.environ.items() if key != "FASTRESNET_DATA"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", smaller],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "synthetic data: True" in done.stdout and "everything is in" in done.stdout
