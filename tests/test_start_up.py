"""start_up: how long a command takes until its first run's clock starts, in processes that begin anew."""

import json
import time
from pathlib import Path

import pytest
from launched import ROOT, alone, with_betons

from fastresnet.bench.protocol import record_page, reproduce, start_up
from fastresnet.settings import config
from fastresnet.settings.keys import DEFAULT


def test_a_fresh_process_is_told_what_was_said_and_no_default(tmp_path):
    cfg = reproduce.own_settings(config.load("speed94-cpu.yaml", {"optim.lr": 1e-5, "data.root": "off"}))
    path = tmp_path / "recipe.yaml"
    path.write_text(start_up._told(cfg), encoding="utf-8")
    told = config.load(path)
    assert told == cfg and reproduce.own_settings(told) == cfg
    defaults = [{key for key, who in one.provenance.items() if who == DEFAULT} for one in (cfg, told)]
    assert defaults[0] == defaults[1]


def test_the_second_process_finds_what_the_first_made_where_nothing_was(monkeypatch):
    seen = []

    def begun(recipe, caches):
        places = [Path(config.load(recipe).data.betons), *map(Path, caches.values())]
        seen.append([place.exists() for place in places])
        for place in places:
            place.mkdir(exist_ok=True)
        seen.append(places)
        return 1.0

    monkeypatch.setattr(start_up, "_seconds", begun)
    assert start_up.cold_and_warm(config.load("smoke.yaml")) == {"cold": 1.0, "warm": 1.0}
    before, first, then, second = seen
    assert not any(before) and all(then) and first == second and len(set(first)) == 5
    assert not any(place.exists() for place in first), "it leaves nothing"


def test_a_process_is_given_the_caches_and_is_none_of_torchruns(monkeypatch, tmp_path):
    told = "{'start': float(os.environ['NUMBA_CACHE_DIR']), 'data': float(os.environ.get('WORLD_SIZE', 0))}"
    monkeypatch.setattr(start_up, "COMMAND", f"import json, os; print('said'); print(json.dumps({told}))")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert start_up._seconds(tmp_path, {"NUMBA_CACHE_DIR": "2.5"}) == 2.5


def test_where_the_system_tells_no_start_none_is_guessed(monkeypatch):
    monkeypatch.setattr(start_up.timing, "process_age", lambda: None)
    found = start_up.cold_and_warm(config.load("smoke.yaml"))
    assert (found["cold"], found["warm"]) == (None, None) and "doesn't tell" in found["message"]


def test_the_page_adds_the_mean_of_a_run_to_what_comes_before_it():
    made = {
        "summary": {"seconds_mean": 100.0},
        "off_clock_seconds": {"start": 2.0, "data": 1.0, "build": 0.5, "warm_up": 4.5},
        "start_up_s": {"cold": 30.0, "warm": 7.0},
    }
    found = record_page._answer(made)
    assert found.startswith(
        "From the command to the answer: 107 s with warm caches, 130 s with cold caches, "
        "108 s in the record's own process. "
    )
    made["start_up_s"] = {"cold": 30.0, "warm": None, "message": "exit 1: no room"}
    found = record_page._answer(made)
    assert ": 130 s with cold caches, 108 s in" in found and "both timed: exit 1: no room." in found
    untimed = made | {"summary": {"seconds_mean": None}, "start_up_s": {"cold": 30.0, "warm": 7.0}}
    assert record_page._answer(untimed) == ""
    older = {"summary": {"seconds_mean": 100.0}, "off_clock_seconds": {"data": 1.0, "build": 1.0}}
    assert record_page._answer(older) == ""


@pytest.mark.slow(20)
def test_a_record_times_a_cold_start_and_a_warm_one_before_its_first_run(tmp_path):
    words = ["--config=smoke.yaml", "--runs=1", "--out=out", "--allow-dirty", "--train.epochs=1"]
    words += ["--data.train=train.beton", "--data.test=test.beton"]
    began = time.perf_counter()
    done = alone(ROOT / "benchmarks" / "reproduce.py", *words, cwd=with_betons(tmp_path))
    took = time.perf_counter() - began
    made = json.loads(done.stdout.splitlines()[-1])
    found, own = made["start_up_s"], made["off_clock_seconds"]
    assert list(found) == ["cold", "warm"] and list(own) == ["start", "data", "build", "warm_up"]
    assert min(found.values()) > own["build"], "they build, too"
    assert sum(found.values()) + sum(own.values()) < took, "its own start counts without those two processes"
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["start_up_s"] == found
    assert "s with warm caches" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow(5)
def test_a_start_that_fails_is_told_of_and_fails_nothing(tmp_path):
    cfg = config.load("smoke.yaml", {"data.source": "batches", "data.root": str(tmp_path / "nowhere")})
    found = start_up.cold_and_warm(cfg)
    assert (found["cold"], found["warm"]) == (None, None)
    assert found["message"].startswith("exit 2: error: ") and "nowhere" in found["message"]
