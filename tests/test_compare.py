"""compare: ratios are right, noise passes, a planted slowdown is caught, and what can't be compared isn't
averaged."""

import json
import math
import subprocess
import sys
from pathlib import Path

import bench_files
import pytest

from fastresnet.base import exits
from fastresnet.bench.judging import compare, significance
from fastresnet.runs import record


def compared(base, other):
    record.validate(base)
    record.validate(other)
    return compare.compare([base, other], ["base", "other"])


def test_a_ratio_is_of_speeds_and_its_interval_holds_the_truth():
    covered = 0
    for seed in range(200):
        first = bench_files.samples(seed, 1.0, 0.05)
        second = bench_files.samples(seed + 1000, 0.5, 0.05)
        ratio = significance.compare(first, second)
        covered += ratio.low <= 2.0 <= ratio.high
        assert ratio.ratio == pytest.approx(2.0, rel=0.08)
    assert covered >= 182  # 95 % of 200 less three standard errors


def test_rates_are_better_when_higher():
    ratio = significance.compare([10.0, 10.1, 9.9], [20.0, 20.2, 19.8], lower_is_better=False)
    assert ratio.ratio == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_noise_passes_the_gate_also_where_neighbouring_samples_resemble_each_other(correlation):
    alarms = 0
    for seed in range(150):
        pairs = [
            (
                bench_files.samples(100_000 + 1000 * seed + i, 1.0, 0.08, correlation=correlation),
                bench_files.samples(500_000 + 1000 * seed + i, 1.0, 0.08, correlation=correlation),
            )
            for i in range(10)
        ]
        ratios = [significance.compare(*pair) for pair in pairs]
        alarms += any(significance.slower_beyond_noise(ratios, 0.05))
    assert alarms <= 6  # 1 % of 150 suites, and three standard errors


@pytest.mark.parametrize("slowdown, spread", [(1.10, 0.02), (1.25, 0.06), (2.0, 0.15)])
def test_a_planted_slowdown_is_caught_in_every_seed(slowdown, spread):
    for seed in range(60):
        ratios = [
            significance.compare(
                bench_files.samples(10_000 * seed + i, 1.0, spread),
                bench_files.samples(10_000 * seed + 500 + i, slowdown if i == 3 else 1.0, spread),
            )
            for i in range(10)
        ]
        assert significance.slower_beyond_noise(ratios, 0.05)[3], f"missed with seed {seed}"


def test_a_certain_slowdown_within_the_margin_passes():
    first, second = bench_files.samples(1, 1.0, 0.005), bench_files.samples(2, 1.03, 0.005)
    ratio = significance.compare(first, second)
    assert not ratio.within_noise
    assert significance.slower_beyond_noise([ratio], 0.05) == [False]
    assert significance.slower_beyond_noise([ratio], 0.01) == [True]


def test_single_samples_give_no_ratio():
    assert significance.compare([1.0], [2.0, 2.1]) is None
    assert significance.slower_beyond_noise([None], 0.05) == [False]


def test_the_same_figures_are_within_noise_and_another_machine_is_slower_for_its_ceiling():
    file = bench_files.benchmark()
    assert {entries[1].verdict for entries in compared(file, file).cases.values()} == {
        "noise",
        "out of memory",
    }
    slow = compared(file, bench_files.benchmark(seed=50, slowdown=3.0, name="Slow CPU")).cases
    step = slow["step/resnet18/b32"][1]
    assert step.verdict == "slower" and step.ratio.ratio == pytest.approx(1 / 3, rel=0.03)
    assert step.why.startswith("bandwidth: its ceiling differs 0.3") or step.why.startswith("compute: ")


@pytest.mark.parametrize(
    "change, verdict",
    [
        ({"synthetic": True}, "synthetic against real data"),
        ({"digest": "e" * 64}, "other data"),
        ({"train_size": 5000}, "other data"),
    ],
)
def test_other_data_is_marked_and_never_averaged(change, verdict):
    other = bench_files.benchmark(seed=3)
    other["data"] |= change
    result = compared(bench_files.benchmark(), other)
    for name in ("loader/resident/crop+flip", "endtoend/epoch/cpu.yaml", "accuracy/cpu.yaml"):
        assert result.cases[name][1].verdict == verdict and result.cases[name][1].ratio is None
    assert result.cases["step/resnet18/b32"][1].ratio is not None  # random images: the data set plays no part
    assert set(compare.averages(result)) == {"ceilings", "step"}


def test_other_settings_under_the_same_name_are_marked():
    other = bench_files.benchmark(seed=3)
    next(row for row in other["cases"] if row["id"] == "step/resnet18/b32")["settings"]["precision"] = "bf16"
    assert (
        compared(bench_files.benchmark(), other).cases["step/resnet18/b32"][1].verdict
        == "other settings (precision)"
    )


def test_files_of_another_scale_are_refused():
    other = bench_files.benchmark() | {"scale": "tiny"}
    with pytest.raises(ValueError, match="scale tiny"):
        compared(bench_files.benchmark(), other)


@pytest.mark.parametrize("text, value", [("5%", 0.05), ("0.05", 0.05), ("12.5%", 0.125)])
def test_the_margin_is_percent_or_a_share(text, value):
    assert compare.margin(text) == pytest.approx(value)


def test_the_command_compares_and_gates(tmp_path, capsys):
    paths = [tmp_path / name for name in ("base.json", "same.json", "slow.json")]
    for path, (seed, slowdown) in zip(paths, [(0, 1.0), (70, 1.0), (140, 1.2)]):
        record.write(path, bench_files.benchmark(seed, slowdown))
    base, same, slow = map(str, paths)
    assert compare.main([base, same, "--gate", "5%", "--md", "--html", str(tmp_path / "page.html")]) == 0
    assert "| step/resnet18/b32 | 20.0 images/s |" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 5000
    assert compare.main([base, slow, "--gate", "5%", "--json"]) == 1
    printed = capsys.readouterr()
    assert "slower: slow: step/resnet18/b32 runs at 0.8" in printed.err
    answer = json.loads(printed.out)
    assert math.isclose(answer["cases"]["step/resnet18/b32"][1]["ratio"]["ratio"], 1 / 1.2, rel_tol=0.03)


def test_a_file_of_another_schema_is_one_line_and_exit_2(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(bench_files.benchmark() | {"schema_version": 99}))
    assert exits.exit_code(compare.main, [str(path), str(path)]) == 2
    told = capsys.readouterr().err
    assert "schema_version is 99" in told and told.count("\n") == 1


def test_the_script_runs_from_anywhere(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "compare.py"
    done = subprocess.run([sys.executable, script, "none.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: none.json: no such file\n"
