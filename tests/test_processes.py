"""processes: a suite repeated in fresh processes gives one file; its samples say which process made them."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import bench_files
import gate_drill
import pytest
from house import PACKAGE, ROOT

from fastresnet.base import exits
from fastresnet.bench.commands import run
from fastresnet.bench.judging import comparison
from fastresnet.bench.measuring import file, processes


def once(values, rate=None, status="ok"):
    figures = {"images_per_second": rate or 1.0, "kernel": "fused"}
    made = bench_files.row("step", "one", [values], figures=figures)
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


# ---- two checkouts in turns --------------------------------------------------------------------------------


def test_what_failed_on_one_side_counts_on_none_in_that_round():
    good, bad, other = once([1.0]), once([1.0], status="skipped"), once([2.0]) | {"id": "step/other"}
    files = [[{"cases": [good, other]}, {"cases": [good]}], [{"cases": [bad]}, {"cases": [good]}]]
    left = processes._measured_by_all(files)
    assert left[0] == [{"cases": [other]}, {"cases": [good]}]  # the case that one side never has stays
    assert left[1] == [{"cases": []}, {"cases": [good]}]


def test_turns_go_to_and_fro_where_the_data_of_this_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTRESNET_DATA", "sets")
    order = []
    monkeypatch.setattr(processes, "_files_of", lambda command, path, home, to: order.append(home.name) or ())
    monkeypatch.setattr(file, "read", lambda path: bench_files.benchmark())
    made = list(processes.in_turns(["bench"], [Path("a"), Path("b")], 3, tmp_path / "work"))
    assert order == list("abbaab")
    assert [[one["processes_done"] for one in files] for files in made] == [[1, 1], [2, 2], [3, 3]]
    assert len({one["turns"] for files in made for one in files}) == 1
    assert (tmp_path / "work" / "data").resolve() == tmp_path / "data"
    assert processes.environment()["FASTRESNET_DATA"] == str(tmp_path / "sets")


WORKER = """
import json, sys, time
from fastresnet.machine import timing
turns, spans = timing.turns(), []
began, real = turns.clock(), time.perf_counter()
for _ in range(3):
    start = time.perf_counter()
    while time.perf_counter() - start < 0.03:
        pass
    spans.append([start, time.perf_counter()])
    if "1-" in sys.argv[-1]:
        sys.exit(3)
    assert not turns.pass_on(10) and turns.pass_on()
