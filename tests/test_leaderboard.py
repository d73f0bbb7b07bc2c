"""leaderboard: the committed pages say what the committed files say, and stale ones are found."""

import itertools
import json
import re

import bench_files
import pytest
import test_record

from fastresnet.bench import places
from fastresnet.bench.commands import leaderboard as command
from fastresnet.bench.pages import leaderboard, predicted, tables
from fastresnet.reports import charts
from fastresnet.runs import record

README = """# Title
<!-- begin: records -->
old
<!-- end: records -->
between
<!-- begin: results -->
<!-- end: results -->
<!-- begin: loaders -->
<!-- end: loaders -->
end
"""


def a_record(synthetic: bool = False) -> dict:
    file, made = bench_files.benchmark(), test_record.a_record()
    made["summary"] |= {"n": 200, "ci95": 0.0002, "p_value": 0.001}
    made["runs"] = made["runs"][:1]
    published = {"source": "airbench94_muon", "accuracy": 0.94, "seconds": 2.59, "machine": "one A100"}
    rival = {"name": "airbench94", "published": published, "runs": list(made["runs"])}
    rival["summary"] = made["summary"] | {"seconds_mean": 0.9}
    machine = {key: file[key] for key in ("hardware", "software", "git")}
    return made | machine | {"data": file["data"] | {"synthetic": synthetic}, "rivals": [rival]}


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def test_the_committed_pages_are_what_the_committed_files_say():
    for path, text in leaderboard.rendered(places.ROOT).items():
        assert path.read_text("utf-8") == text, f"{path} is stale: run python benchmarks/leaderboard.py"


def test_an_empty_repository_says_that_there_is_nothing_yet(repository):
    assert command.main(["--root", str(repository)]) == 0
    assert (
        "<!-- begin: records -->\nNone yet.\n<!-- end: records -->\nbetween\n"
        in (repository / "README.md").read_text()
    )
    assert command.main(["--root", str(repository), "--check"]) == 0


def test_records_rivals_and_machines_stand_in_readme_and_page(repository):
    record.write(repository / "benchmarks" / "records" / "speed94" / "record.json", a_record())
    record.write(repository / "benchmarks" / "results" / "cpu.json", bench_files.benchmark())
    assert command.main(["--root", str(repository), "--check"]) == 1
    assert command.main(["--root", str(repository)]) == 0
    readme = (repository / "README.md").read_text()
    figures = "94 % met, p=0.001 | 0.71 ±0.01 s | 94.02 ±0.14 % | 200 |"
    assert f"| [speed94](benchmarks/records/speed94/README.md) | 2 cores Test CPU | {figures}" in readme
    assert "| airbench94 (rival, same machine and session; published: airbench94_muon) |" in readme
    raw = "[2 cores Test CPU](benchmarks/results/cpu.json)"
    assert f"| {raw} | standard | 5 | 100 GFLOP/s (fp32) |" in readme
    page = (repository / "docs" / "index.html").read_text()
    assert "94.02 ±0.14 %" in page and "http" not in page.replace("http://www.w3.org", "")
    assert 'href="../benchmarks/records/speed94/README.md"' in page


def test_what_others_published_is_set_apart_and_its_points_are_hollow(repository):
    record.write(repository / "benchmarks" / "records" / "speed94" / "record.json", a_record())
    told = "racer: {accuracy: 0.96, seconds: 27.3, machine: one A100, source: someone}\n"
    (repository / "benchmarks" / "published.yaml").write_text(told)
    command.main(["--root", str(repository)])
    page = (repository / "docs" / "index.html").read_text()
    assert "none of it was measured here" in page and "published: someone" in page
    assert page.count('class="dot s6 hollow"') == 1 and page.count('class="dot s0"') == 2
    assert page.count('class="point s') == 3 and ">racer</text>" in page, "points are named"
    assert "racer" not in (repository / "README.md").read_text()


def test_a_record_leads_to_its_raw_data(repository):
    record.write(repository / "benchmarks" / "records" / "speed94" / "record.json", a_record())
    (repository / "benchmarks" / "records" / "speed94" / "runs.jsonl").write_text("")
    command.main(["--root", str(repository)])
    page = (repository / "docs" / "index.html").read_text()
    for name in ("README.md", "record.json", "runs.jsonl"):
        assert f'href="../benchmarks/records/speed94/{name}"' in page


def test_a_prediction_says_so_with_its_range_and_what_it_assumes(repository):
    (repository / "benchmarks").mkdir()
    (repository / "benchmarks" / "predicted.yaml").write_text("cpu.yaml: [T4]\n")
    command.main(["--root", str(repository)])
    page, readme = (repository / name for name in ("docs/index.html", "README.md"))
    text = page.read_text()
    assert "predicted, not measured" in text and "aims at" in text and ">85 %<" in text
    assert "no result of a cuda device is here" in text and "1x T4" not in readme.read_text()
    fast, slow = map(float, re.search(r"<div>([\d.]+) to ([\d.]+) s<", text).groups())
    left, right = map(float, re.search(r'class="span s1" x1="([\d.]+)" x2="([\d.]+)"', text).groups())
    dot = float(re.search(r'class="dot s1 hollow" cx="([\d.]+)"', text)[1])
    assert 0 < fast < slow and left < dot < right and ">cpu, T4</text>" in text


