"""compare: noise passes, a slowdown is caught, ratios agree with values, nothing unlike is averaged."""

import json
import math
import re
import sys

import bench_files
import numpy as np
import pytest

from fastresnet.bench.commands import compare
from fastresnet.bench.commands.compare import share
from fastresnet.bench.judging import comparison, significance, telling
from fastresnet.bench.measuring import file, processes
from fastresnet.runs import record

# cases of an imaginary suite, and the one that is slowed down
CASES, SLOWED = 20, 3


def compared(base, other):
    record.validate(base)
    record.validate(other)
    return comparison.compare([base, other], ["base", "other"])


def ratio_of(base, other, lower=True):
    return significance.compare([base], [other], [lower])[0]


def test_variation_between_processes_is_not_taken_for_a_difference():
    alarms, suites = 0, 40
    for seed in range(suites):
        first, second = (
            [
                bench_files.by_process(10_000 * seed + 2 * i + side, 1.0, 0.015, spread=0.03)
                for i in range(CASES)
            ]
            for side in (0, 1)
        )
        ratios = significance.compare(first, second, [True] * CASES)
        alarms += sum(not ratio.within_noise for ratio in ratios)
    assert alarms <= 0.065 * suites * CASES  # nominally 5 %, and what 800 intervals scatter


def simulated(spread, drift, slowdown=1.0, *, in_turns, trials=200):
    """Of so many gates of 5 % between two suites, the share that fails; case SLOWED is really slower.

    spread:  of processes, by case; drift: of the machine from process to process, as a slope and a walk
    """
    random = np.random.default_rng([int(1000 * np.max(spread)), int(1000 * drift), in_turns])
    rounds = 6 if in_turns else 5
    there = np.arange(2 * rounds).reshape(rounds, 2)
    there[1::2] = there[1::2, ::-1]  # to and fro
    places = there.T if in_turns else np.arange(2 * rounds).reshape(2, rounds)
    failed = 0
    for _ in range(trials):
        machine = drift * np.arange(2 * rounds) + random.normal(0, drift / 2, 2 * rounds).cumsum()
        own = random.normal(0, 1, (CASES, 2 * rounds)) * np.reshape(spread, (-1, 1))
        seconds = np.exp(machine + own)[:, places]  # (cases, sides, rounds)
        seconds[SLOWED, 1] *= slowdown
        base, other = seconds[..., None].transpose(1, 0, 2, 3).tolist()
        ratios = significance.compare(base, other, [True] * CASES, in_turns=in_turns)
        failed += any(significance.slower_beyond_noise(ratios, 0.05))
    return failed / trials


SPREADS = {"0.5 %": 0.005, "1 %": 0.01, "2 %": 0.02, "4 %": 0.04, "unlike": np.geomspace(0.005, 0.04, CASES)}


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
@pytest.mark.parametrize("drift", [0.0, 0.01])
def test_of_twenty_gates_between_equal_suites_at_most_one_fails(spread, drift):
    assert simulated(spread, drift, in_turns=True) <= 0.05
    assert drift or simulated(spread, drift, in_turns=False) <= 0.05


def test_a_drift_fails_the_gate_between_files_measured_apart():
    assert simulated(0.01, 0.01, in_turns=False) > 0.3


@pytest.mark.parametrize("drift, in_turns", [(0.0, False), (0.005, True)])
def test_of_twenty_gates_one_at_most_misses_a_slowdown_of_8_percent(drift, in_turns):
    assert simulated(0.01, drift, 1.08, in_turns=in_turns) >= 0.95


def test_samples_of_one_process_prove_nothing_however_many_they_are():
    """Eight percent between two processes, each steady to 0.1 %: the naive test is certain, and wrong."""
    first, second = [bench_files.samples(1, 1.0, 0.001, 400)], [bench_files.samples(2, 1.08, 0.001, 400)]
    ratio = ratio_of(first, second)
    assert ratio.ratio == pytest.approx(1 / 1.08, rel=0.01)
    assert not ratio.judged and ratio.within_noise
    assert significance.slower_beyond_noise([ratio], 0.05) == [False]


def test_a_ratio_is_of_speeds_and_its_interval_holds_the_truth():
    covered = 0
    for seed in range(200):
        first = bench_files.by_process(seed, 1.0, between=0.02)
        second = bench_files.by_process(seed + 5000, 0.5, between=0.02)
        ratio = ratio_of(first, second)
        covered += ratio.low <= 2.0 <= ratio.high
    assert covered >= 182  # 95 % of 200 less three standard errors


