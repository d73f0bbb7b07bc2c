"""Conversion, by the script and by training: whole betons with facts beside them, or one clear line."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import betons_by_hand
import numpy as np
import pytest
from PIL import Image

from fastresnet import beton, data, sources
from fastresnet.base.digest import content_digest
from fastresnet.settings import config

ROOT = Path(__file__).parents[1]
CLASSES = ("ant", "bee")


def write_folder(root: Path, train: int = 12, test: int = 4, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            where = root / split / CLASSES[number % 2]
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(where / f"{number:02}.png")
    return root


def convert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    without = {key: value for key, value in os.environ.items() if key != "FASTRESNET_DATA"}
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts/convert.py"), *arguments], cwd=cwd, text=True,
        capture_output=True, env={**without, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow(25)
@pytest.mark.skipif(not beton.can_write(), reason="writing betons needs ffcv")
def test_a_folder_becomes_two_betons_that_training_finds_again(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "insects")
    done = convert("--source=imagefolder", f"--root={root}", "--out=out", "--workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: 12 images written" in done.stderr and "out/train.beton  12 images" in done.stdout
    assert sorted(os.listdir(tmp_path / "out")) == [
        "test.beton",
        "test.beton.json",
        "train.beton",
        "train.beton.json",
    ]
    source = sources.load("imagefolder", "train", sources.Request(root))
    images, labels = beton.read(tmp_path / "out/train.beton")
    assert content_digest(images, labels) == source.digest
    facts, _ = beton.read_sidecar(beton.open_beton(tmp_path / "out/test.beton"))
    assert facts["class_names"] == list(CLASSES) and facts["count"] == 4
    assert np.allclose(facts["mean"], images.mean((0, 1, 2)) / 255)  # of the training set

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/betons").mkdir(parents=True)
    os.rename("out", "data/betons/insects")
    cfg = config.load(None, {"data.source": "imagefolder", "data.root": str(root)})
    notes: list[str] = []
    assert data.prepare(cfg, notes.append).info["digest"] == source.digest
    assert not any("writing" in line for line in notes)
    write_folder(root, seed=1)  # the folder changed: the betons made from it before are not those asked for
    changed = data.prepare(cfg, notes.append)
    assert any("writing 12 images" in line for line in notes) and changed.info["digest"] != source.digest
    assert changed.train.path is not None and changed.train.path.parent.parent == Path("data/betons")


@pytest.mark.skipif(not beton.can_write(), reason="writing betons needs ffcv")
def test_images_of_several_sizes_are_written_and_streamed(tmp_path: Path, monkeypatch, call_script) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    root = write_folder(tmp_path / "insects")
    Image.new("RGB", (40, 30), (9, 9, 9)).save(root / "train/ant/large.png")
    words = ["--mode=jpg", "--max-size=20", "--data.image_size=8", f"--out={tmp_path / 'out'}"]
    code, out, said = call_script("scripts/convert.py", "--source=imagefolder", f"--root={root}", *words)
    assert code == 0, said
    assert f"train [{'#' * 30}] 13/13" in said and said.count("\r") > 2, "a bar, and how long it took"
    assert "next      fastresnet train --config=photos.yaml" in out and "--data.image_size=8" in out
    facts, _ = beton.read_sidecar(beton.open_beton(tmp_path / "out/train.beton"))
    assert facts["name"] == "insects-20px" and facts["origin"]["max_size"] == 20 and facts["mode"] == "jpg"
    shapes = {image.shape for image in beton.each_image(beton.open_beton(tmp_path / "out/train.beton"))}
    assert shapes == {(8, 8, 3), (15, 20, 3)}
    splits = data.prepare(config.load(None, {"data.root": str(tmp_path / "out"), "data.image_size": 8}))
    assert splits.train.images is None and splits.train.image_shape == (15, 20) and len(splits.train) == 13


@pytest.mark.parametrize("arguments, message", [
    (["--source=parquet", "--root=nowhere"], "got nowhere"),
    (["--source=imagefolder"], "data.source=imagefolder needs data.root"),
    (["--source=imagefolder", "--root=empty", "--out=out"], "no class folders under train/"),
    (["--root=empty"], "data.root=empty holds no betons, Parquet shards"),
    (["--source=synthetic", "--data.synthetic_train=999999999999"], "GiB of memory"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, call_script):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTRESNET_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    code, _, said = call_script("scripts/convert.py", *arguments)
    last = said.splitlines()[-1]
    assert code == 2 and message in last and last.startswith("error: ") and "Traceback" not in said, said
    assert not list(tmp_path.rglob("*.beton*"))


def test_verify_describes_a_sound_beton_and_refuses_a_cut_or_changed_one(tmp_path: Path, call_script) -> None:
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(3)]
    path = betons_by_hand.make(tmp_path / "x.beton", images, [0, 1, 2], {1})
    code, output, _ = call_script("scripts/convert.py", f"--verify={path}")
    assert code == 0 and "x.beton: sound; 3 images of 8x8 px (1 jpg, 2 raw), labels 0..2" in output
    assert "nothing to compare with" in output
    whole = path.read_bytes()
    facts = {"name": "three", "split": "train", "digest": "", "class_names": list("abc"), "mean": [0.5] * 3,
             "std": [0.5] * 3, "count": 3, "source": "parquet", "synthetic": False}  # fmt: skip
    betons_by_hand.beside(path, facts)
    assert "three, every byte as it was written" in call_script("scripts/convert.py", f"--verify={path}")[1]
    path.write_bytes(whole[: betons_by_hand.PAGE] + b"\1" + whole[betons_by_hand.PAGE + 1 :])
    code, _, errors = call_script("scripts/convert.py", f"--verify={path}")
    assert code == 2 and "page 0 (samples 0 to 2) is not what was written" in errors
    path.write_bytes(whole[:-1])
    code, _, errors = call_script("scripts/convert.py", f"--verify={path}")
    assert code == 2 and "cut off" in errors


def test_a_shrunk_set_has_its_own_name_digest_and_statistics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images = sources.ImageSet(pixels, np.arange(6) % 2, CLASSES, "cifar10", "train", "parquet")
    small = images.shrunk(4)
    assert small.images.shape == (6, 4, 4, 3) and small.name == "cifar10-4px"
    assert small.digest != images.digest
    by_area = images.images.reshape(6, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(small.images - by_area).max() <= 1  # rounded twice
    assert images.shrunk(8) is images
    root = write_folder(tmp_path / "insects")
    Image.new("RGB", (40, 30)).save(root / "train/ant/large.png")
    listed = sources.load("imagefolder", "train", sources.Request(root, image_size=8))
    shrunk = listed.shrunk(4)
    assert {image.shape for image in shrunk} == {(4, 4, 3), (3, 4, 3)} == set(shrunk.shapes)
    assert shrunk.name == "insects-4px" and listed.shrunk(40) is listed


def test_only_one_conversion_writes_into_a_folder_and_what_a_killed_one_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is played here: what is looked at is who may write when, and what is left."""
    inside, most, order, waiting = [0], [0], [], threading.Event()

    class Played:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def write(self, path, images, labels, *, mode, **options):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            assert waiting.wait(60), "the other one says that it waits"
            order.append(mode)
            path.touch()
            inside[0] -= 1

    monkeypatch.setattr(beton, "Writer", Played)
    root = write_folder(tmp_path / "insects")
    (tmp_path / "out").mkdir()
    names = (".train.beton.1a2b3c4d.tmp", ".train.beton.json.3c4d5e6f.tmp")
    left = [tmp_path / "out" / name for name in names]
    for path in left:
        path.write_bytes(b"half")
    settings = [config.load(None, {"data.write_mode": mode}).data for mode in ("raw", "jpg")]

    def note(line: str) -> None:
        if "waiting for another conversion" in line:
            waiting.set()

    with ThreadPoolExecutor(2) as pool:
        convert = partial(data.convert, "imagefolder", str(root), out=tmp_path / "out", notes=note)
        runs = [pool.submit(convert, one) for one in settings]
        for run in runs:
            run.result()
    assert most[0] == 1 and order in (["raw", "raw", "jpg", "jpg"], ["jpg", "jpg", "raw", "raw"])
    assert sorted(os.listdir(tmp_path / "out")) == ["test.beton", "train.beton"]


def test_without_ffcv_converting_says_what_is_missing(tmp_path: Path, monkeypatch, call_script) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ffcv", None)
    code, _, said = call_script("scripts/convert.py", "--source=synthetic")
    assert code == 2 and "needs ffcv: run scripts/setup.sh" in said
