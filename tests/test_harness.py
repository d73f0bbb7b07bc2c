"""harness: it costs less than one percent, keeps to its time, and turns every mishap into a row."""

import time

import bench_files
import pytest
import torch

from fastresnet.bench.measuring import harness
from fastresnet.bench.measuring.harness import Case, Measured

CPU = torch.device("cpu")


def run(measure, seconds=0.1, limit=5.0, **more):
    return harness.run_case(Case("part", "name", {}, measure, **more), CPU, seconds, limit)


def raising(error):
    def measure(seconds):
        raise error

    return measure


def test_the_harness_costs_less_than_one_percent_of_its_shortest_sample():
    assert min(harness.overhead()["overhead_share"] for _ in range(3)) < 0.01


def test_short_calls_are_grouped_so_that_a_sample_is_long():
    calls = 0

    def call():
        nonlocal calls
        calls += 1

    samples = harness.sample(call, CPU, 0.05)
    assert len(samples) >= 5 and calls > 1000 and max(samples) < 1e-3


def test_a_long_call_is_sampled_a_few_times_only():
    began = time.perf_counter()
    samples = harness.sample(lambda: time.sleep(0.25), CPU, 0.1, fewest=3)
    assert len(samples) == 3 and time.perf_counter() - began < 20  # one more to warm up


@pytest.mark.parametrize("error, status, message", [
    (harness.NotAvailable("no such thing here"), "not available", "no such thing here"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "CUDA out of memory"),
    (MemoryError(), "out of memory", "MemoryError"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
     "out of memory", "not enough memory"),
    (harness.Disagrees("the loss is 3, fp32 gives 2"), "failed", "the loss is 3"),
    (KeyError("x"), "failed", "KeyError: 'x'"),
])  # fmt: skip
def test_a_case_that_raises_is_a_row_that_says_so(error, status, message):
    row = run(raising(error))
    assert row["status"] == status and message in row["message"]
    assert row["samples"] == [] and row["quantiles"] is None


def test_a_case_is_stopped_when_its_time_is_up():
    began = time.perf_counter()
    row = run(lambda seconds: time.sleep(30), limit=0.3)
    assert row["status"] == "skipped" and "its time was up" in row["message"]
    assert time.perf_counter() - began < 10


def test_what_was_sampled_before_the_time_was_up_is_kept_and_marked():
    row = run(lambda seconds: Measured(harness.sample(lambda: time.sleep(0.3), CPU, 60.0)), limit=1.1)
    assert row["status"] == "ok" and row["noisy"] and "only" in row["noise"]


def test_a_case_that_can_not_fit_is_skipped_at_once():
    row = run(raising(AssertionError("must not run")), limit=3.0, estimate=lambda: 40.0)
    assert row["status"] == "skipped" and row["message"] == "needs about 40 s, 3 s were left"


def test_the_schedule_never_grants_more_than_is_left():
    cases = [Case("p", str(i), {}, raising(AssertionError()), weight=1.0 + i % 3) for i in range(20)]
    schedule = harness.Schedule(cases, total=100.0, began=time.perf_counter(), reserve=2.0)
    grants = [schedule.slice(case) for case in cases]
    assert all(0 < seconds <= limit <= 98.01 for seconds, limit in grants)
    late = harness.Schedule(cases, total=100.0, began=time.perf_counter() - 200.0)
    assert late.slice(cases[0])[1] == 0.0


@pytest.mark.parametrize("values, mark", [
    (bench_files.samples(0, 1.0, 0.01), None), (bench_files.samples(0, 1.0, 0.1), "spread"),
    ([1.0 + 0.0024 * i for i in range(30)], "drift"), ([1.0, 1.0, 1.0], "3 samples only"),
    ([1.0], "1 sample only"),
])  # fmt: skip
def test_noise_is_marked_by_its_kind(values, mark):
    found = harness.noise(values)
    assert found is None if mark is None else found.startswith(mark)