def test_rates_are_better_when_higher():
    ratio = ratio_of([[10.0, 10.1], [9.9]], [[20.0], [20.2, 19.8]], lower=False)
    assert ratio.ratio == pytest.approx(2, 0.01)


def test_of_many_cases_some_look_slower_by_chance():
    def slower(p):
        return significance.Ratio(0.9, 0.8, 0.99, p)

    def judged(*values):
        return significance.slower_beyond_noise([slower(p) for p in values], 0.05)

    assert judged(0.02, 0.03, 0.5) == [False] * 3 and judged(0.02) == [True]
    assert judged(0.01, 0.02, 0.5) == [True, True, False]


def test_a_certain_slowdown_within_the_margin_passes():
    first = bench_files.by_process(1, 1.0, between=0.001, spread=0.001)
    second = bench_files.by_process(2, 1.03, between=0.001, spread=0.001)
    ratio = ratio_of(first, second)
    assert not ratio.within_noise
    assert significance.slower_beyond_noise([ratio], 0.05) == [False]
    assert significance.slower_beyond_noise([ratio], 0.01) == [True]


@pytest.mark.parametrize("count", [1, 5])
def test_a_ratio_is_the_quotient_of_the_values_beside_it(count):
    """Skewed samples: a mean of blocks of them once said 0.78x beside 16.8 -> 17.7 images/s."""
    files = []
    for seed in (1, 2):
        made = bench_files.benchmark(seed)
        rows = []
        for index in range(count):
            random = np.random.default_rng([seed, index])
            values = [0.5 + float(x) for x in random.exponential(0.1 * seed, 9)]
            middle = sorted(values)[4]
            one = bench_files.row("step", "resnet50/b8", [values], figures={"images_per_second": 8 / middle})
            rows.append(one)
        made["cases"] = [processes.merged_row(rows) if count > 1 else rows[0]]
        files.append(made)
    entry = compared(*files).cases["step/resnet50/b8"][1]
    rates = [file.number(one["cases"][0], "images_per_second") for one in files]
    assert entry.ratio.ratio == pytest.approx(rates[1] / rates[0])
    medians = [file.median_of(one["cases"][0]) for one in files]
    assert entry.ratio.ratio == pytest.approx(medians[0] / medians[1])


def test_files_measured_in_turns_are_held_against_each_other_pair_by_pair():
    """The machine gets slower by half; each pair meets it as it is, three percent apart."""
    drift = [1.0, 1.1, 1.3, 1.2, 1.5]
    files = [bench_files.benchmark() | {"turns": "a"} for _ in range(2)]
    for made, slower in zip(files, (1.0, 1.03)):
        made["cases"] = [bench_files.row("step", "one", [[slower * x] for x in drift])]
    found = compared(*files)
    assert found.cases["step/one"][1].verdict == "slower"
    assert not any("apart" in text for text in found.warnings)
    files[1]["turns"] = "b"
    found = compared(*files)
    assert found.cases["step/one"][1].verdict == "noise"
    assert [text for text in found.warnings if "apart" in text] == [
        "other: measured apart from base, a drift looks like a change: "
        "fastresnet bench --against OTHER measures in turns"
    ]


@pytest.mark.parametrize("change, message", [
    ({"suite": "quick"}, r"other is of another suite \(quick, not standard\)"),
    ({"device": "cuda"}, r"other is of another device \(cuda, not cpu\)"),
    ({"hardware": bench_files.benchmark(name="Slow CPU")["hardware"]}, "another machine .2 cores Slow CPU"),
])  # fmt: skip
def test_the_gate_refuses_another_machine_device_or_suite(change, message):
    with pytest.raises(ValueError, match=f"--gate tells changes of the code: .*{message}"):
        comparison.gate(compared(bench_files.benchmark(), bench_files.benchmark(9) | change), 0.05)


def test_files_of_one_process_show_ratios_and_judge_nothing():
    files = [single(bench_files.benchmark()), single(bench_files.benchmark(50, slowdown=1.1))]
    found = compared(*files)
    assert {e[1].verdict for e in found.cases.values()} == {"one process", "out of memory"}
    assert sum("one process only" in text for text in found.warnings) == 2
    assert "0.9" in telling.table(found) and "[" not in telling.table(found).split("speed [95 %]")[1]
    json.dumps(telling.as_data(found), allow_nan=False)
    with pytest.raises(ValueError, match="base has 1: .* with fastresnet bench --gate 5% --suite standard"):
        comparison.gate(found, 0.05)


