"""Whole runs: folder, record, interruption and exact continuation, on a small drawn set."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import drawn
import numpy as np
import pytest
import torch
from drawn import splits

from fastresnet.commands import train as command
from fastresnet.loading.choice import Loaders
from fastresnet.machine import memory
from fastresnet.models.flops import flops_per_image
from fastresnet.runs import checkpoint, keeping, ledger, record, start
from fastresnet.runs.callbacks import Callback
from fastresnet.runs.ledger import Ledger
from fastresnet.runs.progress import Progress
from fastresnet.settings import config
from fastresnet.training.evaluation import Score
from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import Diverged, EpochResult
from fastresnet.watching.hang import Watchdog

ROOT = Path(__file__).parent.parent
SMALL = {
    "model.width": 0.25, "train.epochs": 3.0, "train.batch_size": 50, "train.precision": "fp32",
    "train.compile": "off", "data.source": "synthetic", "data.synthetic_train": 220,
    "data.synthetic_test": 60, "run.report": False, "run.progress": "off", "run.threads": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def betons(tmp_path_factory):
    """A folder where the betons of the small set are made once for all runs of this module."""
    folder = str(tmp_path_factory.mktemp("betons"))
    drawn.betons({**SMALL, "data.betons": folder})
    return folder


@pytest.fixture(scope="session")
def whole(betons, tmp_path_factory):
    """whole({"section.key": value}) -> the Run with these settings that nothing disturbs, trained once."""
    kept = {}

    def call(changes):
        if str(changes) not in kept:
            folder = tmp_path_factory.mktemp("whole") / "run"
            settings = {**SMALL, "data.betons": betons, "run.dir": str(folder), **changes}
            kept[str(changes)] = start.train("smoke.yaml", settings)
        return kept[str(changes)]

    return call


@pytest.fixture
def train(tmp_path, betons):
    """train(name, {"section.key": value}) -> Run in the folder `name` of this test."""

    def call(name, changes=None, *, progress=None, callbacks=()):
        settings = {**SMALL, "data.betons": betons, "run.dir": str(tmp_path / name), **(changes or {})}
        return start.train("smoke.yaml", settings, progress=progress, callbacks=callbacks)

    return call


def weights(path):
    return checkpoint.load(path)["model"]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def timeless(history):
    """The rows without what a clock says."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


