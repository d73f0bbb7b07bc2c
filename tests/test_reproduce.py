"""The measuring protocol: every run counts, an interrupted record goes on, a changed one is refused."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from drawn import splits

from fastresnet.bench.protocol import protocol, record_page, reproduce, runlog
from fastresnet.runs import record
from fastresnet.training import experiment

ROOT = Path(__file__).resolve().parents[1]

SMALL = [
    "--train.batch_size=20", "--train.epochs=2", "--model.stage_widths=8,8,8", "--eval.batch_size=30",
    "--run.device=cpu", "--train.precision=fp32",
]  # fmt: skip
HEADER = {name: name for name in runlog.FIXED}


@pytest.fixture
def clean(monkeypatch):
    state = {"commit": "c" * 40, "dirty": False}
    monkeypatch.setattr(reproduce.hardware, "git_state", lambda path: dict(state))
    monkeypatch.setattr(protocol.hardware, "matmul_ceiling", lambda *args, **kwargs: 1e12)
    monkeypatch.setattr(experiment.data, "prepare", lambda cfg, notes: splits(60, 30))
    return state


def run(tmp_path, *more, runs=2):
    return reproduce.main(["--config=speed90-cpu.yaml", f"--runs={runs}", f"--out={tmp_path / 'out'}",
                           *SMALL, *more])  # fmt: skip


def row(accuracy, seconds=1.0, status="ok", seed=0):
    return {"seed": seed, "status": status, "accuracy": accuracy, "accuracy_tta": None,
            "seconds": {"total": seconds}}  # fmt: skip


# ---- whole ---------------------------------------------------------------------------------------


def test_a_record_holds_every_run_with_its_seed_and_validates(clean, tmp_path, capsys):
    code = run(tmp_path, "--target=0.01")
    made = record.read(tmp_path / "out" / "record.json", "record")
    assert [one["seed"] for one in made["runs"]] == [0, 1] and made["summary"]["n"] == 2
    assert {"init", "augment", "train", "eval", "total"} <= set(made["runs"][0]["seconds"])
    assert made["flops"]["train"] > 0 and made["data"]["synthetic"] and made["git"]["dirty"] is False
    assert code == (0 if made["summary"]["target_met"] else 1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == made
    assert "Synthetic data" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "out" / "record.json").read_text(encoding="utf-8")


def test_an_interrupted_record_goes_on_without_losing_runs(clean, tmp_path, monkeypatch):
    whole = protocol.run_once

    def stopped(prepared, seed, **how):
        if seed == 1:
            raise KeyboardInterrupt
        return whole(prepared, seed, **how)

    monkeypatch.setattr(protocol, "run_once", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(protocol, "run_once", whole)
    first = json.loads((tmp_path / "out" / "runs.jsonl").read_text().splitlines()[1])
    run(tmp_path)
    made = record.read(tmp_path / "out" / "record.json")
    assert [one["seed"] for one in made["runs"]] == [0, 1]
    assert made["runs"][0]["seconds"] == first["seconds"], "a finished run isn't run again"


def test_a_half_finished_record_refuses_another_recipe_or_commit(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "_run_in_turn", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"other values of the settings \(optim.lr"):
        run(tmp_path, "--optim.lr=0.2")
    with pytest.raises(ValueError, match="the number of runs"):
        run(tmp_path, runs=3)
    clean["commit"] = "d" * 40
    with pytest.raises(ValueError, match="the commit"):
        run(tmp_path)


def test_a_dirty_tree_makes_no_record(clean, tmp_path):
    clean["dirty"] = True
    with pytest.raises(ValueError, match="Commit first"):
        run(tmp_path)
    run(tmp_path, "--allow-dirty", runs=1)
    assert not (tmp_path / "out" / "record.json").exists()
    assert json.loads((tmp_path / "out" / "measured-dirty.json").read_text())["git"]["dirty"] is True


def test_a_tree_without_git_takes_the_stated_commit_and_a_work_tree_its_own():
    expected = {"commit": "abc123", "dirty": False}
    assert reproduce._stated({"commit": None, "dirty": None}, "abc123") == expected
    own = {"commit": "abc123", "dirty": True}
    assert reproduce._stated(own, None) is own and reproduce._stated(own, "abc") == own
    with pytest.raises(ValueError, match="--commit def: this work tree is at abc123"):
        reproduce._stated(own, "def")


def test_a_rival_is_run_in_turn_and_stands_beside(clean, tmp_path):
    told = f'{sys.executable} -c "print(\'x\'); print(\'{{\\"seconds\\": 2.5, \\"accuracy\\": 0.9}}\')"'
    run(tmp_path, f"--versus={told}", "--versus-name=other", "--versus-published=90 %, a machine")
    rows = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()[1:]]
    assert [(one["who"], one["seed"]) for one in rows] == [("own", 0), ("rival", 0), ("own", 1), ("rival", 1)]
    rival = record.read(tmp_path / "out" / "record.json")["rivals"][0]
    assert rival["name"] == "other" and rival["summary"]["seconds_mean"] == 2.5
    assert rival["published"]["source"] == "90 %, a machine"


@pytest.mark.parametrize("wrong, words", [
    (["--runs=0"], "--runs must be at least 1"), (["--target=94"], "a share, not percent"),
    (["--parallel=2", "--versus=true"], "measures no times"),
])  # fmt: skip
def test_impossible_options_are_refused(clean, tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, *wrong)


# ---- parts ---------------------------------------------------------------------------------------


def test_a_diverged_run_counts_as_a_failure_and_is_never_dropped():
    summary = record_page.summarise([row(0.95), row(0.95, seed=1), row(None, status="failed", seed=2)], 0.94)
    assert summary["n"] == 2 and summary["failed"] == 1 and summary["target_met"] is False


def test_a_run_that_diverges_ends_as_a_failed_row():
    class Broken:
        cfg = SimpleNamespace(eval=SimpleNamespace(tta="none"))
        device, num_epochs = torch.device("cpu"), 1
        train_loader = SimpleNamespace(epoch=lambda k: iter(()))
        reset = initialise = staticmethod(lambda *args: None)

        class trainer:
            @staticmethod
            def fit_epoch(batches, epoch):
                raise protocol.trainer.Diverged("the loss became nan")

    prepared = protocol.Prepared(Broken(), {}, {"train": 1.0, "forward": 1.0}, 1.0)
    found = protocol.run_once(prepared, 3)
    assert found["status"] == "failed" and found["seed"] == 3 and "nan" in found["message"]
    assert found["accuracy"] is None and math.isfinite(found["seconds"]["total"])


def test_the_target_needs_a_mean_above_it_beyond_chance():
    sure = record_page.summarise([row(0.941 + 1e-4 * i, seed=i) for i in range(5)], 0.94)
    chance = record_page.summarise([row(x, seed=i) for i, x in enumerate((0.939, 0.942, 0.94))], 0.94)
    assert sure["target_met"] and sure["p_value"] < 0.01
    assert not chance["target_met"] and chance["mean"] > 0.94
    assert record_page.summarise([row(0.95)], 0.94)["ci95"] is None, "one run knows nothing of its spread"


def test_a_log_cut_off_in_a_line_loses_that_line_alone(tmp_path):
    log = runlog.RunLog(tmp_path, HEADER)
    log.add("own", row(0.5))
    with open(log.path, "a") as file:
        file.write('{"who": "own", "se')
    again = runlog.RunLog(tmp_path, HEADER)
    assert len(again.of("own")) == 1 and again.done("own", 0) and not again.done("own", 1)
    again.add("own", row(0.6, seed=1))
    assert len(runlog.RunLog(tmp_path, HEADER).of("own")) == 2


def test_a_finished_record_is_not_written_over(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="finished record"):
        runlog.RunLog(tmp_path, HEADER)


def test_the_newest_unfinished_folder_is_continued(tmp_path):
    made = {"2026-01-01-r-d": ["runs.jsonl"], "2026-01-02-r-d": ["runs.jsonl", "record.json"]}
    for name, files in made.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert runlog.unfinished(tmp_path, "r-d").name == "2026-01-01-r-d"
    assert runlog.unfinished(tmp_path, "other") is None


def test_a_rival_without_json_is_timed_whole_and_one_that_fails_is_kept():
    whole = protocol.run_rival(f"{sys.executable} -c 'print(1 + 1)'", 0)
    assert whole["status"] == "ok" and whole["accuracy_tta"] is None and whole["seconds"]["total"] > 0
    failed = protocol.run_rival(f"{sys.executable} -c 'raise SystemExit(\"no luck\")'", 1)
    assert failed["status"] == "failed" and "no luck" in failed["message"]
    with pytest.raises(ValueError, match="can't be started"):
        protocol.run_rival("no-such-program-anywhere", 0)


def test_out_of_memory_names_the_batch_that_would_fit(monkeypatch):
    class Hungry:
        data_seconds, splits, device = 0.0, None, torch.device("cpu")

        def __init__(self, cfg, splits=None):
            self.size = cfg.train.batch_size

        def warm_up(self):
            if self.size > 150:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        def close(self):
            pass

    monkeypatch.setattr(protocol, "Experiment", Hungry)
    from fastresnet.settings import config

    with pytest.raises(ValueError, match="--train.batch_size=125 fits"):
        protocol.prepare(config.load("speed90-cpu.yaml"))


def test_what_a_recipe_says_of_its_source_stands_in_the_record():
    assert "2.59 s" in reproduce.published("airbench94")["source"]
    assert reproduce.published("no-such-recipe") is None
    assert reproduce.slug("1x NVIDIA H200") == "1x-nvidia-h200"
