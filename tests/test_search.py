"""The search: what a space may say, who goes on to the next round, and that it continues where it stopped."""

import json
import random
import shlex
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from drawn import splits

from fastresnet.bench.commands import search as command
from fastresnet.bench.protocol import pareto, protocol, search, space
from fastresnet.bench.protocol.beside import Seat
from fastresnet.machine.distributed import World
from fastresnet.ranks.dealing import Table
from fastresnet.settings import config
from fastresnet.settings.overrides import take_settings

SMALL = {
    "train.epochs": 1, "train.batch_size": 16, "model.stage_widths": [8, 8, 8], "eval.batch_size": 30,
    "run.device": "cpu", "train.precision": "fp32", "train.resolutions": None,
    "train.epoch_share": 1.0,
}  # fmt: skip


def a_space(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def row(seed, accuracy, seconds=1.0, flops=1.0, status="ok"):
    return {"seed": seed, "status": status, "accuracy": accuracy, "accuracy_tta": None,
            "seconds": {"total": seconds}, "flops": flops}  # fmt: skip


def trial(number, accuracies, seconds=1.0):
    return search.Trial(number, {}, [row(seed, value, seconds) for seed, value in enumerate(accuracies)])


# ---- the space ---------------------------------------------------------------------------------------------


def test_a_space_holds_choices_and_ranges_and_draws_within_them(tmp_path):
    text = (
        "optim.lr: {low: 0.1, high: 0.4, log: true}\ntrain.epochs: {low: 6, high: 7, step: 0.5}\n"
        "train.batch_size: {low: 500, high: 502}\ntrain.resolutions: [null, [[0.5, 24], [1.0, 32]]]\n"
    )
    read, chance = space.read(a_space(tmp_path, text), config.load("speed90-cpu.yaml")), random.Random(0)
    drawn = [space.draw(read, chance) for _ in range(100)]
    assert all(0.1 <= one["optim.lr"] <= 0.4 for one in drawn)
    assert {one["train.epochs"] for one in drawn} == {6, 6.5, 7}
    assert {one["train.batch_size"] for one in drawn} == {500, 501, 502}
    assert {str(one["train.resolutions"]) for one in drawn} == {"None", "[[0.5, 24], [1.0, 32]]"}


def test_whole_numbers_are_drawn_whole_on_a_logarithmic_scale_too(tmp_path):
    text = "train.batch_size: {low: 10, high: 1000, log: true}\noptim.lr: {low: 1, high: 10, log: true}\n"
    read, chance = space.read(a_space(tmp_path, text), config.load("speed90-cpu.yaml")), random.Random(0)
    drawn = [space.draw(read, chance) for _ in range(100)]
    assert all(type(one["train.batch_size"]) is int for one in drawn)
    assert 30 < sum(one["train.batch_size"] < 100 for one in drawn) < 70
    assert sum(one["optim.lr"] % 1 > 0 for one in drawn) > 90
    assert max(len(f"{one['optim.lr']!r}") for one in drawn) <= 5, "no more digits than anybody types"


@pytest.mark.parametrize("text, words", [
    ("optim.learning_rate: [1]", "Did you mean optim.lr"),
    ("optim.lr: [-1]", "must be above 0"),
    ("optim.lr: 0.1", "list of choices"),
    ("optim.lr: {low: 2, high: 1}", "low at most high"),
    ("optim.weight_decay: {low: 0, high: 1, log: true}", "above 0"),
    ("optim.lr: {low: 0.1, high: 1, step: 0}", "step must be"),
    ("optim.lr: {low: 0.1, high: 1, steps: 3}", "list of choices"),
    ("optim.lr: {low: 0.1, high: 1, log: true, step: 0.1}", "log and step don't go together"),
    ("train.batch_size: {low: 100, high: 200, step: 0.5}", "train.batch_size must be a whole number"),
    ("{}", "the space is empty"),
])  # fmt: skip
def test_a_wrong_space_is_refused_before_the_first_run(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        space.read(a_space(tmp_path, text), config.load("speed90-cpu.yaml"))


def test_more_trials_begin_with_the_same_draws():
    some = {"optim.lr": space.Values((0.1, 0.4), lambda chance: chance.uniform(0.1, 0.4))}
    assert search.trials(some, 3) == search.trials(some, 9)[:4] and search.trials(some, 3)[0].settings == {}


# ---- judging -----------------------------------------------------------------------------------------------


def test_a_gain_is_paired_by_seed_and_its_error_pooled_over_all_trials():
    base = trial(0, [0.90, 0.92, 0.94])
    better = trial(1, [0.91, 0.93, 0.95])  # seeds differ much, the gain doesn't
    found = search.gains([base, better], "seconds")
    assert found[1].mean == pytest.approx(0.01) and found[1].error == pytest.approx(0, abs=1e-9)
    noisy = trial(2, [0.92, 0.92, 0.92])
    found = search.gains([base, better, noisy], "seconds")
    assert found[1].error == found[2].error == pytest.approx((0.0004 / 2 / 3) ** 0.5), (
        "variances 0 and 0.0004"
    )


def test_one_seed_is_worth_what_runs_are_known_to_scatter():
    found = search.gains([trial(0, [0.9]), trial(1, [0.91])], "seconds")
    assert found[1].error == pytest.approx(2**0.5 * 0.0014)


def test_twice_the_cost_has_its_price_and_a_failed_run_counts_as_nothing_learned():
    base, dear = trial(0, [0.90]), trial(1, [0.91], seconds=4.0)
    assert search.gains([base, dear], "seconds", price=0.005)[1].mean == pytest.approx(0.0)
    dear.rows[0] |= {"status": "failed", "accuracy": None}
    assert search.gains([base, dear], "seconds", price=0.005)[1].mean == pytest.approx(-0.91)


def test_the_better_half_goes_on_and_whoever_chance_may_have_put_behind_it():
    tried = [
        trial(0, [0.9]),
        *(trial(k, [0.9 + gain]) for k, gain in enumerate((0.03, 0.02, 0.019, -0.05), 1)),
    ]
    found = search.gains(tried, "seconds")
    assert [t.number for t in search.survivors(tried, found)] == [0, 1, 2, 3]
    sure = {k: search.Gain(gain.mean, 1e-6, 1) for k, gain in found.items()}
    assert [t.number for t in search.survivors(tried, sure)] == [0, 1, 2]
    assert [t.number for t in search.survivors(tried[:1], found)] == [0]


def test_rounds_double_up_to_the_last():
    assert list(search.rounds(1)) == [1] and list(search.rounds(6)) == [1, 2, 4, 6]


def test_a_round_s_runs_are_dealt_out_by_trial_and_split_where_trials_are_few():
    tried = [trial(0, [0.9, 0.9]), trial(1, [0.9]), trial(2, [])]
    assert search.pieces(tried, 2, 2) == [(1, [1]), (2, [0, 1])], "what is done isn't done again"
    assert search.pieces(tried[:2], 5, 4) == [(0, [2, 4]), (0, [3]), (1, [1, 3]), (1, [2, 4])]


def test_the_front_leaves_out_what_another_beats_in_both():
    tried = [trial(0, [0.92], 3.0), trial(1, [0.90], 1.0), trial(2, [0.89], 2.0), trial(3, [0.95], 3.0)]
    assert [one.number for one in pareto.front(tried, "seconds")] == [1, 3]


# ---- whole -------------------------------------------------------------------------------------------------


def search_with(tmp_path, *more, lr="{low: 0.1, high: 0.4, log: true}"):
    path = a_space(tmp_path, f"optim.lr: {lr}\n")
    small = [f"--{key}={'null' if value is None else value}" for key, value in SMALL.items()]
    return command.main(["--config=speed90-cpu.yaml", f"--space={path}", f"--out={tmp_path / 'out'}",
                         "--objective=flops", *small, *more])  # fmt: skip


def test_halving_gives_more_seeds_to_the_better_trials_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command.data, "prepare", lambda cfg, notes: splits(32, 30, 16))
    network = SimpleNamespace(eval_loaders=["test"], close=int)

    def prepared(cfg, splits):
        return SimpleNamespace(lr=cfg.optim.lr, flops={"train": 1.0}, experiment=network)

    monkeypatch.setattr(protocol, "prepare", prepared)
    monkeypatch.setattr(
        protocol, "run_once", lambda ready, seed, **how: row(seed, 0.9 + ready.lr / 10 + seed / 99)
    )
    search_with(tmp_path, "--trials=8", "--seeds=4")
    lines = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()[1:]]
    runs = {who: [one["seed"] for one in lines if one["who"] == who] for who in {one["who"] for one in lines}}
    assert runs["trial 0"] == [0, 1, 2, 3] and len(runs) == 9
    assert sorted(map(len, runs.values())) == [1, 1, 2, 2, 2, 4, 4, 4, 4]
    of_lr = {one["who"]: one["settings"].get("optim.lr", 0) for one in lines}
    assert min(of_lr[who] for who in runs if len(runs[who]) == 4 and who != "trial 0") >= max(
        of_lr[who] for who in runs if len(runs[who]) < 4
    )
    capsys.readouterr()
    search_with(tmp_path, "--trials=8", "--seeds=4")
    again = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert len(again) == len(lines) + 1, "nothing is run twice"
    with pytest.raises(ValueError, match="other values of the space"):
        search_with(tmp_path, "--trials=8", lr="[0.1, 0.2]")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"] == 4
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    search_with(tmp_path, "--trials=8", "--seeds=4")
    told = capsys.readouterr().out
    assert "{" not in told and max(len(line) for line in told.splitlines() if str(tmp_path) not in line) <= 80
    settings, rest = take_settings(shlex.split(told[told.index("next ") :].replace("\\\n", "")))
    assert rest == ["next", "fastresnet", "reproduce", "--config=speed90-cpu.yaml", "--runs=5"]
    best = max(lines, key=lambda one: one["accuracy"])
    assert settings == SMALL | best["settings"], "what learned best, at the search's own settings"