def test_a_run_leaves_everything_that_the_contract_names(train):
    done = train("a", {"run.report": True, "eval.tta": "flip"})
    written = ("config.yaml", "metrics.jsonl", "metrics.csv", "result.json", "predictions.npz", "report.html",
               "checkpoints/last.pt", "checkpoints/best.pt", "plots/curves.png")  # fmt: skip
    for name in written:
        assert (done.dir / name).stat().st_size > 0, name
    result = record.read(done.dir / "result.json")
    assert result == json.loads(record.dumps(done.record))
    assert result["data"]["synthetic"] is True and result["data"]["train_size"] == 220
    assert result["accuracy"]["test_tta"] is not None
    assert result["seconds"]["train"] > 0 and result["images_per_second"] > 0 and result["mfu"] > 0
    rows = [json.loads(line) for line in (done.dir / "metrics.jsonl").read_text().splitlines()]
    assert rows == result["per_epoch"] == done.history and [row["epoch"] for row in rows] == [1, 2, 3]
    table = list(csv.DictReader((done.dir / "metrics.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in table] == [row["train_loss"] for row in rows]
    assert config.load(done.dir / "config.yaml").flat() == config.from_dict(result["config"]).flat()
    predictions = np.load(done.dir / "predictions.npz")
    share = (predictions["logits"].argmax(1) == predictions["labels"]).mean()
    assert share == pytest.approx(result["accuracy"]["test"])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(train, whole):
    first, second, other = whole({}), train("b"), train("c", {"run.seed": 1})
    assert same(weights(first.checkpoint), weights(second.checkpoint))
    assert timeless(first.history) == timeless(second.history)
    assert not same(weights(first.checkpoint), weights(other.checkpoint))


@pytest.mark.parametrize("changes", [
    {},
    {"optim.name": "adamw", "optim.lr": 0.003, "train.ema_decay": 0.9},
    {"optim.name": "muon", "optim.lookahead": 3},
], ids=["sgd", "adamw and ema", "muon and lookahead"])  # fmt: skip
@pytest.mark.parametrize("stop", [4, 6], ids=["after an epoch", "inside an epoch"])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(train, whole, tmp_path, stop, changes):
    train("part", {**changes, "train.max_steps": stop})
    resumed, undisturbed = train("part", {**changes, "run.resume": str(tmp_path / "part")}), whole(changes)
    assert same(weights(undisturbed.checkpoint), weights(resumed.checkpoint))
    assert timeless(undisturbed.history) == timeless(resumed.history)
    assert resumed.dir == tmp_path / "part"


def test_a_resumed_runs_wall_holds_its_sessions_and_its_energy_is_unknown(train, tmp_path, rapl):
    first = train("part", {"train.max_steps": 4})
    assert first.record["energy_joules"] == 0.0
    kept = torch.load(first.checkpoint)
    kept["ledger"]["seconds"]["train"] = 5000.0
    checkpoint.save(first.checkpoint, kept)
    again = train("part", {"run.resume": str(tmp_path / "part")}).record
    assert again["seconds"]["wall"] > again["seconds"]["train"] > 5000.0
    assert again["energy_joules"] is None


def test_the_peak_of_memory_is_that_of_the_run_alone(train, monkeypatch):
    seen = []
    monkeypatch.setattr(memory, "reset_peak", lambda device: seen.append("begun"))
    monkeypatch.setattr(memory, "peak_bytes", lambda device: seen.append("read") or 7)
    monkeypatch.setattr(ledger, "rate_ceiling", lambda *given, **more: seen.append("ceiling") or 1e12)
    assert train("a").record["peak_memory_bytes"] == 7
    assert seen == ["begun", "read", "ceiling"], "its matrices may be larger than a run"


def test_max_steps_stops_early_and_keeps_the_schedule(train, whole):
    part = train("part", {"train.max_steps": 4})
    assert part.record["steps"] == 4
    assert timeless(part.history) == timeless(whole({}).history[:1])


class At(Progress):
    """Calls `then` after the given step."""

    def __init__(self, step, then):
        super().__init__("off")
        self.at, self.then = step, then

    def step(self, epoch, step, loss):
        if step == self.at:
            self.then()


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
@pytest.mark.parametrize("step", [4, 6], ids=["at the end of an epoch", "inside an epoch"])
def test_ctrl_c_leaves_a_checkpoint_that_continues_exactly(train, whole, tmp_path, step):
    with pytest.raises(start.Interrupted, match="--run.resume="):
        train("part", progress=At(step, press_ctrl_c))
    assert not (tmp_path / "part" / "result.json").exists()
    resumed, undisturbed = train("part", {"run.resume": str(tmp_path / "part")}), whole({})
    assert same(weights(undisturbed.checkpoint), weights(resumed.checkpoint))
    assert timeless(undisturbed.history) == timeless(resumed.history)


def test_best_is_chosen_on_the_validation_split_and_says_so(train):
    done = train("a", {"data.val_fraction": 0.2})
    result = done.record
    best = max(done.history, key=lambda row: row["val_accuracy"])
    assert result["accuracy"]["best_on"] == "validation"
    told = result["accuracy"]
    assert (told["best"], told["best_epoch"]) == (best["val_accuracy"], best["epoch"])
    assert checkpoint.load(done.dir / "checkpoints" / "best.pt")["epoch"] == best["epoch"]
    assert result["data"]["train_size"] == 176 and result["data"]["val_size"] == 44


def test_without_validation_the_last_weights_are_the_best_unless_test_is_asked_for(train):
    last = train("a")
    assert last.record["accuracy"]["best_on"] == "last weights" and last.record["accuracy"]["best_epoch"] == 3
    assert same(weights(last.dir / "checkpoints" / "best.pt"), weights(last.checkpoint))
    chosen = train("b", {"eval.best_on": "test"}).record["accuracy"]
    assert chosen["best_on"] == "test" and chosen["best"] == max(row["test_accuracy"] for row in last.history)


def test_evaluation_can_wait_for_the_end(train):
    done = train("a", {"eval.every": 0})
    assert [row["test_accuracy"] is None for row in done.history] == [True, True, False]


def test_a_folder_that_holds_a_run_is_never_overwritten(train):
    train("a", {"train.max_steps": 1})
    with pytest.raises(ValueError, match="already holds a run.*--run.resume"):
        train("a")


@pytest.mark.parametrize(("changes", "message"), [
    ({"train.batch_size": 20}, "train.batch_size=20 differs from 50"),
    ({"run.seed": 7}, "run.seed=7 differs from 0"),
    ({"data.synthetic_train": 200}, "data.synthetic_train=200 differs"),
])  # fmt: skip
def test_a_resumed_run_keeps_its_settings_its_seed_and_its_data(train, tmp_path, changes, message):
    train("a", {"train.max_steps": 2})
    with pytest.raises(ValueError, match=message):
        train("a", {"run.resume": str(tmp_path / "a"), **changes})


def test_weights_alone_cannot_be_continued(train, tmp_path):
    train("a", {"train.max_steps": 2})
    with pytest.raises(ValueError, match="weights alone"):
        train("a", {"run.resume": str(tmp_path / "a" / "checkpoints" / "best.pt")})


def test_a_batch_larger_than_the_data_is_refused(train):
    with pytest.raises(ValueError, match="train.batch_size=500.*train.drop_last"):
        train("a", {"train.batch_size": 500})


def test_a_folder_that_cannot_be_written_is_refused(train, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="run.dir=.*can't be written"):
        train("file/inside")


def test_a_run_that_diverges_is_a_failure_of_the_run_and_says_what_repeats_it(train, tmp_path):
    far = {"optim.lr": 1e18, "optim.momentum": 0.9}
    with pytest.raises(Diverged, match=r"it began in step \d .* is not finite.* with the same command"):
        train("a", far)
    with pytest.raises(Diverged, match="fastresnet train --run.resume=") as first:
        train("b", {**far, "train.checkpoint_every": "1 steps"})
    began = str(first.value).partition("it began")[2]
    with pytest.raises(Diverged, match=re.escape(began)):
        train("b", {"run.resume": str(tmp_path / "b"), "optim.lr": 1e18})


def test_a_run_that_diverges_names_layers_and_keeps_the_weights_before(train, tmp_path):
    class Poison(Callback):
        def on_step_end(self, trainer):
            if trainer.steps_done == 6:
                with torch.no_grad():
                    next(trainer.model.parameters()).fill_(float("nan"))

    experiment = train("clean", {"train.max_steps": 1}).model
    first = next(iter(dict(experiment.named_parameters())))
    with pytest.raises(RuntimeError, match=rf"epoch 2 .*in {re.escape(first)}.*stayed finite when they were"):
        train("a", {"train.checkpoint_every": "1 steps"}, callbacks=[Poison()])
    kept = checkpoint.load(tmp_path / "a")
    assert kept["step"] == 6 and all(torch.isfinite(value).all() for value in kept["model"].values())


def test_a_nearly_full_disk_is_told_before_the_training(train, monkeypatch, capsys):
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda where: SimpleNamespace(free=1000))
    train("a", {"train.max_steps": 1})
    assert "has 1000 bytes left, this run's checkpoints may take" in capsys.readouterr().err


@pytest.mark.parametrize("tail", [{"train.ema_decay": 0.8}, {"train.average_tail": 0.5}])
def test_averaged_weights_are_what_is_evaluated_and_kept(train, tail):
    done = train("a", tail)
    payload = checkpoint.load(done.checkpoint)
    assert payload["averaged"] is not None and not same(payload["averaged"], payload["model"])
    assert same({k: v.cpu() for k, v in done.model.state_dict().items()}, payload["averaged"])


def test_each_step_and_each_batch_that_is_evaluated_is_a_sign_of_life(train, monkeypatch):
    beats = []
    monkeypatch.setattr(Watchdog, "beat", lambda self: beats.append(1))
    train("a", {"train.max_steps": 2, "eval.batch_size": 20, "eval.tta": "none"})
    assert len(beats) == 2 + 3


# ---- going on --------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a kill: nobody handles it."""


def fail():
    """Ends the run as a kill would: nothing is saved any more."""
    raise Killed


def test_the_same_command_goes_on_from_a_checkpoint_inside_an_epoch_to_the_same_bits(train):
    changes = {"train.checkpoint_every": "1 steps", "run.save_checkpoints": True}
    whole = train("whole", changes)
    with pytest.raises(Killed):
        train("part", changes, progress=At(7, fail))
    resumed = train("part", changes)
    assert resumed.record["steps"] == 12
    assert same(weights(whole.checkpoint), weights(resumed.checkpoint))
    assert timeless(whole.history) == timeless(resumed.history)


@pytest.mark.parametrize("auto", [{}, {"run.resume": "auto"}], ids=["same command", "run.resume=auto"])
def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(train, auto):
    with pytest.raises(Killed):
        train("part", {**auto, "train.max_steps": 2}, progress=At(1, fail))
    assert train("part", {**auto, "train.max_steps": 2}).record["steps"] == 2


def test_the_same_command_with_other_settings_is_refused_and_nothing_is_touched(train, tmp_path):
    with pytest.raises(start.Interrupted):
        train("a", progress=At(2, press_ctrl_c))
    before = (tmp_path / "a" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match="stopped run with other settings .optim.lr="):
        train("a", {"optim.lr": 0.5})
    assert (tmp_path / "a" / "config.yaml").read_bytes() == before


def test_resume_auto_leaves_a_finished_run_as_it_is_and_draws_what_is_missing(train):
    first = train("a", {"train.max_steps": 2})
    before = (first.dir / "result.json").read_bytes()
    again = train("a", {"train.max_steps": 2, "run.resume": "auto", "run.report": True})
    assert (first.dir / "result.json").read_bytes() == before
    assert again.record == record.read(first.dir / "result.json")
    assert (first.dir / "report.html").exists()


def test_resume_auto_needs_a_folder(train):
    with pytest.raises(ValueError, match="run.resume=auto .*name run.dir"):
        train("a", {"run.resume": "auto", "run.dir": None})


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_going_on_in_another_folder_replaces_nothing_in_either(train, tmp_path):
    train("a", {"train.max_steps": 4})
    train("b", {"train.max_steps": 2})
    before = contents(tmp_path / "a") | contents(tmp_path / "b")
    with pytest.raises(ValueError, match="run.dir=.*b already holds a run"):
        train("b", {"run.resume": str(tmp_path / "a")})
    moved = train("c", {"run.resume": str(tmp_path / "a"), "train.max_steps": 6})
    assert before == contents(tmp_path / "a") | contents(tmp_path / "b")
    assert moved.dir == tmp_path / "c" and [row["step"] for row in moved.history] == [4, 6]


def test_a_checkpoint_outside_a_run_goes_on_in_a_folder_of_its_own(train, tmp_path, monkeypatch):
    source = train("a", {"train.max_steps": 2})
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "config.yaml").write_text("another run's")
    lone = source.checkpoint.rename(tmp_path / "x" / "y" / "ck.pt")
    monkeypatch.chdir(tmp_path)
    done = train("", {"run.resume": str(lone), "run.dir": None, "train.max_steps": 3})
    assert done.dir.parent == Path("runs/smoke")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"y", "config.yaml"}
    assert (tmp_path / "x" / "config.yaml").read_text() == "another run's"


