"""Several runs as one: seeds and swept settings, cut off and gone on with, summed up with none left out."""

import json
import os
import random
import re
import signal
import statistics
import threading
from pathlib import Path

import pytest
import torch
from drawn import splits
from made_run import call
from test_run import same, weights

import fastresnet as fr
from fastresnet import data as datasets
from fastresnet.base import files
from fastresnet.reports import telling
from fastresnet.runs import checkpoint, ledger, record, start
from fastresnet.runs.callbacks import Callback, EarlyStopping
from fastresnet.series import place, plan, running, summary
from fastresnet.settings import config

SMALL = {
    "model.stage_widths": [8, 8, 8], "train.epochs": 1.0, "train.batch_size": 40, "train.precision": "fp32",
    "data.source": "synthetic", "data.kernel": "rows", "run.report": False, "run.progress": "off",
    "run.threads": 1,
}  # fmt: skip


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of a small run on drawn images, in a folder of this test's own."""
    drawn = splits(120, 60, 16)
    monkeypatch.setattr(datasets, "prepare", lambda cfg, notes: drawn)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ledger, "rate_ceiling", lambda *where, **kind: 1e12)
    return dict(SMALL)


def accuracies(made):
    return [row["accuracy"] for row in made["runs"]]


class At(Callback):
    """Calls `then(trainer)` after the first step of the run in the folder of that name."""

    def __init__(self, name, then):
        self.name, self.then, self.here = name, then, False

    def on_run_begin(self, folder):
        self.here = folder.name == self.name

    def on_step_end(self, trainer):
        if self.here and trainer.steps_done == 1:
            self.then(trainer)


def press_ctrl_c(trainer):
    os.kill(os.getpid(), signal.SIGINT)


def poison(trainer):
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))


# ---- the runs ----------------------------------------------------------------------------------------------


def test_seeds_have_a_folder_each_and_a_summary_of_them_all(settings):
    done = fr.train_series("smoke.yaml", {**settings, "run.report": True}, seeds=3)
    assert re.fullmatch(r"runs/smoke/\d{8}-\d{6}-seeds", str(done.dir))
    stored = record.read(done.dir / place.NAME, "series")
    assert stored == json.loads(record.dumps(done.record))
    each = [record.read(done.dir / name / "result.json", "result") for name in ("s0", "s1", "s2")]
    told = [one["accuracy"]["test"] for one in each]
    assert [one["seed"] for one in each] == [0, 1, 2] and accuracies(done.record) == told
    found = done.record["summary"]
    assert found["n"] == 3 and found["failed"] == 0
    assert found["mean"] == pytest.approx(statistics.fmean(told))
    assert found["std"] == pytest.approx(statistics.stdev(told))
    assert found["ci95"] == pytest.approx(4.30265 * statistics.stdev(told) / 3**0.5, rel=1e-5)
    assert found["seconds_mean"] == pytest.approx(statistics.fmean(one["seconds"]["train"] for one in each))
    text = (done.dir / "report.html").read_text()
    assert "smoke: 3 runs compared" in text and "mean ± sd, n=3" in text and ">s2<" in text


def test_a_run_of_a_series_is_the_run_that_would_have_been_trained_alone(settings):
    done = fr.train_series("smoke.yaml", settings, seeds=2)
    alone = start.train("smoke.yaml", {**settings, "run.seed": 1, "run.dir": "alone"})
    assert same(weights(done.dir / "s1"), weights(alone.dir))
    assert not same(weights(done.dir / "s0"), weights(alone.dir))


@pytest.mark.parametrize(
    ("sweep", "times"), [(None, 1), ({"optim.lr": [0.1, 0.2]}, 1), ({"data.subset": [80, 100]}, 4)]
)
def test_the_data_is_read_once_unless_its_settings_are_what_is_swept(settings, monkeypatch, sweep, times):
    prepare, read = datasets.prepare, []
    monkeypatch.setattr(
        datasets, "prepare", lambda cfg, notes: (read.append(cfg.data.subset), prepare(cfg, notes))[1]
    )
    monkeypatch.setattr(start.Session, "run", lambda session: (_ for _ in ()).throw(running.Diverged("no")))
    fr.train_series("smoke.yaml", {**settings, "run.dir": "x"}, seeds=2, sweep=sweep)
    assert len(read) == times