def test_seconds_are_no_objective_where_runs_share_a_device(tmp_path, monkeypatch):
    shared = lambda cfg, facts: nullcontext(Seat(Table(World()), cfg, timed=False))  # noqa: E731
    monkeypatch.setattr(command.beside, "seated", shared)
    with pytest.raises(ValueError, match="runs that share a device aren't timed: take flops"):
        search_with(tmp_path, "--objective=seconds")
    assert not (tmp_path / "out").exists()


def test_a_real_search_logs_its_runs_draws_its_front_and_names_what_cannot_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.data, "prepare", lambda cfg, notes: splits(32, 30, 16))
    monkeypatch.setattr(protocol, "matmul_ceiling", lambda *args, **kwargs: 1e12)
    path = tmp_path / "space.yaml"
    path.write_text("train.batch_size: [8, 4000]\n")
    small = [f"--{key}={'null' if value is None else value}" for key, value in SMALL.items()]
    command.main(["--config=speed90-cpu.yaml", f"--space={path}", f"--out={tmp_path / 'out'}",
                  "--trials=3", "--seeds=2", *small])  # fmt: skip
    said = capsys.readouterr().out
    assert "can't run: train.batch_size=4000 is larger than the 32 images" in said
    assert json.loads(said.splitlines()[-1])["runs"] >= 1
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 1000
    logged = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()[1:]]
    assert {one["who"] for one in logged} == {"trial 0", "trial 3"}
    assert all(one["flops"] > 0 and one["seconds"]["total"] > 0 for one in logged)
