"""Several devices: what a measurement holds and shows, and what docs/scaling.md computes."""

import json

import bench_files
import pytest
import scaling_floors as scaling
import torch
from house import ROOT

from fastresnet.bench.commands import run
from fastresnet.bench.judging import costs
from fastresnet.bench.measuring import file
from fastresnet.bench.measuring.cases import PARTS, scaled
from fastresnet.bench.measuring.cases import scaling as cases
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.pages import picture, results_table
from fastresnet.machine import hardware
from fastresnet.machine.distributed import World
from fastresnet.runs import record
from fastresnet.settings import config
from fastresnet.settings.reading import recipes

PAGE, DRAWN = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.svg"
RECIPES = ("speed94", "rn18-96")


def measured(root=ROOT):
    """(what the page shows of committed results over several processes, the newest as a picture)."""
    results = sorted(results_table.load(root), key=lambda one: one.made["date"])
    pictures = [picture.scaling(one.made, hardware.short_name(one.made["hardware"])) for one in results]
    drawn = [one for one in pictures if one]
    shown = "![images a second by number of processes](scaling.svg)\n\n" if drawn else ""
    return f"{shown}{results_table.scaling_tables(results)}\n", drawn[-1] if drawn else None


def tables():
    """Of the page, those that take no long computing."""
    small = {"muon": scaling.muon_table(), "imagenet": scaling.imagenet_table()}
    return small | {"measured": measured()[0]}


def table_of_recipes():
    return {"cifar": scaling.table([costs.of(config.load(f"{name}.yaml")) for name in RECIPES])}


def with_tables(text, tables):
    for name, table in tables.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        head, tail = text.index(begin) + len(begin), text.index(end)
        text = text[:head] + table + text[tail:]
    return text


def test_the_page_s_tables_are_what_is_computed_and_what_was_measured():
    text, drawn = PAGE.read_text(encoding="utf-8"), measured()[1]
    assert text == with_tables(text, tables()), "`make tables` computes anew"
    kept = DRAWN.read_text(encoding="utf-8") if DRAWN.exists() else None
    assert drawn == kept, "`make tables` draws it anew"


@pytest.mark.slow(15)
def test_the_page_s_recipes_are_what_is_computed():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"{name}.yaml" in recipes() for name in RECIPES)
    assert text == with_tables(text, table_of_recipes()), "`make tables` computes anew"


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
    changes |= {"model.stage_widths": [8, 8, 8], "train.epoch_share": 1.0}
    told = scaled.measured(config.load("cpu.yaml", changes), World(), 0.01)
    assert len(told["step"]) == len(told["apart"]) == scaled.FEWEST and min(told["step"]) > 0
    assert told["bytes"] > 1000
    figures = cases._figures(told, 8, 1, on_gpu=False)
    assert figures["images_per_second"] > 0 and "communication_share" not in figures


def made_up(kind, count, rate):
    """A row of a measurement that nobody made."""
    settings = {"recipe": "cpu.yaml", "processes": count, "kind": kind, "train.precision": "fp32"}
    settings["train.batch_size"] = 256 * count if kind == "weak" else 256
    figures = {"images_per_second": rate, "cores_per_process": min(1.0, 2 / count)}
    if count > 1:
        figures |= {"communication_share": 0.25, "exchange_seconds": 2e-3, "exchange_bytes": 7.7e6}
        figures |= {"latency_seconds": 1e-4, "bus_bytes_per_second": 3.9e9}
    samples = [[256 / rate] * 3]
    return bench_files.row("scaling", f"{kind}/{count}", samples, settings=settings, figures=figures)


def test_what_was_measured_appears_as_soon_as_a_file_has_it(tmp_path):
    place = tmp_path / "benchmarks" / "results" / "here.json"
    for made in (None, bench_files.benchmark()):
        if made is not None:
            record.write(place, made)
        assert measured(tmp_path) == ("None yet.\n", None)
    rows = [made_up("strong", 1, 1000.0), made_up("strong", 4, 1500.0), made_up("weak", 2, 1800.0)]
    record.write(place, made | {"cases": rows})
    shown, drawn = measured(tmp_path)
    told = "2 cores Test CPU, 2026-01-02, a step of `cpu.yaml` in fp32, medians of 3 samples"
    assert f"{told} (`benchmarks/results/here.json`):\n\n| " in shown
    assert "| strong | 1 | 256 | 1,000 | 1.00 | - | - | - | - |" in shown
    assert "| strong | 4 (0.5 of a core each) | 256 | 1,500 | 1.50 | 25 % | 7.7 MB | 2 ms | 100 µs |" in shown
    assert "| weak | 2 | 512 | 1,800 | - | 25 % |" in shown, "nothing to compare with is no factor"
    assert "](scaling.svg)" in shown and "1,500, 1.50 times one, 25 % exchanging" in drawn
    assert results_table.result_rows(results_table.load(tmp_path)) == [], "a row of dashes says nothing"


def test_scaling_belongs_to_the_full_suite():
    context = Context(torch.device("cpu"), "full", tiny=True)
    assert [case.name for case in cases.cases(context)] == ["strong/1", "strong/2", "weak/1", "weak/2"]
    assert cases.cases(Context(torch.device("cpu"), "standard", tiny=True)) == []


@pytest.mark.slow(15)
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
    whole = with_tables(PAGE.read_text(encoding="utf-8"), tables() | table_of_recipes())
    PAGE.write_text(whole, encoding="utf-8")
    if (svg := measured()[1]) is not None:
        DRAWN.write_text(svg, encoding="utf-8")