def single(made):
    """The file as its first process alone would have written it."""
    for row in made["cases"]:
        if row["status"] == "ok":
            row["samples"] = row["samples"][: row.pop("processes")[0]]
            row["quantiles"]["median"] = sorted(row["samples"])[len(row["samples"]) // 2]
    del made["processes_planned"], made["processes_done"]
    return made


def test_a_suite_that_was_cut_short_is_said_to_be():
    short = bench_files.benchmark() | {"cases_planned": 19}
    assert "base: the suite was cut short: 10 of 19 cases" in compared(short, short).warnings
    short = bench_files.benchmark() | {"processes_planned": 9}
    assert "base: the suite was cut short: 5 of 9 processes" in compared(short, short).warnings


def test_the_same_figures_are_within_noise_and_another_machine_is_slower_for_its_ceiling():
    file = bench_files.benchmark()
    verdicts = {entries[1].verdict for entries in compared(file, file).cases.values()}
    assert verdicts == {"noise", "out of memory"}
    slow = compared(file, bench_files.benchmark(seed=50, slowdown=3.0, name="Slow CPU")).cases
    step = slow["step/resnet18/b32"][1]
    assert step.verdict == "slower" and step.ratio.ratio == pytest.approx(1 / 3, rel=0.03)
    assert step.why.startswith("bandwidth: its ceiling differs 0.3") or step.why.startswith("compute: ")


def test_on_one_machine_what_no_ceiling_explains_is_of_the_code():
    base, slow = bench_files.benchmark(), bench_files.benchmark(50, slowdown=1.3)
    for mine, theirs in zip(base["cases"], slow["cases"]):
        if mine["part"] == "ceilings":
            theirs |= {key: mine[key] for key in ("samples", "quantiles")}
            theirs["quantiles"] = dict(mine["quantiles"], median=1.01 * mine["quantiles"]["median"])
    step = compared(base, slow).cases["step/resnet18/b32"][1]
    assert (step.verdict, step.why) == ("slower", "same machine: the code, or what it runs on")


@pytest.mark.parametrize("change, verdict", [
    ({"synthetic": True}, "synthetic against real data"),
    ({"digest": "e" * 64}, "other data"),
    ({"train_size": 5000}, "other data"),
])  # fmt: skip
def test_other_data_is_marked_and_never_averaged(change, verdict):
    other = bench_files.benchmark(seed=3)
    other["data"] |= change
    result = compared(bench_files.benchmark(), other)
    for name in ("loader/resident/crop+flip", "endtoend/run/cpu.yaml", "accuracy/cpu.yaml"):
        assert result.cases[name][1].verdict == verdict and result.cases[name][1].ratio is None
    assert result.cases["step/resnet18/b32"][1].ratio is not None  # random images: the data set plays no part
    assert set(telling.averages(result)) == {"ceilings", "step"}


def test_other_settings_under_the_same_name_are_marked():
    other = bench_files.benchmark(seed=3)
    next(row for row in other["cases"] if row["id"] == "step/resnet18/b32")["settings"]["precision"] = "bf16"
    found = compared(bench_files.benchmark(), other).cases["step/resnet18/b32"][1]
    assert found.verdict == "other settings (precision)"


def test_the_largest_batch_that_fits_is_compared_only_where_it_is_the_same():
    def file_with(batch, **figures):
        settings = {"batch_size": "largest", "precision": "bf16"}
        one = bench_files.row(
            "step", "largest", [[0.1]], settings=settings, figures={"batch_size": batch} | figures
        )
        return bench_files.benchmark() | {"cases": [one]}

    def verdict(base, other):
        return compared(base, other).cases["step/largest"][1].verdict

    assert verdict(file_with(512), file_with(1024)) == "other settings (batch_size)"
    assert verdict(file_with(512), file_with(512.0000001)) == "one process", "a mean over processes"
    clocks = file_with(512, timed_on_device=True), file_with(512, timed_on_device=False)
    assert verdict(*clocks) == "other settings (timed_on_device)"


def test_what_the_machines_did_otherwise_by_the_same_settings_is_said():
    files = [bench_files.benchmark(), bench_files.benchmark(50, slowdown=3.0, name="Slow CPU")]
    for made, name in zip(files, ("bf16", "fp32")):
        next(row for row in made["cases"] if row["part"] == "endtoend")["figures"]["precision"] = name
    next(row for row in files[1]["cases"] if row["part"] == "accuracy")["figures"]["accuracy"] = 0.8478
    cases = compared(*files).cases
    assert cases["endtoend/run/cpu.yaml"][1].why == "precision fp32, bf16 on the base"
    assert cases["accuracy/cpu.yaml"][1].why == "accuracy -1.22 points", "faster or slower, but not as good"
    assert "precision fp32, bf16 on the base" in telling.table(compared(*files))
    assert re.search(r"86\.00 % in \d+ s, n=5", telling.table(compared(*files)))


def test_other_versions_and_threads_are_said():
    base, other = bench_files.benchmark(), bench_files.benchmark(9)
    assert not any("versions" in text for text in compared(base, other).warnings)
    other["software"] |= {"torch": "2.13"}
    base["speed_settings"], other["speed_settings"] = {"threads": 1}, {"threads": 2}
    told = "measured with other versions or switches: torch 2.9, 2.13; threads 1, 2"
    assert told in compared(base, other).warnings


def test_a_table_owns_up_to_how_many_equal_cases_look_changed():
    files = [bench_files.benchmark(), bench_files.benchmark(9)]
    told = (
        "each case is judged alone: of 9 that are equal about 0.5 look changed; --gate judges them together"
    )
    assert telling.table(compared(*files)).splitlines()[-1] == told
    assert "judged alone" not in telling.table(compared(*map(single, files)))


def test_other_suites_are_said():
    found = compared(bench_files.benchmark(), bench_files.benchmark(9) | {"suite": "quick"})
    assert (
        "the files are of other suites (standard, quick), which give their cases unlike times"
        in found.warnings
    )


@pytest.mark.parametrize(("low", "high", "text"), [
    (0.931, 0.969, "0.95x [0.93, 0.97]"), (0.9961, 0.9992, "0.998x [0.996, 0.999]"),
    (0.99991, 0.99997, "0.99994x [0.99991, 0.99997]"), (0.9961, 1.0008, "1.00x [1.00, 1.00]"),
])  # fmt: skip
def test_an_interval_says_what_its_verdict_says(low, high, text):
    assert telling.speed(significance.Ratio((low + high) / 2, low, high)) == text


def test_files_of_another_scale_are_refused():
    other = bench_files.benchmark() | {"scale": "tiny"}
    with pytest.raises(ValueError, match="scale tiny"):
        compared(bench_files.benchmark(), other)


def test_on_a_terminal_the_table_keeps_within_it_and_long_names_of_files_stand_above():
    files = [bench_files.benchmark(), bench_files.benchmark(50, 3.0, "Slow CPU")]
    names = ["2-cores-amd-epyc-standard-2026-11-21", "2-cores-amd-epyc-quick-2026-11-21"]
    found = comparison.compare(files, names)
    found.warnings.clear()
    told = telling.table(found, width=80).splitlines()
    assert max(map(len, told[: told.index("")])) <= 80 < max(map(len, telling.table(found).splitlines()))
    assert told[:2] == [f"file {number}: {name}" for number, name in enumerate(names, 1)]
    rows = told[2 : told.index("")]
    assert [line.split()[0] for line in rows if line[0] != " "] == ["case", *found.cases]


@pytest.mark.parametrize("text, value", [("5%", 0.05), ("0.05", 0.05), ("12.5%", 0.125)])
def test_the_margin_is_percent_or_a_share(text, value):
    assert share(text) == pytest.approx(value)


def test_a_terminal_is_shown_the_table_beside_the_page_that_a_pipe_is_only_told_of(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "base.json"
    record.write(path, bench_files.benchmark())
    words = [str(path), str(path), "--html", str(tmp_path / "page.html")]
    assert compare.main(words) == 0 and capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert compare.main(words) == 0
    told = capsys.readouterr()
    assert "step/resnet18/b32" in told.out and told.err.endswith("page.html\n")


def test_the_command_compares_and_gates(tmp_path, capsys):
    paths = [tmp_path / name for name in ("base.json", "same.json", "slow.json")]
    for path, (seed, slowdown) in zip(paths, [(0, 1.0), (70, 1.0), (140, 1.2)]):
        record.write(path, bench_files.benchmark(seed, slowdown))
    base, same, slow = map(str, paths)
    assert compare.main([base, same, "--gate", "5%", "--md", "--html", str(tmp_path / "page.html")]) == 0
    assert "| step/resnet18/b32 | 20.0 images/s |" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 5000
    assert compare.main([base, slow, "--gate", "0.5%", "--json"]) == 1
    printed = capsys.readouterr()
    assert "gate 0.5 %: " in printed.err
    assert "slower: slow: step/resnet18/b32 runs at 0.8" in printed.err
    answer = json.loads(printed.out)
    assert math.isclose(answer["cases"]["step/resnet18/b32"][1]["ratio"]["ratio"], 1 / 1.2, rel_tol=0.03)


def test_the_script_runs_from_anywhere(tmp_path, monkeypatch, call_script):
    monkeypatch.chdir(tmp_path)
    assert call_script("benchmarks/compare.py", "none.json") == (2, "", "error: none.json: no such file\n")
