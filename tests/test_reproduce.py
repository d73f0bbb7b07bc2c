"""A record in the making: every run counts, a cut one goes on, nothing unfinished lies among records."""

import json
import sys
from types import SimpleNamespace

import pytest
from drawn import splits

from fastresnet.base import exits
from fastresnet.base.sinks import slug
from fastresnet.bench import places
from fastresnet.bench.commands import reproduce as command
from fastresnet.bench.protocol import protocol, reproduce, rival, runlog
from fastresnet.runs import record
from fastresnet.series import rows
from fastresnet.settings import config
from fastresnet.training import experiment

SMALL = [
    "--train.batch_size=20", "--train.epochs=1", "--model.stage_widths=8,8,8", "--eval.batch_size=30",
    "--run.device=cpu", "--train.precision=fp32", "--train.resolutions=null",
    "--train.epoch_share=1",
]  # fmt: skip
HEADER = {name: name for name in runlog.FIXED}


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """A clean work tree, drawn data, folders for records below `tmp_path`."""
    state = {"commit": "c" * 40, "dirty": False}
    monkeypatch.setattr(command.software, "git_state", lambda *given: dict(state))
    monkeypatch.setattr(protocol, "matmul_ceiling", lambda *args, **kwargs: 1e12)
    monkeypatch.setattr(experiment.data, "prepare", lambda cfg, notes: splits(40, 30, 16))
    monkeypatch.setattr(places, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(places, "UNFINISHED_RECORDS", tmp_path / "unfinished")
    return state


@pytest.fixture
def quick(clean, monkeypatch):
    """`clean`, and runs that cost nothing; `quick.asked` lists the seeds that were run."""
    found = SimpleNamespace(asked=[], stop_at=None, **{"state": clean})

    def run_once(prepared, seed, **how):
        if seed == found.stop_at:
            raise KeyboardInterrupt
        found.asked.append(seed)
        return row(0.5 + seed / 100, seed=seed)

    monkeypatch.setattr(protocol, "run_once", run_once)
    monkeypatch.setattr(protocol, "rehearse", lambda *args: None)
    return found


def run(tmp_path, *more, runs=2, out="out"):
    where = [f"--out={tmp_path / out}"] if out else []
    words = ["--config=speed90-cpu.yaml", "--start-up=skipped", f"--runs={runs}"]
    return command.main([*words, *where, *SMALL, *more])


def row(accuracy, seconds=1.0, status="ok", seed=0):
    return {"seed": seed, "status": status, "accuracy": accuracy, "accuracy_tta": None,
            "seconds": {"total": seconds}}  # fmt: skip


# ---- whole -------------------------------------------------------------------------------------------------


def test_a_record_holds_every_run_with_its_seed_and_validates(clean, tmp_path, capsys):
    code = run(tmp_path, "--target=0.01")
    made = record.read(tmp_path / "out" / "record.json", "record")
    assert [one["seed"] for one in made["runs"]] == [0, 1] and made["summary"]["n"] == 2
    assert (made["runs_planned"], made["runs_done"]) == (2, 2)
    assert {"init", "augment", "train", "eval", "total"} <= set(made["runs"][0]["seconds"])
    assert made["flops"]["train"] > 0 and made["data"]["synthetic"] and made["git"]["dirty"] is False
    assert code == (0 if made["summary"]["target_met"] else 1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == made
    assert "Synthetic data" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "out" / "record.json").read_text(encoding="utf-8")


def test_a_person_at_a_terminal_is_told_where_the_record_lies_instead_of_its_json(
    quick, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run(tmp_path)
    told = capsys.readouterr()
    assert f"written: {tmp_path / 'out' / 'README.md'}\n" in told.err
    assert "n=2" in told.out and "{" not in told.out


def test_an_interrupted_record_keeps_its_runs_and_goes_on(quick, tmp_path, capsys):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, runs=3)
    cut = record.read(tmp_path / "out" / "record.json", "record")
    assert (cut["runs_planned"], cut["runs_done"]) == (3, 1) and cut["summary"]["target_met"] is None
    quick.stop_at = None
    run(tmp_path, runs=3)
    whole = record.read(tmp_path / "out" / "record.json")
    assert quick.asked == [0, 1, 2], "a finished run isn't run again"
    assert [one["seed"] for one in whole["runs"]] == [0, 1, 2] and whole["runs_done"] == 3
    with pytest.raises(ValueError, match="finished record"):
        run(tmp_path, runs=3)


def test_a_record_whose_time_is_up_is_written_with_what_it_has_and_judges_nothing(
    quick, tmp_path, monkeypatch
):
    moments = iter(range(0, 10_000, 10))
    monkeypatch.setattr(reproduce.timing, "now", lambda device: float(next(moments)))
    assert run(tmp_path, "--seconds=50", "--target=0.1", runs=9) == 0
    cut = record.read(tmp_path / "out" / "record.json")
    assert 0 < cut["runs_done"] < 9 == cut["runs_planned"]
    assert cut["summary"]["target_met"] is None and cut["summary"]["p_value"] is not None
    assert f"Cut off: {cut['runs_done']} of 9 runs done" in (tmp_path / "out" / "README.md").read_text()
    run(tmp_path, "--target=0.1", runs=9)
    assert quick.asked == list(range(9)), "it goes on, with more time or none"


def test_a_continued_record_knows_from_its_log_that_another_run_would_end_too_late(
    quick, tmp_path, monkeypatch
):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    quick.stop_at = None
    assert run(tmp_path, "--seconds=0.9") == 0 and quick.asked == [0], "a run here takes a second"
    run(tmp_path, "--seconds=3600")
    assert quick.asked == [0, 1]


def test_a_half_finished_record_refuses_another_recipe_or_commit(quick, tmp_path):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    with pytest.raises(ValueError, match=r"other values of the settings \(optim.lr"):
        run(tmp_path, "--optim.lr=0.2")
    with pytest.raises(ValueError, match="the number of runs"):
        run(tmp_path, runs=3)
    quick.state["commit"] = "d" * 40
    with pytest.raises(ValueError, match="the commit"):
        run(tmp_path)


def test_a_dirty_tree_makes_no_record(quick, tmp_path):
    quick.state["dirty"] = True
    with pytest.raises(ValueError, match="Commit first"):
        run(tmp_path)
    run(tmp_path, "--allow-dirty", runs=1)
    assert not (tmp_path / "out" / "record.json").exists()
    assert json.loads((tmp_path / "out" / "measured-dirty.json").read_text())["git"]["dirty"] is True


def test_a_tree_without_git_takes_the_stated_commit_and_a_work_tree_its_own():
    assert command.stated({"commit": None, "dirty": None}, "abc123") == {"commit": "abc123", "dirty": False}
    own = {"commit": "abc123", "dirty": True}
    assert command.stated(own, None) is own and command.stated(own, "abc") == own
    with pytest.raises(ValueError, match="--commit def: this work tree is at abc123"):
        command.stated(own, "def")


# ---- where it lies -----------------------------------------------------------------------------------------


def test_nothing_unfinished_lies_among_records_and_a_second_one_of_a_day_has_its_own_name(quick, tmp_path):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, out=None)
    assert not places.RECORDS.exists() and len(list(places.UNFINISHED_RECORDS.iterdir())) == 1
    quick.stop_at = None
    run(tmp_path, out=None)
    run(tmp_path, out=None)
    first, second = sorted(places.RECORDS.iterdir())
    assert second.name == f"{first.name}-2" and not list(places.UNFINISHED_RECORDS.iterdir())
    assert {path.name for path in first.iterdir()} == {"record.json", "README.md", "runs.jsonl"}


