"""The search: what a space may say, what a trial costs, and that it stops, goes on and finds the front."""

import json
from pathlib import Path

import pytest
from drawn import splits

from fastresnet.bench.protocol import search
from fastresnet.settings import config

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "train.epochs": 2, "train.batch_size": 16, "model.stage_widths": [8, 8, 8], "eval.batch_size": 30,
    "run.device": "cpu", "train.precision": "fp32",
}  # fmt: skip


def space(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def row(trial, seconds, accuracy, state="complete"):
    return {
        "trial": trial,
        "seconds": seconds,
        "accuracy": accuracy,
        "state": state,
        "flops": 1.0,
        "settings": {},
    }


def test_a_space_holds_choices_and_ranges(tmp_path):
    text = "optim.lr: {low: 0.1, high: 0.4, log: true}\ntrain.resolutions: [null, [[0.5, 24], [1.0, 32]]]\n"
    read = search.read_space(space(tmp_path, text), config.load("speed90-cpu.yaml"))
    assert set(read) == {"optim.lr", "train.resolutions"}


@pytest.mark.parametrize("text, words", [
    ("optim.learning_rate: [1]", "Did you mean optim.lr"),
    ("optim.lr: [-1]", "must be above 0"),
    ("optim.lr: 0.1", "list of choices"),
    ("optim.lr: {low: 2, high: 1}", "low at most high"),
    ("optim.lr: {low: 0.1, high: 1, steps: 3}", "list of choices"),
    ("{}", "the space is empty"),
])  # fmt: skip
def test_a_wrong_space_is_refused_before_the_first_trial(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        search.read_space(space(tmp_path, text), config.load("speed90-cpu.yaml"))


def test_a_run_that_misses_the_target_costs_more():
    assert search.cost(10.0, 0.95, 0.94) == 10.0
    assert search.cost(10.0, 0.93, 0.94) == pytest.approx(12.0)


def test_the_front_leaves_out_what_another_beats_in_both():
    rows = [
        row(0, 3.0, 0.92),
        row(1, 1.0, 0.90),
        row(2, 2.0, 0.89),
        row(3, 3.0, 0.95),
        row(4, 0.1, 0.99, "stopped"),
    ]
    assert [one["trial"] for one in search.pareto.front(rows, "seconds")] == [1, 3]


def test_a_log_cut_off_in_a_line_is_read_without_it(tmp_path):
    search.pareto.append(tmp_path / "log", row(0, 1.0, 0.5))
    with open(tmp_path / "log", "a") as file:
        file.write('{"trial": 1')
    assert [one["trial"] for one in search.pareto.read(tmp_path / "log")] == [0]


def test_a_search_goes_on_where_it_stopped_and_refuses_another_question(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna", reason="needs the extra `search` (Optuna)")
    monkeypatch.setattr(search.data, "prepare", lambda cfg, notes: splits(32, 30))
    monkeypatch.setattr(search.protocol.hardware, "matmul_ceiling", lambda *args, **kwargs: 1e12)
    path = space(tmp_path, "optim.lr: {low: 0.1, high: 0.4, log: true}\ntrain.epochs: {low: 1, high: 2}\n")
    small = [f"--{key}={value}" for key, value in SMALL.items()]
    told = [
        "--config=speed90-cpu.yaml",
        f"--space={path}",
        f"--out={tmp_path / 'out'}",
        "--objective=flops",
        *small,
    ]
    search.main([*told, "--trials=2", "--target=0.2"])
    search.main([*told, "--trials=3", "--target=0.2"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [one["trial"] for one in rows] == [0, 1, 2]
    assert {one["state"] for one in rows} <= {"complete", "stopped"} and rows[0]["state"] == "complete"
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 1000
    assert '"trial"' in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(ValueError, match="another recipe, space, target or objective"):
        search.main([*told, "--trials=4", "--target=0.3"])