EACH_STEP = {"train.checkpoint_every": "1 steps"}


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(train, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(RuntimeError, match="the last weights couldn't be written .No space left on device"):
        train("a", EACH_STEP)
    told = capsys.readouterr().err
    assert told.count("checkpoint not written (No space left on device)") > 3 and "results in" not in told
    with pytest.raises(start.Interrupted, match="nothing was kept"):
        train("b", progress=At(1, press_ctrl_c))
    monkeypatch.setattr(checkpoint, "save", save)
    assert train("a", EACH_STEP).record["steps"] == 12


def test_a_disk_that_is_full_for_a_while_costs_nothing_in_the_end(train, monkeypatch, capsys):
    """The checkpoint of step 6 finds no room: the one before stays meanwhile, and the run ends whole."""
    seen, save = [], checkpoint.save

    def sometimes(path, payload):
        if payload["step"] == 6:
            seen.append(checkpoint.load(path)["step"])
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, payload)

    monkeypatch.setattr(checkpoint, "save", sometimes)
    assert checkpoint.load(train("a", EACH_STEP).dir)["step"] == 12
    assert seen == [5] and capsys.readouterr().err.count("checkpoint not written") == 1


def test_a_disk_that_fills_up_is_told_once_before_a_checkpoint_fails(train, monkeypatch, capsys):
    room = iter([2**40] * 6)
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda where: SimpleNamespace(free=next(room, 1000)))
    train("a", EACH_STEP)
    assert capsys.readouterr().err.count("has 1000 bytes left, this run's checkpoints may take") == 1


