"""plan: predictions scale as they must, stay with their kind of device, and own up to their error."""

import re

import bench_files
import pytest

from fastresnet.base import words
from fastresnet.bench.commands import plan as command
from fastresnet.bench.judging import costs, machines, plan
from fastresnet.runs import record
from fastresnet.settings import config


def predicted(gpu, overrides=None, share=0.5):
    cfg = config.load("rn18.yaml", overrides or {})
    machine = machines.find(gpu)
    return plan.predict(cfg, machine, plan.precision_for(cfg, machine), share)


def test_a_faster_gpu_takes_less_time_and_twice_the_epochs_twice_as_long():
    slow, fast = predicted("T4"), predicted("h100")
    assert fast.seconds < slow.seconds / 5
    assert predicted("T4", {"train.epochs": 32.0}).seconds == pytest.approx(2 * slow.seconds)
    assert predicted("T4", share=1.0).seconds == pytest.approx(slow.seconds / 2)


def test_steps_of_small_images_are_predicted_as_such():
    whole = predicted("T4", {"train.precision": "fp16"})
    half = predicted("T4", {"train.precision": "fp16", "train.resolutions": [[0.5, 16], [1.0, 32]]})
    assert half.steps == whole.steps and 0.6 < half.seconds / whole.seconds < 0.66  # (1 + 1/4) / 2


def test_no_prediction_beats_the_arithmetic():
    floor = 16 * 50_000 * 3 * 1.11e9 / 989e12
    assert predicted("H100", share=1.0).seconds > 0.95 * floor


def test_memory_grows_with_the_batch():
    assert predicted("A100", {"train.batch_size": 4096}).memory > 4 * predicted("A100").memory


def test_an_unknown_gpu_and_a_missing_format_are_refused():
    with pytest.raises(ValueError, match="--gpu Q9: known are B200, H200"):
        machines.find("Q9")
    with pytest.raises(ValueError, match="train.precision=bf16: T4 has"):
        predicted("T4", {"train.precision": "bf16"})


def test_an_apple_gpu_is_predicted_in_the_precision_that_auto_takes_there():
    rates = {"bf16": 2e12, "fp16": 2e12, "fp32": 1e12}
    apple = machines.Machine("M", "mps", rates, 1e11, 1e-5, 2**34, "measured")
    assert plan.precision_for(config.load("rn18.yaml"), apple) == "fp32"


def test_a_measured_machine_is_predicted_from_its_file(tmp_path):
    path = tmp_path / "cpu.json"
    record.write(path, bench_files.benchmark())
    machine = machines.find(str(path))
    assert machine.kind == "cpu" and machine.memory == 8 * 2**30
    assert machine.rates["fp32"] == pytest.approx(1e11, rel=0.02)
    assert predicted(str(path)).seconds > 0


def gpu_file(seed, slowdown):
    made = bench_files.benchmark(seed, slowdown, "Host") | {"device": "cuda"}
    for row in made["cases"]:
        row["name"] = row["name"].replace("cpu/", "cuda/")
    return made


def test_a_gpu_is_never_predicted_from_a_cpu():
    cpu = [bench_files.benchmark(), bench_files.benchmark(7, 2.0, "Other")]
    assumed = plan.share_for("cuda", cpu)
    assert assumed.source == "assumed: no result of a cuda device is here"
    assert assumed == plan.share_for("cuda", []) and assumed.low < assumed.usual < assumed.high
    measured = plan.share_for("cuda", [*cpu, gpu_file(20, 0.1)])
    assert measured.source == "20th to 80th percentile of 3 measured steps on cuda devices"
    assert plan.share_for("cpu", cpu).source.endswith("of 6 measured steps on cpu devices")


def test_what_ran_at_tiny_size_predicts_nothing():
    tiny = bench_files.benchmark() | {"scale": "tiny"}
    assert plan.shares(tiny) == [] and plan.share_for("cpu", [tiny]).source.startswith("assumed")


def test_the_error_is_told_by_kind_of_device():
    files = [bench_files.benchmark(), bench_files.benchmark(7, 2.0, "Other"), gpu_file(20, 0.1)]
    wrong = plan.errors(files)
    assert len(wrong["cpu"]) == 6 and len(wrong["cuda"]) == 3
    assert max(map(abs, wrong["cpu"])) < 0.1  # both reach the same share of their ceilings
    assert plan.errors([]) == {}


def test_the_command_prints_time_memory_and_error(capsys):
    assert command.main(["--gpu", "A100", "--config", "speed94.yaml"]) == 0
    text = capsys.readouterr().out
    assert "speed94 on A100" in text and "training" in text and "GiB" in text


def test_a_gpus_prediction_says_its_floor_its_assumptions_and_nothing_of_cpus(capsys):
    assert command.main(["--gpu", "H200", "--config", "speed94.yaml", "--images", "6144"]) == 0
    text = capsys.readouterr().out
    counted = costs.of(config.load("speed94.yaml"), images=6144)
    seconds = counted.flops / 790e12
    assert f"arithmetic   {words.amount(seconds, 's')}" in text and "at 790 TFLOP/s in bf16" in text
    assert f"{counted.launches / counted.steps:.0f} operations a step" in text and "at 4.3 TB/s" in text
    assert "790 of 989 TFLOP/s and 4.3 of 4.8 TB/s" in text
    assert "error        unknown: no measured step of a cuda device" in text and "cpu" not in text


def test_a_cpus_prediction_owns_up_to_its_error(tmp_path, capsys):
    path = tmp_path / "cpu.json"
    record.write(path, bench_files.benchmark())
    asked = ["--gpu", str(path), "--config", "speed90-cpu.yaml", "--images", "5000"]
    assert command.main([*asked, "--train.precision=fp32"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"error +median \d+ %, largest \d+ % over \d+ measured steps on cpu devices", text)