json.dump([spans, turns.clock() - began, time.perf_counter() - real], open(sys.argv[-1], "w"))
"""


def test_of_the_processes_of_a_round_one_works_at_a_time(tmp_path):
    paths = [tmp_path / name for name in ("0-0.json", "0-1.json")]
    processes._round([sys.executable, "-c", WORKER], [(ROOT, path) for path in paths], tmp_path)
    (first, *clocks), (second, *_) = (json.loads(path.read_text()) for path in paths)
    spans = sorted([*((*span, 0) for span in first), *((*span, 1) for span in second)])
    assert [side for *_, side in spans] == [0, 1, 0, 1, 0, 1]
    assert all(one[1] <= two[0] for one, two in zip(spans, spans[1:]))
    counted, real = clocks
    assert 0.08 < counted < real - 0.08  # what it waited doesn't count


def test_a_process_that_ends_early_holds_up_no_other_and_is_told(tmp_path):
    paths = [tmp_path / name for name in ("0-0.json", "1-1.json")]
    with pytest.raises(RuntimeError, match="exit code 3 and left no file"):
        processes._round([sys.executable, "-c", WORKER], [(ROOT, path) for path in paths], tmp_path)
    assert len(json.loads(paths[0].read_text())[0]) == 3


@pytest.fixture
def other_checkout(tmp_path):
    """A copy of the package whose every FLOP counts a thousandfold, beside no data."""
    home = tmp_path / "other"
    shutil.copytree(PACKAGE, home / "fastresnet", ignore=shutil.ignore_patterns("__pycache__"))
    ceilings = home / "fastresnet" / "bench" / "measuring" / "cases" / "ceilings.py"
    text, found = gate_drill.LINE.subn(r"\g<0>\1flops *= 1000\n", ceilings.read_text("utf-8"))
    assert found == 1
    ceilings.write_text(text, "utf-8")
    return home


@pytest.mark.slow(30)
def test_two_checkouts_take_turns_on_the_machine_and_give_two_files(tmp_path, other_checkout, monkeypatch):
    monkeypatch.chdir(ROOT)  # where this checkout's package lies, too
    out = tmp_path / "here.json"
    arguments = ["--scale", "tiny", "--device", "cpu", "--only", "ceilings", "--budget", "600"]
    turns = [f"--against={other_checkout}", "--processes=3", "--gate=5%", f"--out={out}"]
    assert run.main([*arguments, *turns]) == 1, "the other one claims to be a thousand times as fast"
    here, there = file.read(out), file.read(tmp_path / "here-against.json")
    assert here["turns"] == there["turns"] and file.unfinished(here) is None
    assert here["processes_done"] == there["processes_done"] == 3
    assert there["git"]["commit"] is None  # a copy outside any work tree
    rows = [{row["id"]: row for row in one["cases"]} for one in (here, there)]
    product = "ceilings/cpu/matmul-fp32"
    assert file.median_of(rows[1][product]) > 100 * file.median_of(rows[0][product])
    assert [len(row[product]["processes"]) for row in rows] == [3, 3]
    found = comparison.compare([there, here], ["there", "here"])
    assert found.cases[product][1].verdict == "slower" and not any("apart" in text for text in found.warnings)


def test_a_commit_is_checked_out_beside_this_tree_for_as_long_as_it_is_needed(tmp_path, monkeypatch):
    """In a work tree of its own, with a package of one file."""
    home = tmp_path / "home"
    (home / "fastresnet").mkdir(parents=True)
    (home / "fastresnet" / "__main__.py").write_text("first = 1\n")
    git(home, "init", "-q")
    git(home, "add", ".")
    git(home, "commit", "-q", "-m", "first")
    (home / "fastresnet" / "__main__.py").write_text("changed = 1\n")
    monkeypatch.setattr(processes, "PACKAGE_HOME", home)
    with processes.checkout("HEAD") as folder:
        assert (folder / "fastresnet" / "__main__.py").read_text() == "first = 1\n"
    assert not folder.exists() and git(home, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("against", ["no-such-place", ".", "HEAD~99999", "--force"])
def test_what_is_no_checkout_and_no_commit_is_refused_before_anything_runs(
    against, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exits.exit_code(run.main, [f"--against={against}", "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert f"--against {against}: no folder with a checkout of fastresnet, and no commit" in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_too_few_rounds_for_a_gate_are_refused(capsys):
    assert exits.exit_code(run.main, ["--against=HEAD", "--processes=2"]) == 2
    assert "--against needs --processes 3 or more, got 2" in capsys.readouterr().err


def git(home, *words):
    person = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", home, *person, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("slowdown", "code"), [(1.0, 0), (1.2, 1)])
def test_a_gate_measures_the_last_commit_in_turns_and_judges(tmp_path, monkeypatch, capsys, slowdown, code):
    """What the turns measure is made up; who takes them and who is judged by whom is not."""
    asked = []

    def measured(command, homes, count, folder):
        asked.append(count)
        yield [bench_files.benchmark(7, slowdown), bench_files.benchmark()]

    @contextlib.contextmanager
    def checkout(against):
        asked.append(against)
        yield tmp_path

    monkeypatch.setattr(processes, "checkout", checkout)
    monkeypatch.setattr(processes, "in_turns", measured)
    assert run.main(["--gate=5%", "--device=cpu", f"--out={tmp_path / 'ours.json'}"]) == code
    assert asked == ["HEAD", run.ROUNDS]
    told = capsys.readouterr().err
    assert ("slower: ours: step/resnet18/b32 runs at 0.8" in told) == bool(code) and "gate 5 %: " in told
