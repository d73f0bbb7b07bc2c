"""docs/tasks.md does what it says: its blocks are executed in their order as they stand, only smaller."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastresnet import __main__ as command

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
TASKS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
SMALL = {
    "train.max_steps": 2, "train.batch_size": 8, "model.width": 0.125, "train.precision": "fp32",
    "train.compile": "off", "run.device": "cpu", "run.progress": "off", "eval.batch_size": 16,
}  # fmt: skip
DRAWN = {"data.source": "synthetic", "data.synthetic_train": 64, "data.synthetic_test": 32}
TINY = {
    "train": [f"--{key}={value}" for key, value in SMALL.items()],
    "bench": ["--processes=1", "--scale=tiny", "--only=ceilings", "--device=cpu", "--budget=600"],
}


def test_ten_tasks_each_have_a_block():
    assert len(TASKS) == 10 and all("```" in text for text in TASKS.values())


def photographs(folder, growth):
    """Two classes of noise, dark and bright, each image higher by `growth` than the one before it."""
    random = np.random.default_rng(0)
    for label, shade in (("night", 40), ("noon", 180)):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            pixels = random.integers(0, 60, (64 + growth * index, 64, 3), dtype=np.uint8) + np.uint8(shade)
            Image.fromarray(pixels).save(folder / label / f"{index}.jpg")


def call(line):
    """A line of the page, run in this process."""
    words = shlex.split(line.partition(" #")[0])
    if words[0] != "fastresnet":
        assert words[0] == "tensorboard"  # which would stay
        return
    name, *rest = words[1:]
    keys = {word.partition("=")[0] for word in rest}
    drawn = [] if any(key.startswith("--data.") for key in keys) else [f"--{k}={v}" for k, v in DRAWN.items()]
    kept = [word for word in rest if not word.startswith("--processes")]
    small = TINY.get(name, []) + (drawn if name == "train" else [])
    more = [word for word in small if word.partition("=")[0] not in keys - {"--processes"}]
    assert command.main([name, *kept, *more]) == 0, line


def execute(block):
    """A Python block of the page; its runs are small."""
    settings = {key: value for key, value in SMALL.items() if key != "model.width"}
    settings |= {} if "data=" in block else DRAWN
    exec(re.sub(r'(fr\.train\("[\w.-]+", \{)(.*?)\}', rf"\1\2, **{settings}}}", block), {"__name__": "page"})


@pytest.mark.slow(60)
def test_the_blocks_do_what_they_say(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ffcv", reason="photographs are streamed by FFCV")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTRESNET_DATA", raising=False)
    photographs(tmp_path / "photos", 4)
    photographs(tmp_path / "others", 0)
    for text in TASKS.values():
        for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.S):
            for line in block.splitlines() if kind == "sh" else ():
                if line.startswith("fastresnet compare"):
                    shutil.copy("here.json", "there.json")
                call(line)
            if kind == "python":
                execute(block)
    done = {path.name for path in tmp_path.rglob("*")}
    assert {"grid.png", "model.onnx", "both.html"} <= done
    assert list(tmp_path.glob("runs/watched/**/events.out.tfevents*"))
    assert "speed94 on H100" in capsys.readouterr().out
    assert command.main(["evaluate", "--checkpoint=runs/tuned", "--json"]) == 0
    judged, record = (
        json.loads(capsys.readouterr().out),
        json.loads(Path("runs/tuned/result.json").read_text()),
    )
    assert judged["top1"] == record["accuracy"]["test"] and judged["digest"] == record["data"]["digest"]
    assert command.main(["export", "--checkpoint=runs/tuned", "--formats=torch"]) == 0
    assert "checked on" in capsys.readouterr().out, "on images that stream"
