"""What goes to a lent machine: pieces join to what was cut, and what is missing there is installed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastresnet.bench.commands import cargo

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / ".image/bin/python"  # made by `make image`


def a_wheel(folder, name, code):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", code)
        facts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for fact, text in facts.items():
            wheel.writestr(f"{name}-1.0.dist-info/{fact}", text)
    return path


def test_pieces_that_come_one_by_one_join_to_what_was_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(cargo, "PIECE_BYTES", 1000)
    source, cargo_, hold = (tmp_path / name for name in ("source", "cargo", "hold"))
    source.mkdir()
    cargo_.mkdir()
    content = np.random.default_rng(0).bytes(2500)
    (source / "train.beton").write_bytes(content)
    pieces = cargo.cut([source / "train.beton"], cargo_)
    assert len(pieces) == 3 and all(piece.stat().st_size <= 1000 for piece in pieces)
    for number, piece in enumerate(reversed(pieces), 1):  # whatever the order
        sent = tmp_path / f"sent-{number}"
        sent.mkdir()
        piece.rename(sent / piece.name)
        (line,) = cargo.unpack(sent, hold)
        assert line == (
            f"data: {number} of 3 pieces are here" if number < 3 else f"data: betons in {hold / 'betons'}"
        )
    assert (hold / "betons" / "train.beton").read_bytes() == content
    assert not list(hold.glob("*.data")) and not list(hold.glob("*.tar*"))


def test_only_what_is_missing_and_works_here_is_installed(tmp_path):
    good = a_wheel(tmp_path, "brought_along", "VALUE = 7")
    broken = a_wheel(tmp_path, "without_its_needs", "import surely_not_installed_anywhere")
    here = a_wheel(tmp_path, "json", "")
    with tarfile.open(tmp_path / "packages.tar", "w") as archive:
        for wheel in (good, broken, here):
            archive.add(wheel, wheel.name)
    said = list(cargo.install(tmp_path / "packages.tar", tmp_path / "packages"))
    assert said[0] == "left out without_its_needs: No module named 'surely_not_installed_anywhere'"
    assert said[1] == "installed: brought_along, without_its_needs"
    there = {path.name for path in (tmp_path / "packages").iterdir()}
    assert "brought_along" in there and not there & {"json", "without_its_needs"}


def test_a_folder_without_wheels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no wheel lies there"):
        list(cargo.pack(tmp_path / "to", tmp_path, None))


@pytest.mark.slow(90)
def test_all_that_a_gpu_is_asked_runs_on_a_cpu_at_tiny_size(tmp_path):
    """Packed, sent and unpacked, from a tree without git, by a Python that lacks what such an image lacks."""
    command = ["bash", "benchmarks/gpu_full.sh", "--dry", str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "PYTHON": sys.executable, "HOME": str(Path.home())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        names = archive.getnames()
    recipes = ("speed94", "rn18-94", "speed95", "speed96", "speed94-versus-other94")
    wanted = {f"results/records/{recipe}/record.json" for recipe in recipes}
    assert wanted | {f"results/{name}" for name in ("loader.json", "step.json", "check.log")} <= set(names)
    assert not [name for name in names if name.endswith(".pt")]
    assert (tmp_path / "results.tar.gz").stat().st_size < 16 * 2**20


@pytest.mark.slow(90)
def test_kernels_and_captured_steps_are_right_by_the_pytorch_of_machines_with_gpus():
    """Compiled for GPUs that aren't here, and on tensors that hold nothing."""
    if not IMAGE.exists():
        pytest.skip("needs PyTorch 2.11: make image")
    files = [
        f"tests/test_{name}.py"
        for name in ("triton_augment", "warm_up", "capture", "counter", "weights", "muon")
    ]
    command = [IMAGE, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


def test_stages_done_before_are_passed_over_those_without_time_named_and_results_packed(tmp_path):
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold" / "check.done").touch()
    told = {"DRY": "1", "TOTAL": "10", "PYTHON": sys.executable}
    told |= {"CARGO": str(tmp_path / "cargo"), "HOLD": str(tmp_path / "hold")}
    command = ["bash", "benchmarks/gpu_full.sh", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 1 and "check" not in done.stdout
    assert "failed: record-speed94(no time left) record-rn18-94(no time left)" in done.stdout
    assert (tmp_path / "out" / "results.tar.gz").exists()