def test_checkpoints_by_the_first_one_s_clock_take_one_percent_of_the_time(betons, tmp_path, monkeypatch):
    """What the writing thread computes counts too: on a slow disk, a CPU takes that from the training."""
    cfg = config.load("smoke.yaml", {**SMALL, "data.betons": betons, "train.checkpoint_every": "1s"})
    experiment, clock, due = Experiment(cfg), [0.0], []
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    first, other = (keeping.Keeper(experiment, Ledger(experiment), to, print) for to in (tmp_path, None))
    for keeper in (first, other):
        keeper._copying, keeper._saving = 0.005, 0.05
    for clock[0] in range(20):
        due += [clock[0]] * first.due()
        assert not other.due(), "each by its own clock, they would keep the same twice"
    assert due == [6, 12, 18]
    first.close(), other.close()
    experiment.close()


# ---- what the record says --------------------------------------------------------------------------------


def test_images_and_seconds_of_a_record_cover_every_session(train):
    with pytest.raises(start.Interrupted):
        train("a", progress=At(6, press_ctrl_c))
    result = train("a").record
    assert result["images_per_second"] * result["seconds"]["train"] == pytest.approx(12 * 50)
    rows = result["per_epoch"]
    assert [row["images_per_second"] * row["seconds"] for row in rows] == pytest.approx([200] * 3)
    assert sum(row["seconds"] for row in rows) == pytest.approx(result["seconds"]["train"])