def test_own_data_network_and_callbacks_go_through_all_runs(settings):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 16, 16, 3), generator=generator, dtype=torch.uint8)
    pair = (pixels, torch.arange(80) % 4), (pixels[:20], torch.arange(20) % 4)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    stop = EarlyStopping("test_accuracy", patience=1, least=1.0)
    changes = {**settings, "train.epochs": 4.0, "run.dir": "x", "optim.name": "sgd", "optim.lr": 1e-4}
    changes |= {"optim.lr_bias": None, "optim.lr_head": None}
    done = fr.train_series("smoke.yaml", changes, seeds=2, data=pair, model=net, callbacks=[stop])
    for name in ("s0", "s1"):
        result = record.read(done.dir / name / "result.json")
        assert result["data"]["name"] == "given"
        assert result["own"] == ["model: torch.nn.modules.container:Sequential"]
        assert len(result["per_epoch"]) == 2, "each run waits for itself alone"
    with pytest.raises(ValueError, match="sweep of model.width: a network that is handed in"):
        fr.train_series("smoke.yaml", settings, sweep={"model.width": [1.0, 2.0]}, model=net, data=pair)


# ---- cut off, and gone on ----------------------------------------------------------------------------------


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
@pytest.mark.parametrize("folder", [None, "mine"], ids=["a folder of its own", "run.dir"])
def test_ctrl_c_and_the_same_command_goes_on_inside_the_run_that_was_cut_off(settings, folder):
    whole = fr.train_series("smoke.yaml", {**settings, "run.dir": "whole"}, seeds=2)
    settings = {**settings, "run.dir": folder}
    with pytest.raises(start.Interrupted, match="^interrupted, 1 of 2 runs done; the same command goes on$"):
        fr.train_series("smoke.yaml", settings, seeds=2, callbacks=[At("s1", press_ctrl_c)])
    (cut,) = [file.parent for file in Path().rglob(place.NAME) if file.parent.name != "whole"]
    assert accuracies(place.read(cut)) == accuracies(whole.record)[:1]
    first, part = (cut / "s0" / "result.json").read_bytes(), checkpoint.load(cut / "s1")["step"]
    done = fr.train_series("smoke.yaml", settings, seeds=2)
    assert done.dir == cut and part == 2 and (cut / "s0" / "result.json").read_bytes() == first
    assert accuracies(done.record) == accuracies(whole.record)
    assert same(weights(cut / "s1"), weights(whole.dir / "s1"))


