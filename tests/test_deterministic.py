"""A killed run resumes to the same bits, however it steps; on a GPU where run.deterministic is set."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import betons_by_hand
import pytest
import torch

from fastresnet import beton
from fastresnet.machine import precision
from fastresnet.runs import checkpoint, start
from fastresnet.sources import synthetic

SMALL = {
    "train.epochs": 3.0, "train.batch_size": 50, "train.precision": "fp32", "train.ema_decay": 0.9,
    "train.checkpoint_every": "2 steps", "run.report": False, "run.progress": "off", "run.threads": 1,
}  # fmt: skip
ROOT = Path(__file__).parent.parent
IMAGES = {"train": 220, "test": 60}
STEPS, KILLED_AFTER = 12, 7
KILLED = """
import json, os, signal, sys
from fastresnet.runs import start
from fastresnet.runs.callbacks import Callback

class Kill(Callback):
    def on_step_end(self, trainer):
        if trainer.steps_done == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

start.train("smoke.yaml", json.loads(sys.argv[1]), callbacks=[Kill()])
"""
COMPILED, CAPTURED = {"train.compile": "default"}, {"train.cuda_graph": True}
STREAMED = {"data.loader": "ffcv"}
RESNET = {"model.arch": "resnet", "model.stage_widths": None, "model.width": 0.25, "optim.name": "sgd"}
ON_A_CPU = {"streamed": STREAMED, "compiled": COMPILED}
ON_A_GPU = {
    "eager": {},
    "captured": CAPTURED,
    "compiled": COMPILED,
    "compiled with graphs": {"train.compile": "reduce-overhead"},
    "compiled, captured and streamed": COMPILED | CAPTURED | STREAMED,
    "a resnet in bf16": COMPILED | CAPTURED | RESNET | {"train.precision": "bf16", "optim.lr": 0.01},
}


@pytest.fixture(autouse=True)
def switches_put_back():
    """Determinism and the number of threads belong to the process."""
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def finished(folder):
    """Weights, their average and the rows of a run, without what a clock says."""
    payload = checkpoint.load(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]
    return {**payload["model"], **{f"averaged {k}": v for k, v in payload["averaged"].items()}}, timeless


def resumes_to_the_same_bits(tmp_path, changes):
    """A run that was killed in another process and given again ends as one that never was."""
    if "data.loader" in changes and not beton.can_write():
        pytest.skip("needs ffcv, which isn't installed")
    settings = SMALL | changes
    for split, count in IMAGES.items():
        images, labels = synthetic.draw(split, count, 16)
        path = betons_by_hand.make(tmp_path / f"{split}.beton", list(images), labels.tolist())
        settings[f"data.{split}"] = str(path)
    whole, cut = (settings | {"run.dir": str(tmp_path / name)} for name in ("whole", "cut"))
    start.train("smoke.yaml", whole)
    command = [sys.executable, "-c", KILLED, json.dumps(cut), str(KILLED_AFTER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 0 < checkpoint.load(tmp_path / "cut")["step"] <= KILLED_AFTER, "or nothing is resumed"
    start.train("smoke.yaml", cut)
    (weights, rows), (theirs, their_rows) = finished(tmp_path / "whole"), finished(tmp_path / "cut")
    assert rows[-1]["step"] == STEPS and weights.keys() == theirs.keys()
    unlike = [name for name, value in weights.items() if not torch.equal(value, theirs[name])]
    return not unlike and rows == their_rows


@pytest.mark.parametrize("changes", [{}, {"model.members": 2}], ids=str)
def test_a_killed_run_resumes_to_the_same_bits(changes, tmp_path):
    assert resumes_to_the_same_bits(tmp_path, changes)


@pytest.mark.slow(40)
@pytest.mark.parametrize("way", ON_A_CPU)
def test_a_killed_run_resumes_to_the_same_bits_streamed_and_compiled(way, tmp_path):
    assert resumes_to_the_same_bits(tmp_path, ON_A_CPU[way])


@pytest.mark.gpu
@pytest.mark.parametrize("way", ON_A_GPU)
def test_a_killed_run_resumes_to_the_same_bits_on_the_gpu(way, tmp_path):
    changes = ON_A_GPU[way] | {"run.device": "cuda", "run.deterministic": True}
    assert resumes_to_the_same_bits(tmp_path, changes)


def test_determinism_sets_the_workspace_without_which_pytorch_refuses_products_on_a_gpu(monkeypatch):
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    precision.repeat_exactly(False)
    assert name not in os.environ
    precision.repeat_exactly(True)
    assert os.environ[name] == ":4096:8" and torch.are_deterministic_algorithms_enabled()


def test_the_readme_promises_what_is_tested_here():
    promise = "a killed run resumes to the same bits"
    assert promise in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"test_{promise.replace(' ', '_')}" in globals()


def test_a_run_that_need_not_repeat_exactly_never_loads_the_compiler():
    code = "import sys\nfrom fastresnet.machine import precision\nprecision.repeat_exactly(False)\n"
    code += "raise SystemExit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=200).returncode == 0
