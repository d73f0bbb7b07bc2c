"""The README's picture shows what the committed file says."""

import json
import re

import pytest
from browser import title
from house import ROOT

from fastresnet.bench.pages import picture
from fastresnet.machine import hardware

CONTEST = sorted(ROOT.glob("benchmarks/results/loaders/*.json"))[-1]
MOST_RIGHT = """<script>const ends = [...document.querySelectorAll("text")].map(one => {
const box = one.getBBox(); return box.x + box.width; });
document.title = Math.max(...ends) <= document.querySelector("svg").viewBox.baseVal.width</script>"""


@pytest.mark.parametrize("name", ["loaders", "scaling"])
def test_all_words_of_a_committed_picture_are_inside_it(tmp_path, name):
    drawn = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    assert title(tmp_path, drawn + MOST_RIGHT, width=720) == "true"


def test_the_committed_picture_is_the_committed_contest():
    contest = json.loads(CONTEST.read_text(encoding="utf-8"))
    drawn = picture.loaders(contest, hardware.short_name(contest["hardware"]))
    assert (ROOT / "docs" / "loaders.svg").read_text(encoding="utf-8") == drawn, "`make tables` draws it anew"


def test_a_contestant_that_failed_is_left_out_and_names_are_text():
    rate = {"median": 10.0, "p20": 9.0, "p80": 11.0, "n": 3}
    rows = [{"name": "<b>", "ours": True, "status": "ok", "images_per_second": rate}]
    rows.append({"name": "broken", "ours": False, "status": "failed", "images_per_second": None})
    drawn = picture.loaders({"rows": rows, "batch_size": 8, "dtype": "fp32"}, "a machine")
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn and "broken" not in drawn
    assert re.search(r"medians of 3 samples", drawn)


def test_the_readme_says_how_many_times_ffcv_that_is():
    rows = {row["name"]: row for row in json.loads(CONTEST.read_text(encoding="utf-8"))["rows"]}
    rates = {name: row["images_per_second"]["median"] for name, row in rows.items() if row["status"] == "ok"}
    ours, theirs = rates["resident fused"], max(rates[name] for name in rates if name.startswith("ffcv"))
    assert f"{ours / theirs:.1f} times FFCV's rate" in (ROOT / "README.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    told = json.loads(CONTEST.read_text(encoding="utf-8"))
    text = picture.loaders(told, hardware.short_name(told["hardware"]))
    (ROOT / "docs" / "loaders.svg").write_text(text, encoding="utf-8")