def test_what_was_begun_with_other_settings_does_not_block_a_record(quick, tmp_path):
    quick.stop_at = 1
    for lr in ("0.1", "0.2", "0.1"):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, f"--optim.lr={lr}", out=None)
    assert quick.asked == [0, 0], "each is begun once, and the first is continued"
    assert len(list(places.UNFINISHED_RECORDS.iterdir())) == 2


def test_an_out_among_records_is_filled_when_the_record_is_whole(quick, tmp_path):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, out="records/mine")
    assert not places.RECORDS.exists()
    quick.stop_at = None
    run(tmp_path, out="records/mine")
    assert record.read(places.RECORDS / "mine" / "record.json")["runs_done"] == 2


# ---- the start ---------------------------------------------------------------------------------------------


@pytest.fixture
def starts(quick, monkeypatch):
    """`quick`, and starts that cost nothing, listed."""
    made = []
    found = {"cold": 9.0, "warm": 4.0}
    monkeypatch.setattr(reproduce.start_up, "cold_and_warm", lambda cfg: made.append(cfg) or found)
    return made


def test_starts_are_timed_once_however_often_a_record_goes_on(quick, starts, tmp_path):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--start-up=measured")
    quick.stop_at = None
    run(tmp_path, "--start-up=measured")
    assert len(starts) == 1 and starts[0].train.batch_size == 20
    made = record.read(tmp_path / "out" / "record.json")
    assert made["start_up_s"] == {"cold": 9.0, "warm": 4.0} and made["runs_done"] == 2
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "answer: 5.00 s with warm caches, 10.00 s with cold caches, " in page, "a run here takes a second"


