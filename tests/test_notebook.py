"""The notebook runs from top to bottom in a fresh process, and is kept with what it showed."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_with_its_pictures_and_its_logs_as_text():
    outputs = [output for cell in CODE for output in cell["outputs"]]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    logs = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert len(pictures) >= 6 and NOTEBOOK.stat().st_size < 600 * 1024
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "epoch   2/2" in logs and "\x1b" not in logs
    assert "synthetic data: True" in logs, "no image of a real data set is kept"
    assert not re.search(r"(?<!\w)/(tmp|home|root|work|Users)/", logs), "a path of the machine that ran it"


def test_the_extra_that_the_notebook_names_exists():
    assert '"notebook": [' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert ".[notebook]" in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["fastresnet", "fastresnet-main"])
def test_in_colab_the_checkout_is_unpacked_and_installed_whatever_its_folder_is_called(tmp_path, name):
    line = CODE[0]["source"][0]
    assert line.startswith("# !") and "pip install -q" in line
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as packed:
        packed.writestr(f"{name}/setup.py", "")
    command = line.removeprefix("# !").replace("pip install -q", "echo installing")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    told = subprocess.check_output(
        command, shell=True, text=True, cwd=tmp_path, env=os.environ | {"PATH": path}
    )
    assert told == f"installing ./{name}/\n" and (tmp_path / name / "setup.py").is_file()


@pytest.mark.slow(20)
def test_the_tour_runs_on_drawn_images(tmp_path):
    code = "\n\n".join("".join(cell["source"]) for cell in CODE)
    smaller = code
    for old, new in (
        ('"data.synthetic_train": 2000, "data.synthetic_test": 500',
         '"data.synthetic_train": 300, "data.synthetic_test": 60'),
        ('"data.subset": 2000, "train.epochs": 2', '"data.subset": 200, "train.epochs": 1'),
        ('"train.batch_size": 100',
         '"train.batch_size": 50, "run.threads": 1, "model.stage_widths": [16, 32, 32]'),
    ):  # fmt: skip
        assert smaller.count(old) == 1
        smaller = smaller.replace(old, new)
    environment = {key: value for key, value in os.environ.items() if key != "FASTRESNET_DATA"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", smaller]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "synthetic data: True" in done.stdout and "everything is in" in done.stdout
