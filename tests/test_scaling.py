"""Several devices: what a measurement holds and shows, and what docs/scaling.md computes."""

import json

import pytest
import torch
from house import ROOT

from fastresnet.bench.commands import run
from fastresnet.bench.judging import costs, scaling
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.cases import PARTS, scaled
from fastresnet.bench.measuring.cases import scaling as cases
from fastresnet.bench.measuring.context import Context
from fastresnet.machine.distributed import World
from fastresnet.settings import config
from fastresnet.settings.reading import recipes

PAGE = ROOT / "docs" / "scaling.md"
RECIPES = ("speed94", "rn18-96")


def tables():
    found = [costs.of(config.load(f"{name}.yaml")) for name in RECIPES]
    return {"cifar": scaling.table(found), "muon": scaling.muon_table(), "imagenet": scaling.imagenet_table()}


def with_tables(text, tables):
    for name, table in tables.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        head, tail = text.index(begin) + len(begin), text.index(end)
        text = text[:head] + table + text[tail:]
    return text


def test_the_page_s_small_tables_are_what_is_computed():
    text = PAGE.read_text(encoding="utf-8")
    small = {"muon": scaling.muon_table(), "imagenet": scaling.imagenet_table()}
    assert text == with_tables(text, small), "`make tables` computes anew"


@pytest.mark.slow
def test_the_page_s_recipes_are_what_is_computed():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"{name}.yaml" in recipes() for name in RECIPES)
    assert text == with_tables(text, tables()), "`make tables` computes anew"


def test_an_exchange_is_its_latency_and_its_bytes():
    assert scaling.exchange_seconds(10**9, 1) == 0
    in_a_host, between = scaling.exchange_seconds(10**9, 8), scaling.exchange_seconds(10**9, 64)
    assert in_a_host == pytest.approx(2 * 7 / 8 * 1e9 / 450e9, rel=0.01)
    assert between == pytest.approx(2 * 63 / 64 * 1e9 / 400e9, rel=0.02)
    assert scaling.exchange_seconds(8, 8) == pytest.approx(4.4e-6 + 14 * 0.52e-6, rel=1e-3)
    assert scaling.exchange_seconds(8, 64) == pytest.approx(4.4e-6 + 14 * 0.936e-6 + 6 * 5e-6, rel=1e-3)


def test_more_gpus_shorten_the_arithmetic_alone():
    numbers = {"epochs": 8.0, "steps": 100, "flops": 7.9e14, "bytes": 4.3e12, "bytes_fused": 4.3e11}
    cost = costs.Cost(recipe="speed94", **numbers, evaluation_flops=0.0, launches=20_000)
    one, eight = (scaling.floor(cost, 8_000_000, gpus) for gpus in (1, 8))
    assert one.arithmetic == pytest.approx(8 * eight.arithmetic) and one.launches == eight.launches
    assert one.least(queued=False) == ("arithmetic", pytest.approx(0.01))
    assert eight.least(queued=True)[0] == "arithmetic"
    assert scaling.floor(cost, 8, 512).least(queued=True)[0] == "launches"


def test_one_process_measures_a_step_and_no_exchange():
    changes = {"train.batch_size": 8, "data.loader": "resident", "run.device": "cpu"}
    changes["model.stage_widths"] = [8, 8, 8]
    told = scaled.measured(config.load("cpu.yaml", changes), World(), 0.01)
    assert len(told["step"]) == len(told["apart"]) == scaled.FEWEST and min(told["step"]) > 0
    assert told["bytes"] > 1000
    figures = cases._figures(told, 8, 1, on_gpu=False)
    assert figures["images_per_second"] > 0 and "communication_share" not in figures


def test_scaling_belongs_to_the_full_suite():
    context = Context(torch.device("cpu"), "full", tiny=True)
    assert [case.name for case in cases.cases(context)] == ["strong/1", "strong/2", "weak/1", "weak/2"]
    assert cases.cases(Context(torch.device("cpu"), "standard", tiny=True)) == []


@pytest.mark.slow
def test_two_processes_are_measured_written_and_drawn(tmp_path, monkeypatch):
    kept = cases.cases
    monkeypatch.setitem(PARTS, "scaling", lambda context: kept(context)[:2])
    out = tmp_path / "scaling.json"
    words = ["--suite=full", "--scale=tiny", "--only=scaling", "--device=cpu", f"--out={out}"]
    assert run.main(words) == 0
    one, two = file.read(out)["cases"]
    assert (one["status"], two["status"]) == ("ok", "ok"), (one["message"], two["message"])
    assert 0 <= two["figures"]["communication_share"] < 1 and two["figures"]["bus_bytes_per_second"] > 1e6
    drawn = out.with_suffix(".svg").read_text(encoding="utf-8")
    assert "strong, 2 processes" in drawn and "times one" in drawn and "exchanging" in drawn
    assert json.loads(out.read_text())["kind"] == "benchmark"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