@pytest.mark.parametrize("changes", [{"train.resolutions": [[0.5, 12]]}, {"train.hard_fraction": 0.5}])
def test_mfu_counts_the_arithmetic_of_the_steps_that_were_done(train, monkeypatch, changes):
    monkeypatch.setattr(ledger, "rate_ceiling", lambda *where, **kind: 1e15)
    done = train("a", {"train.max_steps": 4, **changes})
    flops = done.record["mfu"] * 1e15 * done.record["seconds"]["train"]
    at_12_px, full = flops_per_image(done.model, 12), flops_per_image(done.model, 16)
    all_judged_half_learned = full + 3 * full / 2
    each = 3 * at_12_px if "train.resolutions" in changes else all_judged_half_learned
    assert flops == pytest.approx(200 * each)


# ---- what is evaluated, and how --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
def test_a_deterministic_run_uses_deterministic_algorithms_alone(train, asked):
    seen = []

    class Watch(Progress):
        def step(self, epoch, step, loss):
            seen.append(torch.are_deterministic_algorithms_enabled())

    try:
        torch.use_deterministic_algorithms(not asked)
        train("a", {"run.deterministic": asked, "train.max_steps": 1}, progress=Watch("off"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [asked]


@pytest.mark.parametrize("best_on, best, epoch", [("validation", 0.7, 2), ("test", 0.6, 3), ("none", 0.1, 4)])
def test_the_best_epoch_is_the_first_of_the_highest_accuracy_on_the_split_that_chooses(
    betons, best_on, best, epoch
):
    cfg = config.load("smoke.yaml", {**SMALL, "data.betons": betons, "eval.best_on": best_on})
    book = Ledger(Experiment(cfg))
    book.trained(1.0)
    chosen = []
    for index, (val, test) in enumerate([(0.3, 0.2), (0.7, 0.5), (0.5, 0.6), (0.7, 0.1)]):
        book.part_seconds = 1.0
        result = EpochResult(index, 4 * (index + 1), 200, 1.0, 0.5, 1.0, 0.1)
        if book.finish_epoch(result, {"val": Score(val, 1.0), "test": Score(test, 1.0)}):
            chosen.append(index + 1)
    accuracy = book.record(Score(0.1, 1.0), None, None)["accuracy"]
    assert (accuracy["best"], accuracy["best_epoch"]) == (best, epoch)
    assert chosen == {"validation": [1, 2], "test": [1, 2, 3], "none": []}[best_on]


def test_the_script_ends_with_the_record_as_one_line_of_json(tmp_path, betons):
    settings = {**SMALL, "data.betons": betons, "run.dir": str(tmp_path / "a"), "train.max_steps": 2}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", "smoke.yaml"]
    command += [f"--{key}={value}".replace("=False", "=false") for key, value in settings.items()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    record.validate(result)
    assert "SYNTHETIC" in done.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_at_a_terminal_the_script_ends_in_words_and_with_json_where_asked(
    tmp_path, betons, monkeypatch, capsys, more
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    words = [f"--data.betons={betons}", "--config=smoke.yaml", "--train.max_steps=1", "--run.report=false"]
    words += [f"--{key}={SMALL[key]}" for key in ("data.synthetic_train", "data.synthetic_test")]
    command.main([*words, f"--run.dir={tmp_path / 'a'}", *more])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("{") if more else last.endswith(f"--checkpoint={tmp_path / 'a'}")


def test_the_augmentation_is_compiled_before_the_clock_of_training_starts(train, monkeypatch):
    """Without a compiled step too: the loaders are warmed, and the record says what that took."""
    calls = []
    warm, fit = Loaders.warm_up, Experiment.fit_epoch
    monkeypatch.setattr(Loaders, "warm_up", lambda self: (calls.append("warm"), warm(self))[1])
    monkeypatch.setattr(
        Experiment, "fit_epoch", lambda self, *a, **k: (calls.append("fit"), fit(self, *a, **k))[1]
    )
    run = train("run", {"train.epochs": 1.0})
    assert calls == ["warm", "fit"] and run.record["seconds"]["compile"] > 0


def test_a_terminal_is_told_that_the_data_is_read_while_it_is(train):
    class Heard(Progress):
        said: list[str] = []

        @contextmanager
        def busy(self, what):
            self.said.append(what)
            yield
            self.said.append("done")

        def note(self, line):
            self.said.append(line.partition(":")[0])

    train("run", {"train.max_steps": 1}, progress=Heard("off"))
    place = Heard.said.index
    assert place("getting data and network ready") < place("data") < place("done") < place("warming up")


# ---- on real disks and clocks ----------------------------------------------------------------------------

LIMITED = """
import resource, sys
from fastresnet.base import exits
from fastresnet.runs import start
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(exits.exit_code(lambda: start.train("smoke.yaml", {settings!r}) and None))
"""


@pytest.mark.slow(10)
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_process_whose_files_find_no_room_keeps_what_it_can_and_the_same_command_ends_it(
    train, tmp_path, betons
):
    whole = train("whole")
    settings = {**SMALL, "data.betons": betons, "run.dir": str(tmp_path / "part"), "run.progress": "plain"}
    limit = whole.checkpoint.stat().st_size // 2
    command = [sys.executable, "-c", LIMITED.format(limit=limit, settings=settings)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and "time" in done.stdout.splitlines()[-1], "the result is said all the same"
    assert "the last weights couldn't be written" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "part" / "result.json").exists()
    assert same(weights(train("part").checkpoint), weights(whole.checkpoint))


@pytest.mark.slow(10)
def test_a_checkpoint_a_minute_takes_less_than_one_percent_of_one_core(tmp_path):
    """ResNet-18 with its momenta: processor seconds of copying, packing, hashing and proving one."""
    cfg = config.load("rn18.yaml", {"train.batch_size": 4, "run.device": "cpu", "train.precision": "fp32"})
    experiment = Experiment(cfg, splits=splits(train=8, test=4))
    experiment.fit_epoch(0, limit=1)
    keeper = keeping.Keeper(experiment, Ledger(experiment), tmp_path, print)
    spent = []
    for _ in range(3):
        began = time.process_time()
        keeper.keep_last()
        keeper.flush()
        spent.append(time.process_time() - began)
    keeper.close()
    experiment.close()
    assert (tmp_path / "last.pt").stat().st_size > 2 * 4 * 11_000_000
    assert min(spent) < 0.01 * 60