def test_starts_are_timed_unless_seconds_count_or_runs_share_a_device(starts, tmp_path):
    plain = ["--config=speed90-cpu.yaml", "--runs=1", *SMALL]
    command.main([*plain, "--seconds=60", f"--out={tmp_path / 'hurried'}"])
    assert not starts and "start_up_s" not in record.read(tmp_path / "hurried" / "record.json")
    assert not command._times_starts(SimpleNamespace(start_up=None, seconds=None, parallel=2))
    command.main([*plain, f"--out={tmp_path / 'plain'}"])
    assert len(starts) == 1


def test_only_the_start_is_told_and_nothing_is_written(quick, tmp_path, capsys):
    assert run(tmp_path, "--start-up=only") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["start", "data", "build", "warm_up"] and not quick.asked
    assert not (tmp_path / "out").exists()


# ---- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [
    "run.seed=7", "run.dir=here", "run.resume=there", "run.loggers=tensorboard", "run.save_checkpoints=true",
    "run.report=true", "eval.every=1", "eval.best_on=test", "model.pretrained=weights.pt",
])  # fmt: skip
def test_a_setting_that_the_protocol_does_not_obey_is_refused(clean, tmp_path, wrong):
    with pytest.raises(ValueError, match=f"^--{wrong.partition('=')[0]}: .*: leave it out"):
        run(tmp_path, f"--{wrong}")
    assert not (tmp_path / "out").exists()


def test_what_a_recipe_says_of_its_files_and_evaluations_is_set_as_the_protocol_does(tmp_path):
    cfg = reproduce.own_settings(config.load("cpu.yaml"))
    assert (cfg.eval.every, cfg.eval.best_on, cfg.run.save_checkpoints) == (0, "none", False)
    path = tmp_path / "mine.yaml"
    path.write_text("base: cpu.yaml\nmodel:\n  pretrained: weights.pt\n")
    with pytest.raises(ValueError, match="mine.yaml: model.pretrained: .* fresh weights"):
        reproduce.own_settings(config.load(path))


@pytest.mark.parametrize("wrong, words", [
    (["--runs=0"], "--runs: must lie between 1 and"), (["--target=94"], "a share, not percent"),
    (["--parallel=2", "--versus=true"], "measures no times"), (["--seconds=0"], "above 0"),
    (["--versus=no-such-program-anywhere"], "can't be started"), (["--versus='"], "no command line"),
    (["--versus=true", "--versus-runs=3"], "--versus-runs=3: a rival takes turns with --runs=2"),
    (["--versus-runs=1"], "--versus-runs=1: no --versus"),
    (["--versus=true", "--versus=true", "--versus-name=a"], "--versus-name is there for each --versus or"),
    (["--versus-published=a"], "--versus-published is there for each"),
    (["--parallel=2", "--start-up=measured"], "times a process by itself"),
    (["--parallel=2", "--start-up=only"], "times a process by itself"),
])  # fmt: skip
def test_impossible_options_are_refused_and_leave_nothing(clean, tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, *wrong)
    assert not (tmp_path / "out").exists()


def test_a_record_goes_on_with_the_data_that_it_was_begun_with(quick, tmp_path, monkeypatch):
    quick.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    log = (tmp_path / "out" / "runs.jsonl").read_text()
    other = splits(40, 30, 16)
    other.info["digest"] = "another"
    monkeypatch.setattr(experiment.data, "prepare", lambda cfg, notes: other)
    with pytest.raises(ValueError, match=r"the data's digests \(train None then, another now\): finish it"):
        run(tmp_path)
    assert (tmp_path / "out" / "runs.jsonl").read_text() == log


