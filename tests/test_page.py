"""page: it says what compare found, and a real browser shows it: light, dark, narrow, sorted, filtered."""

import re
from html import unescape

import bench_files
import pytest
from browser import DARK, browse, title
from PIL import Image

from fastresnet.bench import places
from fastresnet.bench.judging import comparison
from fastresnet.bench.pages import case_names, compare_page, leaderboard

PROBE = """<script>
window.problems = [];
window.onerror = function (m) { window.problems.push(String(m)); };
</script>"""
# after loading: sort by speed, filter, and write what is seen into the title
ACT = """<script>
(function () {
  var steps = document.querySelectorAll(".cases")[2], folded = !steps.closest("details").open;
  steps.querySelectorAll("th")[3].click();
  var first = steps.querySelector("tbody tr").dataset.id;
  var search = document.getElementById("search");
  search.value = "step b32"; search.dispatchEvent(new Event("input"));
  var left = document.querySelectorAll("details:not([hidden])").length;
  folded = folded && steps.closest("details").open && left === 1;
  var wide = document.documentElement.scrollWidth > window.innerWidth;
  document.title = "problems:" + window.problems.join(";") + " first:" + first + " count:"
    + document.getElementById("count").textContent + " folded:" + folded + " wide:" + wide;
})();
</script>"""


def a_page() -> str:
    slow = bench_files.benchmark(7, 3.0, "Other CPU")
    changed = next(row for row in slow["cases"] if row["id"] == "step/resnet18/b8")
    changed["samples"] = bench_files.samples(1, 40.0)
    found = comparison.compare([bench_files.benchmark(), slow], ["Base <machine>", "Other CPU"])
    return compare_page.render(found)


def test_the_page_is_one_file_that_loads_nothing():
    text = a_page()
    assert not re.search(r'(src|href)\s*=\s*"(?!#)', text) and "url(" not in text and "@import" not in text
    assert "Base &lt;machine&gt;" in text and "<machine>" not in text


def test_the_largest_changes_come_first_and_every_group_folds():
    changes, groups = a_page().split("<h2>Cases</h2>")
    changes = changes.split("<h2>Largest changes</h2>")[1]
    names = re.findall(r'data-id="([^"]+)"', changes)
    assert names[0] == "step/resnet18/b8" and 1 < len(names) <= compare_page.CHANGES
    assert groups.count("<details") == 5 and "<details open" not in groups
    in_steps = re.findall(r'data-id="(step/[^"]+)"', groups)
    assert in_steps[0] == "step/resnet18/b8"
    assert in_steps[-1] == "step/resnet50/largest", "no ratio comes last"


A_STEP = {"model": "resnet18", "work": "step", "batch_size": 32, "precision": "bf16", "compile": "off"}
A_PASS = {"model": "speednet", "work": "forward", "batch_size": "largest", "precision": "fp32"}


@pytest.mark.parametrize("part, name, settings, text", [
    ("step", "x", A_STEP | {"memory_format": "contiguous"}, "ResNet-18 training step, batch 32, bf16, NCHW"),
    ("step", "x", A_PASS | {"memory_format": "channels_last", "compile": "default"},
     "speednet forward pass, largest batch, fp32, channels last, compiled (default)"),
    ("ceilings", "cpu/matmul-bf16", {}, "matrix product, bf16"),
    ("ceilings", "cpu/launch", {}, "launch of a kernel"),
    ("ceilings", "cuda/memory-copy", {}, "memory copy"),
    ("loader", "resident/crop+flip", {}, "resident: crop+flip"),
    ("endtoend", "epoch/cpu.yaml", {}, "epoch: cpu"),
])  # fmt: skip
def test_a_case_has_a_name_that_people_read(part, name, settings, text):
    assert case_names.readable({"part": part, "name": name, "settings": settings}) == text


def test_the_style_sheet_is_whole():
    """Balanced, and no line of it lost to a comment that CSS doesn't know."""
    css = (places.ROOT / "fastresnet/bench/pages/assets/pages.css").read_text(encoding="utf-8")
    assert css.count("{") == css.count("}") and css.count("/*") == css.count("*/")
    assert not re.search(r"^\s*#\s", css, re.M) and "\\25BC" in css


def test_files_of_one_process_are_not_said_to_agree():
    files = [bench_files.benchmark(seed) for seed in (0, 7)]
    for file in files:
        for row in file["cases"]:
            row.pop("processes", None)
    text = compare_page.render(comparison.compare(files, ["one", "two"]))
    assert "<b>not judged</b>" in text and "Nothing was told from noise" in text
    assert "0 slower" not in text and "No case differs" not in text


def test_every_case_and_picture_is_there():
    text = unescape(a_page())
    wanted = "step/resnet18/b32|0.33x|out of memory|Throughput by batch size|Roofline|Time to accuracy|Energy"
    wanted += "|0.5 J|compute: its ceiling differs 0.33x|prefers-color-scheme: dark"
    assert not [words for words in wanted.split("|") if words not in text]
    assert text.count("<polyline") >= 4


def test_a_page_as_narrow_as_a_phone_s_is_shown_so(tmp_path):
    look = "<script>document.title = [innerWidth, matchMedia('(max-width: 390px)').matches]</script>"
    assert title(tmp_path, look, width=390) == "390,true"


def test_a_browser_sorts_and_filters_without_errors_and_a_phone_scrolls_only_down(tmp_path):
    text = a_page().replace("<head>", "<head>" + PROBE).replace("</body>", ACT + "</body>")
    assert title(tmp_path, text, width=390) == (
        "problems: first:step/resnet18/b8 count:1 of 10 cases folded:true wide:false"
    )


def test_the_leaderboard_shows_target_and_time_on_a_phone_without_scrolling_sideways(tmp_path):
    text = leaderboard.rendered(places.ROOT)[places.ROOT / "docs" / "index.html"]
    look = """<script>
    var cells = Array.from(document.querySelectorAll(".rows td")).filter(function (cell) {
      return cell.offsetParent && cell.getBoundingClientRect().right <= window.innerWidth; });
    document.title = "wide:" + (document.documentElement.scrollWidth > window.innerWidth) + " shown:"
      + ["target", "time \u00b1 sd"].map(function (name) {
        return cells.some(function (cell) { return cell.dataset.label === name; }); });
    </script>"""
    shown = title(tmp_path, text.replace("</body>", look + "</body>"), width=390)
    assert shown == "wide:false shown:true,true"


def test_a_screenshot_shows_text_and_lines_in_light_and_dark(tmp_path):
    for scheme, back in (("light", (255, 255, 255)), ("dark", (0x14, 0x17, 0x1A))):
        shot = tmp_path / f"{scheme}.png"
        dark = DARK[:1] if scheme == "dark" else ()
        browse(tmp_path, a_page(), f"--screenshot={shot}", *dark, width=390, height=700)
        with Image.open(shot) as picture:
            seen = {colour for _, colour in picture.convert("RGB").getcolors(390 * 700)}
            assert picture.size == (390, 700) and len(seen) > 30
        assert back in seen, f"{scheme}: the background isn't {back}"