def test_a_finished_series_in_its_folder_is_told_again_and_more_seeds_are_added(settings):
    settings = {**settings, "run.dir": "mine"}
    two = fr.train_series("smoke.yaml", settings, seeds=2)
    kept = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    assert fr.train_series("smoke.yaml", settings, seeds=2).record == json.loads(record.dumps(two.record))
    assert kept == {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    three = fr.train_series("smoke.yaml", settings, seeds=3)
    assert three.record["runs"][:2] == two.record["runs"] and three.record["summary"]["n"] == 3
    for other, words in (
        ({"seeds": 1}, "its run s1 is none of these"),
        ({"sweep": {"optim.lr": [0.1, 0.2]}}, "sweep=None there, optim.lr here"),
    ):
        with pytest.raises(ValueError, match=f"run.dir=mine holds another series .{words}"):
            fr.train_series("smoke.yaml", settings, **other)
    with pytest.raises(ValueError, match="train.epochs=1.0 there, 2.0 here"):
        fr.train_series("smoke.yaml", {**settings, "train.epochs": 2.0}, seeds=3)


def test_a_finished_series_is_never_gone_on_with_unless_its_folder_is_named(settings, monkeypatch):
    made = []

    def named(recipe, ending):
        return Path("runs", recipe, f"x{len(made)}-{ending}")

    monkeypatch.setattr(place.folders, "free", named)
    for _ in range(2):
        made.append(fr.train_series("smoke.yaml", {**settings, "train.max_steps": 1}, seeds=1).dir)
    assert made[0] != made[1]


def test_a_killed_series_takes_the_run_that_had_ended(settings):
    settings = {**settings, "run.dir": "mine"}
    done = fr.train_series("smoke.yaml", settings, seeds=2)
    stored = json.loads((done.dir / place.NAME).read_text())
    (done.dir / place.NAME).write_text(json.dumps({**stored, "runs": stored["runs"][:1]}))
    before = (done.dir / "s1" / "result.json").read_bytes()
    again = fr.train_series("smoke.yaml", settings, seeds=2)
    assert again.record["runs"] == stored["runs"] and (done.dir / "s1" / "result.json").read_bytes() == before


def test_two_processes_never_share_a_series(settings):
    with pytest.raises(start.Interrupted):
        fr.train_series("smoke.yaml", settings, seeds=2, callbacks=[At("s1", press_ctrl_c)])
    (cut,) = [file.parent for file in Path("runs").rglob(place.NAME)]
    asked = plan.plan(config.load("smoke.yaml", settings), 2)
    with files.locked(cut):
        assert place.find(asked).folder != cut, "another process goes on there"
        with pytest.raises(ValueError, match="another series is at work in it"):
            place.find(plan.plan(config.load("smoke.yaml", {**settings, "run.dir": str(cut)}), 2))
    (cut / place.NAME).write_text("{")
    assert place.find(asked).folder != cut, "a damaged one is left alone"


def test_a_folder_that_holds_a_run_is_no_place_for_a_series(settings):
    start.train("smoke.yaml", {**settings, "run.dir": "mine/s0"})
    for folder in ("mine", "mine/s0"):
        with pytest.raises(ValueError, match="mine/s0 holds a run of no series"):
            fr.train_series("smoke.yaml", {**settings, "run.dir": folder}, seeds=2)


def test_what_can_not_run_leaves_nothing(settings):
    with pytest.raises(ValueError, match="train.batch_size=500"):
        fr.train_series("smoke.yaml", {**settings, "train.batch_size": 500}, seeds=2)
    assert not os.listdir()


# ---- runs that fail ----------------------------------------------------------------------------------------


def test_a_seed_that_diverges_is_counted_and_the_others_go_on(settings):
    settings = {**settings, "run.dir": "mine", "run.report": True}
    done = fr.train_series("smoke.yaml", settings, seeds=3, callbacks=[At("s1", poison)])
    assert [row["status"] for row in done.record["runs"]] == ["ok", "failed", "ok"]
    assert "the loss became nan" in done.record["runs"][1]["message"]
    found = done.record["summary"]
    assert (found["n"], found["failed"]) == (2, 1)
    assert "failed: s1" in summary.ending(done.record, done.dir)
    assert "s1 (unfinished)" in (done.dir / "report.html").read_text()
    again = fr.train_series("smoke.yaml", settings, seeds=3)
    assert again.record["runs"][1]["status"] == "failed", "a failed run is no run to try again"


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--seeds=2", "--optim.lr=1e18"], 1), (["--seeds=1", "--sweep=optim.lr=0.0001,1e18"], 0)],
)
def test_the_command_ends_with_the_series_as_json_and_fails_where_every_value_has_a_failed_run(
    settings, monkeypatch, capsys, words, code
):
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    shown |= {"run.progress": "auto", "optim.name": "sgd", "train.epochs": "3"}
    told = [f"--{key}={value}" for key, value in shown.items()]
    assert call(monkeypatch, "train", "--config=smoke", *told, *words) == code
    out, err = capsys.readouterr()
    made = json.loads(out.splitlines()[-1])
    record.validate(made, "series")
    assert out.splitlines()[-2].startswith("smoke  ") and "n=" in out.splitlines()[-2]
    assert "run 2 of 2: " in err and "failed: the loss became" in err
    if code == 0:
        assert "optim.lr=0.0001  n=1" in out and made["summary"]["value"] == 0.0001
        assert (made["groups"][1]["failed"], made["groups"][1]["mean"]) == (1, None)


