"""Several processes on one machine, started by torchrun as users start them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import betons_by_hand
import pytest
import torch

from fastresnet.machine import distributed
from fastresnet.machine.distributed import World
from fastresnet.sources import synthetic

ROOT = Path(__file__).parent.parent
OTHERS = {"LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
RANKS = """
import pathlib
import torch
from fastresnet.machine import distributed
with distributed.world("cpu") as place:
    rows = torch.full((place.rank + 1, 2), float(place.rank))
    gathered = distributed.gather_rows(rows, place)
    total = distributed.sum_over(torch.tensor([1.0 + place.rank]), place)
    distributed.barrier(place)
    said = f"{place.rank} {place.is_main} {gathered[:, 0].tolist()} {total.item()}"
    pathlib.Path(f"rank{place.rank}").write_text(said)
"""


LEARN = """
import sys
from dataclasses import asdict
import torch
from torch import nn
from fastresnet import optim
from fastresnet.machine import distributed, precision
from fastresnet.settings import config
from fastresnet.training.step import StepOptions
from fastresnet.training.trainer import Trainer
cpu = torch.device("cpu")
learned = {}
with distributed.world("cpu") as place:
    for name in ("sgd", "muon", "adamw"):
        for reduction in ("mean", "sum"):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5))
            images, labels = torch.randn(4, 16, 3, 8, 8), torch.randint(0, 5, (4, 16))
            mine = slice(place.rank * 16 // place.size, (place.rank + 1) * 16 // place.size)
            batches = [(x[mine], y[mine]) for x, y in zip(images, labels)]
            cfg = config.load(None, {"optim.name": name, "optim.lr": 0.01, "optim.momentum": 0.8})
            optimizer = optim.build(net, cfg.optim, device=cpu)
            options = StepOptions(
                loss_reduction=reduction, accumulate=2, label_smoothing=0.1, processes=place.size,
                clip_norm=3.0 * (reduction == "mean"),  # clipped sums look alike however they are scaled
            )
            trainer = Trainer(
                distributed.wrap(net, place, cpu), optimizer, [1.0] * 4, device=cpu,
                precision=precision.resolve("fp32", cpu), options=options, place=place,
            )
            result = asdict(trainer.fit_epoch(batches, 0))
            facts = {key: result[key] for key in ("loss", "accuracy", "images", "step")}
            learned[f"{name} {reduction}"] = (net.state_dict(), facts)
    if place.is_main:
        torch.save(learned, sys.argv[1])
"""


def torchrun(*command, cwd, processes=2):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    return subprocess.run(
        [*launcher, *map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, timeout=240
    )


def test_one_process_is_a_world_of_its_own():
    with distributed.world("cpu") as place:
        assert place == World() and place.is_main
    rows = torch.ones(2, 3)
    assert distributed.gather_rows(rows, place) is rows
    model = torch.nn.Linear(2, 2)
    assert distributed.wrap(model, place, torch.device("cpu")) is model


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 stands in the environment without RANK, LOCAL_RANK, MASTER_ADDR"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two stands in the environment without LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2", **OTHERS}, "RANK the lesser: "),
        ({"WORLD_SIZE": "2", "RANK": "x", **OTHERS}, "must be whole numbers"),
    ],
)
def test_half_of_torchrun_s_environment_is_refused_by_its_names(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), distributed.world("cpu"):
        pass


def test_several_processes_find_only_one_apple_gpu(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", **OTHERS}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="run.device=mps is one GPU"), distributed.world("mps"):
        pass


def test_a_batch_divides_evenly_or_is_refused():
    assert distributed.local_batch_size(512, World(size=4)) == 128
    with pytest.raises(ValueError, match="train.batch_size=10 doesn't divide over 3 processes"):
        distributed.local_batch_size(10, World(size=3))


def test_rows_of_different_counts_come_together_in_rank_order(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    done = torchrun("ranks.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert said == ["0 True [0.0, 1.0, 1.0] 3.0", "1 False [0.0, 1.0, 1.0] 3.0"]


def test_two_processes_train_one_model_and_write_one_record(tmp_path):
    for split, count in (("train", 303), ("test", 61)):
        images, labels = synthetic.draw(split, count, 16)
        betons_by_hand.make(tmp_path / f"{split}.beton", list(images), labels.tolist())
    settings = [
        "--config=smoke.yaml", "--data.train=train.beton", "--data.test=test.beton", "--train.batch_size=50",
        "--train.epochs=2", "--run.dir=run", "--run.report=false", "--run.threads=1",
    ]  # fmt: skip
    done = torchrun(ROOT / "scripts" / "train.py", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1, done.stdout
    result = json.loads(lines[0])
    assert result["world_size"] == 2 and result["steps"] == 12
    assert result["data"]["test_size"] == 61
    predictions = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in predictions["model"])
    assert result["per_epoch"][-1]["train_loss"] < result["per_epoch"][0]["train_loss"]


def test_two_processes_learn_what_one_learns_whatever_the_optimizer_and_the_reduction(tmp_path):
    (tmp_path / "learn.py").write_text(LEARN)
    done = torchrun("learn.py", "two.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "learn.py", "one.pt"], cwd=tmp_path, env=environment, check=True)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert len(one) == 6
    for name, (weights, facts) in one.items():
        theirs, told = two[name]
        assert told == pytest.approx(facts, rel=1e-5), name
        for key, value in weights.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")


@pytest.mark.slow
def test_ctrl_c_with_two_processes_saves_at_once_and_says_so_in_one_line(tmp_path):
    settings = [
        "--config=smoke.yaml", "--data.synthetic_train=5000", "--train.batch_size=50", "--train.epochs=500",
        "--run.dir=run", "--run.report=false", "--run.threads=1", "--train.checkpoint_every=1 steps",
    ]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launch, str(ROOT / "scripts" / "train.py"), *settings]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the launcher and to both processes
    said = child.communicate(timeout=100)[1]
    lines = [line for line in said.splitlines() if "interrupted at step" in line]
    assert len(lines) == 1 and "--run.resume=run" in lines[0], said
    assert "fastresnet/runs/" not in said, said  # no traceback of ours
    assert torch.load(last, weights_only=True)["step"] == int(lines[0].split("step ")[1].split(";")[0])