def test_a_prediction_without_a_target_is_refused():
    with pytest.raises(ValueError, match="smoke.yaml has no eval.target"):
        predicted.predict("smoke.yaml", "T4", [])


@pytest.mark.parametrize("mean, spread, n, text", [
    (129.85, 1.99, 3, "130 ±2 s"), (0.71234, 0.01, 200, "0.71 ±0.01 s"), (8.534, 0.4, 4, "8.5 ±0.4 s"),
    (848.53, None, 1, "849 s"), (1.8284, None, 1, "1.83 s"), (None, None, 0, "-"),
])  # fmt: skip
def test_a_time_has_no_more_digits_than_its_runs_support(mean, spread, n, text):
    assert tables.measured(mean, spread, n, "s") == text


def test_names_of_points_that_lie_together_do_not_cover_each_other():
    points = [(2.0, 6.0), (2.01, 6.0), (2.02, 6.01)]
    series = charts.Series("some", points, line=False, labels=["first", "second", "third"], named=True)
    drawn = charts.chart("title", "", [series], "seconds", log=True)
    found = re.findall(r'class="point s0" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(\w+)', drawn)
    places = [
        (float(x) - (anchor == "end") * 8 * len(name), float(y), 8 * len(name))
        for x, y, anchor, name in found
    ]
    assert len(places) == 3
    for (a, up, wide), (b, down, broad) in itertools.combinations(places, 2):
        assert abs(up - down) >= 12 or a + wide < b or b + broad < a


def test_synthetic_data_is_marked(repository):
    record.write(repository / "benchmarks" / "records" / "x" / "record.json", a_record(synthetic=True))
    command.main(["--root", str(repository)])
    assert "[speed94 (synthetic data)]" in (repository / "README.md").read_text()


def test_a_readme_without_marks_is_refused(repository):
    (repository / "README.md").write_text("# Title\n")
    with pytest.raises(ValueError, match="README.md needs the marks"):
        leaderboard.rendered(repository)


def test_an_invalid_record_is_refused_by_name(repository):
    record.write(repository / "benchmarks" / "results" / "cpu.json", bench_files.benchmark())
    path = repository / "benchmarks" / "results" / "cpu.json"
    path.write_text(path.read_text().replace('"cases"', '"case"'))
    with pytest.raises(ValueError, match="cpu.json: not a valid benchmark: cases is missing"):
        leaderboard.rendered(repository)


def test_failed_runs_are_counted_and_no_target_is_met_with_one(repository):
    made = a_record()
    failed = {"seed": 1, "status": "failed", "accuracy": None, "accuracy_tta": None}
    made["runs"].append(failed | {"seconds": {"total": 0.1}})
    made["summary"] |= {"n": 199, "failed": 1}
    record.write(repository / "benchmarks" / "records" / "x" / "record.json", made)
    command.main(["--root", str(repository)])
    line = next(line for line in (repository / "README.md").read_text().splitlines() if "[speed94]" in line)
    assert line.endswith("| 199, 1 failed |") and "| 94 % not met: 1 of 200 runs failed |" in line


def test_a_record_that_is_cut_off_says_so(repository):
    made = a_record() | {"runs_planned": 300, "runs_done": 200}
    record.write(repository / "benchmarks" / "records" / "x" / "record.json", made)
    command.main(["--root", str(repository)])
    assert "| 94 % not judged: 200 of 300 runs done |" in (repository / "README.md").read_text()


def test_loaders_stand_beside_ffcvs_and_one_that_failed_says_why(repository):
    speed = {"median": 200.0, "p20": 190.0, "p80": 210.0, "n": 5}
    row = {"status": "ok", "images_per_second": speed, "first_batch_seconds": 0.5, "host_cpu_cores": 1.5}
    half = {**row, "name": "ffcv", "images_per_second": {**speed, "median": 100.0}}
    failed = {**row, "name": "dali", "images_per_second": None, "status": "its batches differ"}
    absent = {**failed, "name": "other", "status": "ModuleNotFoundError: No module named 'other'"}
    made = {"hardware": bench_files.benchmark()["hardware"], "dtype": "fp32", "batch_size": 64,
            "rows": [{**row, "name": "resident"}, half, failed, absent]}  # fmt: skip
    folder = repository / "benchmarks" / "results" / "loaders"
    folder.mkdir(parents=True)
    (folder / "here.json").write_text(json.dumps(made))
    command.main(["--root", str(repository)])
    readme = (repository / "README.md").read_text()
    where = "[2 cores Test CPU, fp32, batch 64](benchmarks/results/loaders/here.json)"
    assert f"| resident | {where} | 200 | 190 to 210 | 5 | 500 ms | 2.00 times | 1.50 |" in readme
    assert f"| dali | {where} | its batches differ | - | - | - | - | - |" in readme
    assert "other" not in readme


def test_names_in_a_record_bring_no_html_into_the_readme(repository):
    made = a_record()
    made["rivals"][0]["name"] = made["recipe"] = "<img src=x onerror=alert(1)>|\n# owned"
    record.write(repository / "benchmarks" / "records" / "x" / "record.json", made)
    assert command.main(["--root", str(repository)]) == 0
    readme = (repository / "README.md").read_text()
    assert (
        "&lt;img src=x onerror=alert(1)&gt;/" in readme and "<img" not in readme and "\n# owned" not in readme
    )
