"""plan: predictions scale as they must, and own up to their error on machines that were measured."""

import bench_files
import pytest

from fastresnet.bench.judging import plan
from fastresnet.runs import record
from fastresnet.settings import config


def predicted(gpu, overrides=None, share=0.5):
    cfg = config.load("rn18.yaml", overrides or {})
    machine = plan.find_machine(gpu)
    return plan.predict(cfg, machine, plan.precision_for(cfg, machine), share)


def test_a_faster_gpu_takes_less_time_and_twice_the_epochs_twice_as_long():
    slow, fast = predicted("T4"), predicted("h100")
    assert fast.train_seconds < slow.train_seconds / 5
    twice = predicted("T4", {"train.epochs": 32.0})
    assert twice.train_seconds == pytest.approx(2 * slow.train_seconds)
    assert predicted("T4", share=1.0).train_seconds == pytest.approx(slow.train_seconds / 2)


def test_no_prediction_beats_the_arithmetic():
    floor = 16 * 50_000 * 3 * 1.11e9 / 989e12
    assert predicted("H100", share=1.0).train_seconds > 0.95 * floor


def test_memory_grows_with_the_batch():
    assert predicted("A100", {"train.batch_size": 4096}).memory > 4 * predicted("A100").memory


def test_an_unknown_gpu_and_a_missing_format_are_refused():
    with pytest.raises(ValueError, match="--gpu Q9: known are B200, H200"):
        plan.find_machine("Q9")
    with pytest.raises(ValueError, match="train.precision=bf16: T4 has"):
        predicted("T4", {"train.precision": "bf16"})


def test_a_measured_machine_is_predicted_from_its_file(tmp_path):
    path = tmp_path / "cpu.json"
    record.write(path, bench_files.benchmark())
    machine = plan.find_machine(str(path))
    assert machine.rates["fp32"] == pytest.approx(1e11, rel=0.02) and machine.memory == 8 * 2**30
    assert predicted(str(path)).train_seconds > 0


def test_the_error_on_measured_machines_is_told():
    files = [bench_files.benchmark(), bench_files.benchmark(7, 2.0, "Other")]
    wrong = plan.errors(files)
    assert len(wrong) == 6 and max(map(abs, wrong)) < 0.1  # both reach the same share of their ceilings
    assert plan.errors([]) == [] and plan.usual_share([]) is None


def test_the_command_prints_time_memory_and_error(capsys):
    assert plan.main(["--gpu", "A100", "--config", "rn18.yaml", "--train.epochs=3"]) == 0
    text = capsys.readouterr().out
    assert "rn18 on A100" in text and "training" in text and "GiB" in text and "error" in text
