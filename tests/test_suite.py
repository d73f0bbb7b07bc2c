"""suite and run: a valid file after each case, whatever fails or interrupts; no figure that can't be."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import bench_files
import pytest
import torch

from fastresnet import models
from fastresnet.bench import places
from fastresnet.bench.commands import run
from fastresnet.bench.measuring import cases, file, profiles, suite
from fastresnet.bench.measuring.cases.variant import Variant
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Disagrees, Measured
from fastresnet.bench.measuring.suite import Suite
from fastresnet.machine import timing
from fastresnet.machine.precision import resolve

CPU = torch.device("cpu")
RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"


def tiny(*arguments, out):
    return ["--scale", "tiny", "--device", "cpu", "--budget", "600", "--out", str(out), *arguments]


@pytest.mark.slow(15)
@pytest.mark.parametrize("only, least", [("ceilings,loader,step", 6), ("endtoend,accuracy", 3)])
def test_the_tiny_suite_writes_a_valid_file_with_every_part(tmp_path, monkeypatch, capsys, only, least):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "tiny.json"
    assert run.main(tiny("--only", only, out=out)) == 0
    result = file.read(out)
    bad = [row for row in result["cases"] if row["status"] in ("failed", "out of memory")]
    assert not [(row["id"], row["message"]) for row in bad]
    assert sum(row["status"] == "ok" for row in result["cases"]) >= least
    assert {row["part"] for row in result["cases"]} == set(only.split(","))
    assert result["cases_planned"] == len(result["cases"])
    assert result["data"]["synthetic"] and "SYNTHETIC DATA" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.json"}


def a_suite(monkeypatch, measures):
    """A suite of one part whose cases measure as given."""

    def made(context):
        return [Case("made", str(i), {}, measure) for i, measure in enumerate(measures)]

    monkeypatch.setitem(cases.PARTS, "made", made)
    return Suite(Context(CPU), ["made"], 60.0, time.perf_counter())


def test_a_case_is_a_line_that_a_terminal_has_room_for(monkeypatch):
    ((row, _),) = a_suite(monkeypatch, [good]).measure()
    row |= {
        "id": "step/resnet18/forward+backward/b32/bf16/channels_last",
        "noisy": True,
        "noise": "spread 16 %",
    }
    assert suite.describe(row).endswith("3.0 images/s  mfu 50 %  ~ spread 16 %")
    short = suite.describe(row, 69)
    assert (
        len(short) <= 69
        and short.endswith("3.0 images/s ~")
        and suite.describe(row, 200) == suite.describe(row)
    )


def test_a_long_case_is_said_to_be_under_way(monkeypatch, capsys):
    measured = a_suite(monkeypatch, [lambda seconds: time.sleep(0.1) or good(seconds)])
    monkeypatch.setattr("fastresnet.runs.progress.LOG_SECONDS", 0.03)
    list(run._once(measured))
    said = capsys.readouterr().err.splitlines()
    assert said.count(" 1/1 under way: made/0") > 1 and any("3.0 images/s" in line for line in said)


def good(seconds):
    return Measured([1.0, 1.1, 1.2, 1.0, 1.1], {"mfu": 0.5, "images_per_second": 3.0})


def impossible(seconds):
    return Measured([1.0] * 5, {"mfu": 1.07, "images_per_second": 3.0})


def test_a_part_is_added_by_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(cases.PARTS, "made", lambda context: [Case("made", "one", {}, good)])
    assert run.main(["--device", "cpu", "--only", "made", "--out", str(tmp_path / "made.json")]) == 0
    assert [row["id"] for row in file.read(tmp_path / "made.json")["cases"]] == ["made/one"]


def test_more_arithmetic_than_the_machine_can_do_is_a_failure_without_figures(monkeypatch):
    measured = a_suite(monkeypatch, [good, impossible])
    rows = [row for row, _ in measured.measure()]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert "MFU would be 1.07" in rows[1]["message"]
    assert rows[1]["figures"] == {} and rows[1]["samples"] == [] and rows[1]["quantiles"] is None


def test_the_file_is_whole_after_each_case(monkeypatch, tmp_path):
    path = tmp_path / "after.json"
    measured = a_suite(monkeypatch, [good, impossible, good])
    for count, _ in enumerate(measured.measure(), 1):
        file.write(path, measured.file())
        read = file.read(path)
        assert len(read["cases"]) == count and read["cases_planned"] == 3
        assert file.unfinished(read) == (f"{count} of 3 cases" if count < 3 else None)


@pytest.mark.parametrize("stop, processes", [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_an_interrupted_suite_leaves_what_it_has(tmp_path, stop, processes):
    out = tmp_path / "half.json"
    command = [sys.executable, str(RUN), *tiny("--only", "ceilings", "--processes", processes, out=out)]
    quiet = dict(stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    process = subprocess.Popen(command, cwd=tmp_path, **quiet)
    for _ in range(6000):
        if out.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(stop)
    told = process.communicate(timeout=200)[1]
    result = file.read(out)
    if process.returncode == 0:  # it was faster than the signal
        pytest.skip("the suite had ended")
    assert process.returncode == 130 and "interrupted: " in told and "Traceback" not in told
    assert result["cases"] and file.unfinished(result)
    assert [path.name for path in tmp_path.iterdir()] == ["half.json"]


def test_speedups_are_over_the_eager_contiguous_step_of_the_same_precision():
    def row(layout, seconds, precision="fp32"):
        settings = {"model": "m", "work": "step", "batch_size": 8, "precision": precision}
        settings |= {"memory_format": layout, "compile": "off"}
        ok = {"id": "step/m", "part": "step", "status": "ok"}
        return {**ok, "settings": settings, "quantiles": {"median": seconds}, "figures": {}}

    rows = [row("contiguous", 3.0), row("channels_last", 2.0), row("channels_last", 1.0, "bf16")]
    suite.add_speedups(rows)
    assert rows[1]["figures"]["speedup_over_eager_contiguous_same_precision"] == pytest.approx(1.5)
    assert rows[2]["figures"] == {"speedup_over_eager_contiguous_fp32": pytest.approx(3.0)}


def test_a_ceiling_that_was_beaten_is_measured_again(monkeypatch):
    rates = itertools.chain([1e9], itertools.repeat(4e9))
    monkeypatch.setattr(Context, "_measured_ceiling", lambda self, name: next(rates))
    context = Context(CPU, tiny=True)
    assert context.utilisation("fp32", 0.5e9)["mfu"] == 0.5
    found = context.utilisation("fp32", 2e9)
    assert found == {"flops_per_second": 2e9, "mfu": 0.5, "ceiling_flops_per_second": 4e9}


def test_energy_is_told_of_a_process_that_works_alone_and_of_none_that_takes_turns(rapl, monkeypatch):
    class OfTwo(timing.Turns):
        alone = False

    step = Variant(Context(CPU, tiny=True), "speednet", 4, "fp32", work="forward")
    assert step.measure(0.01).figures["joules_per_image"] == 0.0
    monkeypatch.setattr(timing, "turns", OfTwo)
    assert step.measure(0.01).figures["joules_per_image"] is None


@pytest.mark.parametrize("work", ["step", "forward", "forward+backward"])
def test_what_computes_something_else_is_not_timed(work, monkeypatch):
    seeds = itertools.count()
    other = lambda self: models.build(self.config.model, 10, 32, seed=next(seeds))  # noqa: E731
    monkeypatch.setattr(Variant, "new_model", other)
    with pytest.raises(Disagrees, match="the first loss is .*, fp32 eager contiguous gives"):
        Variant(Context(CPU, tiny=True), "speednet", 4, "fp32", work=work).prepare(4, resolve("fp32", CPU))


def test_no_whole_result_is_written_over_and_none_of_tiny_size_stands_among_them(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    made = bench_files.benchmark()
    first = suite.default_name(made)
    file.write(first, made | {"cases_planned": 99})
    assert suite.default_name(made) == first, "one that was cut short is measured anew"
    file.write(first, made)
    assert suite.default_name(made).name == "2-cores-test-cpu-standard-2026-01-02-2.json"
    assert suite.default_name(made | {"scale": "tiny"}).parent == tmp_path / "runs" / "tiny"


def test_the_time_left_is_told_in_whole_seconds(capsys):
    row = bench_files.row("step", "one", [[1.0]])
    told = SimpleNamespace(
        cases=[row],
        budget=120.0,
        context=SimpleNamespace(suite="quick"),
        measure=lambda: [(row, 119.7)],
        file=dict,
    )
    list(run._once(told))
    assert " 1/1 2:00 min step/one" in capsys.readouterr().err


def test_a_profile_is_a_trace_and_a_table(tmp_path):
    said = []
    table = profiles.write(Context(CPU, tiny=True), Path(tmp_path) / "profile", said.append)
    text = table.read_text()
    assert "matrix work" in text and "gaps" in text and said
    assert (table.parent / "trace.json").stat().st_size > 1000


def test_a_race_is_profiled_from_fresh_weights_to_its_last_step(tmp_path):
    page = profiles.race(Context(CPU, tiny=True), tmp_path / "race", lambda line: None, "smoke.yaml")
    assert "a run of smoke.yaml, batch 64" in page.read_text() and "matrix work" in page.read_text()


def test_fused_kernels_count_as_traffic_whatever_they_are_fused_from():
    kinds = {
        "triton_poi_fused_convolution_gelu_3": "memory traffic",
        "void cudnn::bn_fw_tr_1C11_kernel_NHWC": "memory traffic",
        "sm90_xmma_fprop_implicit_gemm_bf16": "matrix work",
        "nvjet_tst_128x128_64x4": "matrix work",
        "ncclDevKernel_AllReduce_Sum": "communication",
    }
    assert {name: profiles.kind_of(name) for name in kinds} == kinds


@pytest.mark.parametrize("part", ["loader", "endtoend"])
def test_data_is_found_before_any_case_has_its_time(part):
    """A conversion inside a case used up its time, was stopped, and began again in the next one."""
    context = Context(CPU, tiny=True)
    assert context.data_info() is None
    assert cases.PARTS[part](context) and context.data_info()["synthetic"]