# ---- rivals ------------------------------------------------------------------------------------------------


def says(text):
    return f"{sys.executable} -c {json.dumps(text)}"


NO_LUCK = says("raise SystemExit('no luck')")


def test_a_rival_is_run_in_turn_and_stands_beside(quick, tmp_path):
    told = says("import json; print('x'); print(json.dumps(dict(seconds=2.5, accuracy=0.9)))")
    run(tmp_path, f"--versus={told}", "--versus-name=other", "--versus-published=90 %, a machine")
    lines = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()[1:]]
    turns = [(one["who"], one["seed"]) for one in lines]
    assert turns == [("rival", 0), ("own", 0), ("rival", 1), ("own", 1)]
    beside = record.read(tmp_path / "out" / "record.json")["rivals"][0]
    assert beside["name"] == "other" and beside["summary"]["seconds_mean"] == 2.5
    assert beside["published"]["source"] == "90 %, a machine"


def test_several_rivals_take_their_turns_as_often_as_asked(quick, tmp_path):
    """Both before the first run, then at even distances, each summed up by itself."""
    slow, fast = (says(f"import json; print(json.dumps(dict(seconds={s}, accuracy=0.9)))") for s in (4, 2))
    names = ["--versus-name=slow", "--versus-name=fast"]
    run(tmp_path, f"--versus={slow}", f"--versus={fast}", *names, "--versus-runs=2", runs=4)
    lines = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()[1:]]
    both = ["rival", "rival 2"]
    assert [one["who"] for one in lines] == [*both, "own", "own", *both, "own", "own"]
    assert [one["seed"] for one in lines] == [0, 0, 0, 1, 1, 1, 2, 3]
    made = record.read(tmp_path / "out" / "record.json")["rivals"]
    assert [(one["name"], one["summary"]["seconds_mean"]) for one in made] == [("slow", 4), ("fast", 2)]
    assert [one["runs_planned"] for one in made] == [2, 2]
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "speed90-cpu takes 0.25 of the time of slow, 0.50 of the time of fast." in page


def test_of_several_rivals_the_one_that_fails_is_named_and_the_other_is_not_asked_again(quick, tmp_path):
    mark = tmp_path / "called"
    good = says(f"print(1, file=open({str(mark)!r}, 'a'))")
    with pytest.raises(ValueError, match="no luck.* failed in its first run"):
        run(tmp_path, f"--versus={good}", f"--versus={NO_LUCK}")
    log = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["who"] == "rival" and quick.asked == []
    with pytest.raises(ValueError, match="failed in its first run"):
        run(tmp_path, f"--versus={good}", f"--versus={NO_LUCK}")
    assert mark.read_text() == "1\n"


@pytest.mark.parametrize(("runs", "turns"), [(8, 3), (5, 5), (5, 1), (7, 6)])
def test_a_rivals_turns_are_spread_over_all_runs(runs, turns):
    git = {"commit": None, "dirty": False}
    taken = reproduce.order(reproduce.Ask(runs, None, git, ("true",), turns))
    assert taken[:2] == [("rival", 0), ("own", 0)] and len(set(taken)) == len(taken) == runs + turns
    before = [taken.index(("rival", turn)) - turn for turn in range(turns)]
    gaps = [later - earlier for earlier, later in zip(before, [*before[1:], runs])]
    assert max(gaps) - min(gaps) <= 1


def test_a_rival_that_fails_at_once_costs_no_run_and_does_not_block_the_next_try(quick, tmp_path):
    with pytest.raises(ValueError, match="failed in its first run .*no luck"):
        run(tmp_path, f"--versus={NO_LUCK}")
    assert quick.asked == []
    assert run(tmp_path, f"--versus={says('print(1)')}") in (0, 1)
    assert quick.asked == [0, 1]


def test_a_rival_without_json_is_timed_whole_and_a_run_that_fails_is_kept():
    whole = rival.run(says("print(1 + 1)"), 0)
    assert whole["status"] == "ok" and whole["accuracy_tta"] is None and whole["seconds"]["total"] > 0
    failed = rival.run(NO_LUCK, 1)
    assert failed["status"] == "failed" and "no luck" in failed["message"]


