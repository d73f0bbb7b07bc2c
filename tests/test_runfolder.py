"""The folder of a run."""

import errno
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fastresnet.reports.finished import Predictions
from fastresnet.runs import checkpoint, record
from fastresnet.runs.folder import COLUMNS, RunFolder, State, state
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
    first, second = RunFolder.of(cfg, None, print), RunFolder.of(cfg, None, print)
    assert first.path.parent.as_posix() == "runs/smoke" and "-s7" in first.path.name
    assert first.path != second.path


def test_a_new_run_clears_what_killed_runs_of_its_recipe_left_half_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left = tmp_path / "runs/smoke/20260101-000000-s0/checkpoints/.last.pt.01234567.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    RunFolder.of(config.load("smoke.yaml"), None, print).close()
    assert not left.exists() and left.parent.exists()


@pytest.mark.parametrize("name", ["result.json", "checkpoints/last.pt"])
def test_another_run_in_the_folder_is_refused(tmp_path, name):
    RunFolder(tmp_path).close()
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder(tmp_path)
    RunFolder(tmp_path, allowed=State).close()


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path):
    folder = RunFolder(tmp_path)
    config.load("smoke.yaml").dump(tmp_path / "config.yaml")
    folder.write_rows([ROW])
    folder.close()
    assert state(tmp_path) is State.NEW
    RunFolder(tmp_path).close()


def test_two_runs_are_never_at_work_in_one_folder(tmp_path):
    first = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="another run is at work in it"):
        RunFolder(tmp_path)
    first.close()
    RunFolder(tmp_path).close()


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path):
    code = "import time\nfrom fastresnet.runs.folder import RunFolder, Path\n"
    code += f"kept = RunFolder(Path({str(tmp_path)!r}))\nprint('locked', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match="another run"):
        RunFolder(tmp_path)
    child.kill()
    child.communicate()
    RunFolder(tmp_path).close()


def test_what_a_killed_run_left_half_written_is_cleaned_up(tmp_path):
    mark = "01234567.tmp"
    for name in (f".metrics.jsonl.{mark}", f"checkpoints/.last.pt.{mark}", f"plots/.curves.png.{mark}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    RunFolder(tmp_path).close()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_under_metrics_is_said_and_survived(tmp_path, monkeypatch):
    said = []
    folder = RunFolder(tmp_path, complain=said.append)

    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    folder.write_rows([ROW])
    assert said == ["metrics not written (No space left on device); the run goes on without it"]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_mode_that_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        RunFolder(tmp_path).write_rows([ROW])
        checkpoint.save(tmp_path / "a.pt", {})
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("metrics.jsonl", "a.pt")} == {mode}


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
    folder._write_predictions(Predictions(np.eye(2), np.array([0, 1]), ("cat", "dog")))
    with np.load(folder.path / "predictions.npz") as kept:
        assert kept["labels"].tolist() == [0, 1] and kept["logits"].dtype == np.float32
        assert kept["class_names"].tolist() == ["cat", "dog"]


ANSWERS = Predictions(np.eye(2), np.array([0, 1]), ("cat", "dog"))


def test_pictures_leave_the_last_of_the_disk_to_the_record(tmp_path, monkeypatch):
    said, written = [], []
    folder = RunFolder(tmp_path / "a", complain=said.append)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.setattr(record, "write", lambda path, result: written.append(path.name))
    folder.write_result({"per_epoch": []}, ANSWERS, report=True)
    assert written == ["result.json"]
    why = "not written (1.0 MiB left on the disk); the run goes on without it"
    assert said == [f"{name} {why}" for name in ("predictions.npz", "plots", "report.html")]


def test_a_record_that_finds_no_room_is_a_failure_of_the_run(tmp_path, monkeypatch):
    def full(path, result):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = RunFolder(tmp_path / "a")
    monkeypatch.setattr(record, "write", full)
    with pytest.raises(RuntimeError, match="result.json not written .No space left on device.: the same"):
        folder.write_result({"per_epoch": []}, ANSWERS, report=False)


def test_a_run_that_another_process_ended_meanwhile_is_not_taken_for_stopped(tmp_path):
    """Between the look at the folder and its lock the data is read, which takes a while."""
    RunFolder(tmp_path).close()
    (tmp_path / "checkpoints/last.pt").touch()
    cfg = config.load("smoke.yaml", {"run.dir": str(tmp_path)})
    RunFolder.of(cfg, tmp_path, print).close()
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder.of(cfg, tmp_path, print)
    RunFolder.of(cfg.replace({"run.resume": "auto"}), tmp_path, print).close()
    assert (tmp_path / "result.json").exists()


def test_two_runs_of_one_instant_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "runs" / "x"
    monkeypatch.setattr("fastresnet.runs.folder.free", lambda recipe, ending: taken)
    cfg = config.load("smoke.yaml")
    first, second = RunFolder.of(cfg, None, print), RunFolder.of(cfg, None, print)
    assert first.path != second.path
