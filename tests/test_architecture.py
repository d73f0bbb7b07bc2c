"""The page about the house: its examples, added to a copy of the package, train; its paths exist."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from house import PACKAGE, PAGE, ROOT

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"```(?:python|yaml)\n# (new file|a line in): ?(.*?)\n(.*?)```",
    TEXT.replace("a line in ", "a line in: "),
    re.S,
)
FILES = {place: body for kind, place, body in BLOCKS if kind == "new file"}
LINES = [(*place.split(", "), body) for kind, place, body in BLOCKS if kind == "a line in"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package with every example of the page added: one file and one line each."""
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, root / "fastresnet", ignore=shutil.ignore_patterns("__pycache__"))
    for place, body in FILES.items():
        assert not (root / place).exists(), f"{place} is there already"
        (root / place).write_text(body, encoding="utf-8")
    for place, name, line in LINES:
        text = (root / place).read_text(encoding="utf-8")
        opening = re.search(rf"^{name}\b.*[{{\[]\n", text, re.M)
        assert opening and line.count("\n") == 1, f"{place} has no {name} that takes a line"
        changed = text[: opening.end()] + line + text[opening.end() :]
        (root / place).write_text(changed, encoding="utf-8")
    return root


PROGRAM = """
import sys
from fastresnet import beton
from fastresnet.__main__ import main

beton.can_write = lambda: False
train = "train --config=stripes.yaml --run.dir=out --run.device=cpu --run.report=false --data.kernel=rows"
bench = "bench --only=sorting --scale=tiny --out=bench.json --device=cpu"
sys.exit(main(train.split()) or main(bench.split()))
"""


def test_every_kind_of_part_has_an_example():
    assert len(FILES) == 8 and len(LINES) == 7


def test_all_examples_together_train_a_network_and_are_measured(house):
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, cwd=house, env=environment)
    assert done.returncode == 0, done.stderr
    record = json.loads((house / "out" / "result.json").read_text(encoding="utf-8"))
    assert record["config"]["model"]["arch"] == "perceptron" and record["data"]["name"] == "stripes"
    assert record["accuracy"]["test"] == 1.0
    rates = [row["lr"] for row in record["per_epoch"]]
    assert rates[0] > rates[-1] == pytest.approx(0.001 / 256)
    assert (house / "out" / "best.txt").read_text(encoding="utf-8") == "1.0000\n"
    rows = json.loads((house / "bench.json").read_text(encoding="utf-8"))["cases"]
    assert [row["id"] for row in rows] == ["sorting/sort"] and rows[0]["status"] == "ok"


def test_every_module_and_function_that_the_page_names_exists():
    named = re.findall(r"`((?:\w+/)+\w+\.py)`(?:, `([\w.]+)`)?", TEXT)
    assert len(named) > 30
    for place, function in named:
        path = next((base / place for base in (PACKAGE, ROOT) if (base / place).is_file()), None)
        assert path, f"the page names {place}"
        for word in function.split(".") if function else ():
            assert re.search(rf"\b(def|class) {word}\b|^{word}\b", path.read_text(encoding="utf-8"), re.M), (
                place,
                word,
            )