@pytest.mark.parametrize(("told", "message"), [
    ({"accuracy": 94.02}, "its accuracy is 94.02, a share of 1, not percent is wanted"),
    ({"accuracy": "94"}, "its accuracy is '94'"), ({"seconds": -1}, "its seconds is -1"),
])  # fmt: skip
def test_a_figure_of_a_rival_that_can_not_be_is_no_figure(told, message):
    row = rival.run(says(f"import json; print(json.dumps({told}))"), 0)
    assert row["status"] == "failed" and row["message"].startswith(message)


def test_what_a_rival_leaves_open_is_measured_and_the_page_says_by_which_clock(quick, tmp_path):
    told = says("import json; print(json.dumps(dict(seconds=None, accuracy=None)))")
    run(tmp_path, f"--versus={told}", "--versus-name=other", "--target=0.1")
    beside = record.read(tmp_path / "out" / "record.json")["rivals"][0]
    assert beside["runs"][0]["seconds"]["total"] > 0 and beside["summary"]["target_met"] is None
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert " other: the whole call is timed, its start-up included." in page
    told = says("import json; print(json.dumps(dict(seconds=2.5)))")
    run(tmp_path, f"--versus={told}", "--versus-name=other", out="own")
    page = (tmp_path / "own" / "README.md").read_text(encoding="utf-8")
    assert " other: timed by its own clock" in page


# ---- what all runs say -------------------------------------------------------------------------------------


def test_a_diverged_run_counts_as_a_failure_and_is_never_dropped():
    all_rows = [row(0.95 + i / 1e4, seed=i) for i in range(9)] + [row(None, status="failed", seed=9)]
    summary = rows.summarise(all_rows, 0.94, 10)
    assert summary["n"] == 9 and summary["failed"] == 1 and summary["target_met"] is False
    assert rows.judgement(summary, 0.94) == "not met: 1 of 10 runs failed"
    assert rows.summarise(all_rows[:9], 0.94, 9)["target_met"] is True


def test_a_record_tells_the_machines_use_and_energy_of_the_runs_that_ended(quick, tmp_path, monkeypatch):
    def run_once(prepared, seed, **how):
        figures = {"mfu": 0.4, "energy_joules": 50.0} if seed else {"mfu": 9.0, "energy_joules": 1.0}
        return row(0.5, status="ok" if seed else "failed", seed=seed) | figures

    monkeypatch.setattr(protocol, "run_once", run_once)
    run(tmp_path, runs=3)
    made = record.read(tmp_path / "out" / "record.json")
    assert (made["mfu"], made["energy_joules"]) == (0.4, 50.0)


def test_two_runs_alike_to_the_image_do_not_meet_a_target_by_that():
    alike = [row(0.9401, seed=seed) for seed in range(2)]
    assert rows.summarise(alike, 0.94, resolution=1e-4)["target_met"] is False
    alike = [row(0.96, seed=seed) for seed in range(3)]
    assert rows.summarise(alike, 0.94, resolution=1e-4)["target_met"] is True


def test_the_target_needs_a_mean_above_it_beyond_chance():
    sure = rows.summarise([row(0.941 + 1e-4 * i, seed=i) for i in range(5)], 0.94)
    chance = rows.summarise([row(x, seed=i) for i, x in enumerate((0.939, 0.942, 0.94))], 0.94)
    assert sure["target_met"] and sure["p_value"] < 0.01
    assert chance["target_met"] is False and chance["mean"] > 0.94


def test_one_run_reaches_a_target_and_proves_nothing():
    alone = rows.summarise([row(0.95)], 0.94)
    assert alone["ci95"] is None, "one run knows nothing of its spread"
    assert alone["target_met"] is None and rows.judgement(alone, 0.94) == "reached in one run"
    assert rows.judgement(rows.summarise([row(0.93)], 0.94), 0.94) == "missed in one run"


def test_a_record_that_is_cut_off_is_not_judged():
    part = rows.summarise([row(0.95 + i / 1e4, seed=i) for i in range(5)], 0.94, planned=9)
    assert part["target_met"] is None and rows.judgement(part, 0.94, 9) == "not judged: 5 of 9 runs done"


