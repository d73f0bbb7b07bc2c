"""The folder of a run."""

import json
import os

import numpy as np
import pytest

from fastresnet.runs.folder import COLUMNS, RunFolder
from fastresnet.settings import config

ROW = {"epoch": 1, "step": 4, "lr": 0.1, "train_loss": 2.0, "val_accuracy": None, "seconds": 1.5}


def test_rows_are_written_whole_each_time_so_none_comes_twice(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.write_rows([ROW])
    folder.write_rows([ROW, {**ROW, "epoch": 2}])
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    header, first, _ = (folder.path / "metrics.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS) and first.startswith("1,4,0.1,2.0,")


def test_no_temporary_file_is_left(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.write_rows([ROW])
    assert {p.name for p in folder.path.iterdir()} == {"checkpoints", "metrics.jsonl", "metrics.csv"}


def test_by_default_a_folder_is_named_by_recipe_time_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config.load("smoke.yaml", {"run.seed": 7})
    first, second = RunFolder.fresh(cfg), RunFolder.fresh(cfg)
    assert first.path.parent.as_posix() == "runs/smoke" and "-s7" in first.path.name
    assert first.path != second.path


def test_another_run_in_the_folder_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "a")
    config.load("smoke.yaml").dump(folder.path / "config.yaml")
    RunFolder(tmp_path / "a")  # settings alone are left by a run that never began
    folder.write_rows([ROW])
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder(tmp_path / "a")
    assert RunFolder(tmp_path / "a", continued=True).path == folder.path


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_in_words(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o500)
    with pytest.raises(ValueError, match="can't be written"):
        RunFolder(tmp_path / "a")


def test_a_file_in_the_way_is_refused_in_words(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="can't be written"):
        RunFolder(tmp_path / "a")


def test_predictions_are_kept_with_the_names_of_the_classes(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.write_predictions(np.eye(2), np.array([0, 1]), ("cat", "dog"))
    with np.load(folder.path / "predictions.npz") as kept:
        assert kept["labels"].tolist() == [0, 1] and kept["logits"].dtype == np.float32
        assert kept["class_names"].tolist() == ["cat", "dog"]
