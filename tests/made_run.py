"""Runs made by hand for the tests of the tools: a checkpoint with fresh weights, a folder with all its
files."""

import json
import sys

import numpy as np
import torch

from fastresnet import models
from fastresnet.__main__ import run
from fastresnet.runs import checkpoint
from fastresnet.settings import config

CLASSES = ("ant", "bee", "cat", "dog")
SMALL = {"model.depth": 20, "model.width": 0.25, "run.device": "cpu", "data.source": "synthetic"}


def write_checkpoint(path, *, classes=CLASSES, changes=None, **fields):
    """A checkpoint of a small ResNet; `fields` replace what it holds. Returns the path."""
    cfg = config.load(None, {**SMALL, **(changes or {})})
    torch.manual_seed(0)
    model = models.build(cfg.model, len(classes), 32)
    held = {
        "model": model.state_dict(), "averaged": None, "recipe": "small", "config": cfg.to_dict(),
        "data": {"name": "made", "digest": "00", "synthetic": True}, "class_names": list(classes),
        "mean": [0.5, 0.5, 0.4], "std": [0.2, 0.2, 0.3], "image_size": 32, "step": 3, "epoch": 1,
    }  # fmt: skip
    checkpoint.save(path, held | fields)
    return path


def history(epochs=4):
    """per_epoch of a run whose highest test accuracy is in its third epoch; the second wasn't evaluated."""
    accuracy = [0.4, None, 0.7, 0.6, 0.55, 0.5]
    return [
        {"epoch": i + 1, "step": 10 * (i + 1), "lr": 0.1 / (i + 1), "train_loss": 2.0 / (i + 1),
         "train_accuracy": 0.3 + 0.1 * i, "test_accuracy": accuracy[i], "val_loss": None, "seconds": 2.0,
         "test_loss": None if accuracy[i] is None else 1 - accuracy[i], "val_accuracy": None,
         "images_per_second": 500.0 + i}
        for i in range(epochs)
    ]  # fmt: skip


def write_run(path, *, finished=True, synthetic=False, epochs=4):
    """A run's folder with everything but checkpoints; returns its path and the test images."""
    path.mkdir(parents=True)
    cfg = config.load(None, SMALL)
    cfg.dump(path / "config.yaml")
    rows = history(epochs)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    logits = rng.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), labels] += 1.5
    np.savez_compressed(path / "predictions.npz", logits=logits, labels=labels, class_names=np.array(CLASSES))
    if finished:
        data = {"name": "made", "digest": "00", "synthetic": synthetic, "train_size": 100, "test_size": 60}
        accuracy = {"test": 0.6, "test_tta": 0.62, "best": 0.7, "best_epoch": 3, "best_on": "validation"}
        record = {
            "schema_version": 1, "recipe": "small<script>", "config": cfg.to_dict(), "parameters": 68786,
            "precision": "bf16", "seed": 3, "git": {"commit": "abc123", "dirty": True},
            "data": data, "accuracy": accuracy,
            "loss": 0.4, "images_per_second": 501.5, "flops_per_image": 1.1e9, "mfu": 0.417,
            "seconds": {"startup": 1.0, "compile": 0.0, "train": 8.0, "eval": 1.0, "wall": 130.0},
            "peak_memory_bytes": 10**9, "energy_joules": None, "software": {"python": "3.11", "torch": "2.6"},
            "hardware": {
                "gpu": None, "memory_bytes": 0, "gpus": [], "cpu": {"model": "some CPU", "cores_usable": 2}
            },
            "per_epoch": rows,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(record))
    return path, rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)


def call(monkeypatch, name, *arguments):
    """Run a command in this process; returns the exit code that the shell would see."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])  # what argparse calls the program
    return run(name.replace("_", "-"), [str(word) for word in arguments])
