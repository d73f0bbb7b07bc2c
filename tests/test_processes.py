"""processes: a suite repeated in fresh processes gives one file; its samples say which process made them."""

import bench_files
import pytest

from fastresnet.bench.commands import run
from fastresnet.bench.measuring import file, processes


def once(values, rate=None, status="ok"):
    made = bench_files.row(
        "step", "one", [values], figures={"images_per_second": rate or 1.0, "kernel": "fused"}
    )
    del made["processes"]
    return made | ({} if status == "ok" else {"status": status, "samples": [], "quantiles": None})


def test_a_merged_row_keeps_samples_by_process_and_means_their_medians():
    row = processes.merged_row([once([1.0, 2.0, 9.0], 4.0), once([8.0, 8.0], 1.0)])
    assert row["samples"] == [1.0, 2.0, 9.0, 8.0, 8.0] and row["processes"] == [3, 2]
    assert file.observations(row) == [[1.0, 2.0, 9.0], [8.0, 8.0]]
    assert file.median_of(row) == pytest.approx(4.0)  # of 2 and 8, geometric
    assert row["figures"] == {"images_per_second": pytest.approx(2.0), "kernel": "fused"}
    assert row["noise"].startswith("processes differ by ")


def test_a_case_that_failed_in_one_process_stands_for_the_others():
    row = processes.merged_row([once([1.0], status="skipped"), once([1.0, 1.0])])
    assert row["status"] == "ok" and row["processes"] == [2]
    assert processes.merged_row([once([1.0], status="skipped")] * 2)["status"] == "skipped"


def test_a_file_of_one_process_is_one_observation():
    assert file.observations(once([1.0, 2.0])) == [[1.0, 2.0]]


def test_the_command_repeats_the_suite_in_fresh_processes(tmp_path):
    out = tmp_path / "twice.json"
    arguments = ["--scale", "tiny", "--device", "cpu", "--only", "ceilings", "--budget", "600"]
    assert run.main([*arguments, "--processes", "2", "--out", str(out)]) == 0
    result = file.read(out)
    measured = [row for row in result["cases"] if row["status"] == "ok"]
    assert len(measured) >= 4 and all(len(row["processes"]) == 2 for row in measured)
    assert (result["processes_planned"], result["processes_done"]) == (2, 2)
    assert file.unfinished(result) is None and result["budget_seconds"] == 1200