def test_a_value_that_memory_is_too_small_for_is_a_failed_run_and_a_seed_is_none(settings, monkeypatch):
    train = start.train

    def in_little_memory(cfg, **parts):
        if cfg.train.batch_size > 40:
            raise running.OutOfMemory("train.batch_size=60: try 40")
        return train(cfg, **parts)

    monkeypatch.setattr(start, "train", in_little_memory)
    del settings["train.batch_size"]
    done = fr.train_series("smoke.yaml", settings, sweep={"train.batch_size": [60, 40]})
    assert [(row["value"], row["status"]) for row in done.record["runs"]] == [(60, "failed"), (40, "ok")]
    assert done.record["summary"]["value"] == 40
    with pytest.raises(running.OutOfMemory, match="try 40"):
        fr.train_series("smoke.yaml", {**settings, "train.batch_size": 60}, seeds=3)


def test_torchrun_is_refused_in_one_line(settings, monkeypatch, capsys):
    world = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    assert call(monkeypatch, "train", "--config=smoke", "--seeds=2") == 2
    assert "error: the processes that torchrun starts (WORLD_SIZE tells" in capsys.readouterr().err


@pytest.mark.parametrize(("how", "message"), [
    ({}, "a number of seeds, or a setting to sweep"),
    ({"seeds": True}, "seeds must be a whole number between 1 and 1,000, got true"),
    ({"seeds": "5"}, "seeds must be a whole number .*, got '5'"),
    ({"sweep": ["optim.lr"]}, "sweep must be one setting with its values"),
    ({"sweep": {"optim.lr": [1.0, 2.0], "train.epochs": [1, 2]}}, "sweep must be one setting"),
    ({"sweep": {"optim.lr": 0.1}}, "two values or more are wanted, got 0.1"),
    ({"sweep": {"optim.lr": [0.1, 0.1]}}, "two values are called lr=0.1-s0"),
    ({"sweep": {"train.accumulate": [1, 200]}}, "train.accumulate=200 cuts train.batch_size"),
])  # fmt: skip
def test_a_wrong_call_is_one_line(settings, how, message):
    with pytest.raises(ValueError, match=message):
        fr.train_series("smoke.yaml", settings, **how)
    assert not os.listdir()


# ---- what they say together --------------------------------------------------------------------------------

FACTS = {"name": "made", "digest": "0", "synthetic": False, "train_size": 10, "test_size": 10_000}


def made(values, key="optim.lr", changes=None):
    """A series whose runs got these accuracies: {value: [of seed 0, of seed 1]}, None for a failed one."""
    seeds = max(map(len, values.values()))
    cfg = config.load("smoke.yaml", changes or {})
    asked = plan.plan(cfg, seeds, {key: list(values)} if key else None)
    rows = []
    for member in asked.members():
        accuracy = values[member.value][member.seed]
        row = summary.row_of(member, None, "the loss became nan")
        if accuracy is not None:
            row |= {"status": "ok", "accuracy": accuracy, "seconds": {"train": 2.0 + member.seed}}
        rows.append(row)
    series = summary.assemble(asked, rows, FACTS)
    record.validate(series, "series")
    return series


def test_the_best_value_is_the_one_with_the_highest_mean_and_no_failed_run():
    series = made({0.1: [0.80, 0.82], 0.2: [0.84, 0.86], 0.4: [0.99, None]})
    assert series["summary"]["value"] == 0.2 and series["summary"]["mean"] == pytest.approx(0.85)
    lines = summary.table(series)
    assert [line.split()[0] for line in lines] == ["optim.lr", "0.2", "0.1", "0.4"]
    assert "85.00 ±1.41 %" in lines[1] and "2.50 ±0.71 s" in lines[1] and "1 and 1 failed" in lines[3]