# ---- the log -----------------------------------------------------------------------------------------------


def test_a_log_cut_off_in_a_line_loses_that_line_alone(tmp_path):
    log = runlog.RunLog(tmp_path, HEADER)
    log.add("own", row(0.5))
    with open(log.path, "a") as file:
        file.write('{"who": "own", "se')
    again = runlog.RunLog(tmp_path, HEADER)
    assert len(again.of("own")) == 1 and again.done("own", 0) and not again.done("own", 1)
    again.add("own", row(0.6, seed=1))
    assert len(runlog.RunLog(tmp_path, HEADER).of("own")) == 2


def test_a_log_without_a_run_takes_another_question(tmp_path):
    runlog.RunLog(tmp_path, HEADER)
    other = runlog.RunLog(tmp_path, HEADER | {"runs": 7})
    other.add("own", row(0.5))
    with pytest.raises(ValueError, match="the number of runs"):
        runlog.RunLog(tmp_path, HEADER)


def test_a_record_of_an_older_release_counts_as_finished(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="finished record"):
        runlog.RunLog(tmp_path, HEADER)


def test_what_a_recipe_says_of_its_source_stands_in_the_record():
    assert "2.59 s" in command.published("airbench94")["source"]
    assert command.published("no-such-recipe") is None
    assert slug("1x NVIDIA H200") == "1x-nvidia-h200"


# ---- what is said meanwhile --------------------------------------------------------------------------------


@pytest.fixture
def making(monkeypatch):
    """The records in the making."""
    made, begin = [], reproduce.Making.__init__

    def watched(self, *given):
        made.append(self)
        begin(self, *given)

    monkeypatch.setattr(reproduce.Making, "__init__", watched)
    return made


def test_where_a_record_stands_is_said_for_each_part(clean, making, tmp_path, monkeypatch):
    seen, step, evaluate = [], protocol.Experiment.reset, protocol.Experiment.evaluate

    def watched(plain):
        return lambda self, *args, **how: (plain(self, *args, **how), seen.append(making[0].where()))[0]

    monkeypatch.setattr(protocol.Experiment, "reset", watched(step))
    monkeypatch.setattr(protocol.Experiment, "evaluate", watched(evaluate))
    run(tmp_path, runs=1)
    assert seen[0] == "reading the data and warming up"
    assert seen[1:3] == ["seed 0, run 1 of 1: step 0 of 2", "seed 0, run 1 of 1: evaluating"]


def test_the_rivals_first_run_is_said_to_be_one_before_our_data_is_read(quick, making, tmp_path, monkeypatch):
    seen = []

    def once(command, seed):
        seen.append(making[0].where())
        return row(0.5, seed=seed)

    monkeypatch.setattr(rival, "run", once)
    run(tmp_path, "--versus=true")
    assert seen == ["rival, run 1 of 2", "rival, run 2 of 2"]


def test_two_processes_never_log_into_one_folder(quick, tmp_path):
    with runlog.claimed(tmp_path / "out"), pytest.raises(ValueError, match="another process logs its runs"):
        run(tmp_path)
    assert quick.asked == [] and run(tmp_path) in (0, 1)


@pytest.mark.parametrize("spoil, words", [
    (lambda log: log.write_text('{"kind": "begin"}\n{"seed": 0}\n'), "was begun with other values"),
    (lambda log: log.write_bytes(log.read_bytes() + b"\xff\n"), "isn't UTF-8"),
    (lambda log: log.write_text(log.read_text() + '{"seed": 0}\n'), "line 3 is no run's"),
    (lambda log: (log.parent / "record.json").write_text("{"), "record.json: damaged"),
    (lambda log: (log.parent / "record.json").write_text("[]"), "record.json: damaged"),
])  # fmt: skip
def test_a_damaged_log_or_record_is_refused_in_one_line(tmp_path, spoil, words):
    log = runlog.RunLog(tmp_path, HEADER)
    log.add("own", row(0.5))
    spoil(log.path)
    with pytest.raises(ValueError, match=words) as caught:
        runlog.RunLog(tmp_path, HEADER)
    assert exits.is_ours(caught.value) and "\n" not in str(caught.value)