def test_values_are_compared_seed_by_seed_and_by_chance_at_most_as_often_as_said():
    clear = made({0.1: [0.80, 0.90, 0.70], 0.2: [0.81, 0.911, 0.709]})
    assert clear["over"][0]["gain"] == pytest.approx(0.01) and clear["over"][0]["p_value"] < 0.01
    assert "beyond chance over 0.1 (+1.00 points, p=" in summary.verdict(clear)
    rng, alarms = random.Random(0), 0
    for _ in range(300):
        of_seed = [rng.gauss(0.8, 0.01) for _ in range(3)]
        runs = [[{"seed": s, "status": "ok", "value": v, "accuracy_tta": None,
                  "accuracy": round(of_seed[s] + rng.gauss(0, 0.0014), 4)} for s in range(3)]
                for v in range(4)]  # fmt: skip
        best = max(range(4), key=lambda v: sum(row["accuracy"] for row in runs[v]))
        alarms += any(one["p_value"] < summary.BY_CHANCE for one in summary._over(runs, best, 1e-4))
    assert alarms <= 0.05 * 300 + 3 * (300 * 0.05 * 0.95) ** 0.5


def test_one_seed_says_nothing_about_chance():
    series = made({0.1: [0.80], 0.2: [0.90]})
    assert series["over"] == [{"value": 0.1, "gain": pytest.approx(0.1), "p_value": None}]
    assert "One seed tells nothing about chance: add --seeds=3" in summary.verdict(series)


def test_a_series_ends_at_a_terminal_in_lines_of_80_columns(tmp_path):
    (tmp_path / "report.html").write_text("")
    series = made({value / 10: [0.80 + value / 100, 0.82] for value in range(1, 9)})
    told = summary.ending(series, Path("runs/smoke/20261121-180000-sweep"))
    assert max(map(len, told.splitlines())) <= 80
    assert "next      train with --optim.lr=0.8" in told
    assert "not beyond chance over" in " ".join(told.split())
    one = made({None: [0.80, 0.82, 0.84]}, key=None, changes={"eval.target": 0.7})
    told = summary.ending(one, tmp_path)
    assert "accuracy  82.00 ±2.00 % (mean ± sd, n=3; the mean's 95 % interval ±4.97)" in told
    assert "target    70.00 %: met, p=0.00" in told and f"report    {tmp_path}/report.html" in told
    assert telling.line(one).startswith("smoke       n=3  acc 82.00 ±2.00 %  time 3.00 ±1.00 s")


def test_values_of_any_kind_can_be_swept_and_named():
    cfg = config.load("smoke.yaml")
    asked = plan.plan(cfg, None, {"model.stage_widths": [[8, 8, 8], [16, 32, 32]]})
    names = [member.name for member in asked.members()]
    assert names == ["stage_widths=-8-8-8-s0", "stage_widths=-16-32-32-s0"]
    asked = plan.plan(cfg, 2, {"schedule.name": ["linear", "cosine"]})
    assert [member.name for member in asked.members()] == [
        "name=linear-s0", "name=cosine-s0", "name=linear-s1", "name=cosine-s1"
    ]  # fmt: skip
    assert asked.members()[1].cfg.schedule.name == "cosine" and asked.members()[2].cfg.run.seed == 1


def test_the_page_of_a_series_is_built_again_by_report(settings, monkeypatch, capsys):
    changes = {**settings, "run.report": True, "run.dir": "mine"}
    done = fr.train_series("smoke.yaml", changes, sweep={"optim.lr": [0.1, 0.2]})
    text = (done.dir / "report.html").read_text()
    for words in ("Mean and spread", "optim.lr=0.1", "mean ± sd", "2 runs compared"):
        assert words in text, words
    assert summary.verdict(done.record)[:30] in text
    (done.dir / "report.html").unlink()
    assert call(monkeypatch, "report", done.dir) == 0
    assert capsys.readouterr().out.strip() == "mine/report.html"
    assert (done.dir / "report.html").read_text() == text
    start.train("smoke.yaml", {**settings, "run.dir": "alone"})
    assert call(monkeypatch, "report", done.dir, "alone", "--out", "both.html") == 0
    assert "3 runs compared" in Path("both.html").read_text(), "a series beside a run stands for its runs"
