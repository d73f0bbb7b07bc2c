"""A folder of classes without a test set: a share of each class is drawn by name, recorded, and told of."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import elsewhere, write_betons  # noqa: F401  # a fixture of every test

from fastresnet import beton, data, sources
from fastresnet.base.digest import content_digest
from fastresnet.settings import config
from fastresnet.sources import Request, SourceError, flat

COUNTS = {"ant": 10, "bee": 25, "cow": 4}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """COUNTS random images of each class, 8 px, in folders of their own."""
    random = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def listed(photos: Path, split: str, fraction: float = 0.2) -> set[str]:
    """The files of a split, `class/name`."""
    found = sources.load("imagefolder", split, Request(photos, test_fraction=fraction, memory=0))
    assert isinstance(found, sources.FolderSet)
    return {str(path.relative_to(photos)) for path in found.paths}


def settings(photos: Path, **changes: object) -> config.Config:
    return config.load(None, {"data.source": "imagefolder", "data.root": str(photos), **changes})


def test_each_class_gives_its_share_and_every_image_is_in_one_split(photos: Path) -> None:
    train, test = listed(photos, "train"), listed(photos, "test")
    everything = {str(path.relative_to(photos)) for path in photos.rglob("*.png")}
    assert not train & test and train | test == everything
    shares = {name: sum(one.startswith(name) for one in test) for name in COUNTS}
    assert shares == {"ant": 2, "bee": 5, "cow": 1}
    half = listed(photos, "test", 0.5)
    assert len(half) == 5 + 12 + 2 and test < half, "a larger share holds the smaller one"


def test_the_split_follows_from_the_names_so_that_one_image_more_moves_hardly_any(photos: Path) -> None:
    before = listed(photos, "test")
    shutil.copytree(photos, photos.parent / "copy" / "photos")
    assert listed(photos.parent / "copy" / "photos", "test") == before
    for number in range(3):
        shutil.copy(photos / "bee" / "0.png", photos / "bee" / f"new{number}.png")
        after = listed(photos, "test")
        assert len(before - after) <= 1
    shuffled = {number for number in range(25) if f"bee/{number}.png" in before}
    assert shuffled != set(range(5)) and shuffled != set(range(20, 25)), "it is drawn, not cut off"


def test_the_record_and_the_output_say_how_it_was_drawn_and_how_many_are_twice_there(photos: Path) -> None:
    held, kept = sorted(listed(photos, "test"))[0], sorted(listed(photos, "train"))[0]
    (photos / held).write_bytes((photos / kept).read_bytes())
    said: list[str] = []
    splits = data.prepare(settings(photos), said.append)
    assert splits.info["test_drawn"] == {"fraction": 0.2, "seed": 0, "duplicates": 1}
    assert (splits.info["train_size"], splits.info["test_size"]) == (31, 8)
    assert any("20 % of each class are the test set; 1 of them are in training too" in line for line in said)
    again = data.prepare(settings(photos, **{"run.seed": 7}))
    assert again.info["test_digest"] == splits.info["test_digest"], "the same images whatever the run's seed"


def test_both_splits_are_cut_at_once_and_anew_when_a_file_has_changed(photos: Path, monkeypatch) -> None:
    calls, cut = [], flat.held_out
    monkeypatch.setattr(flat, "held_out", lambda *given: (calls.append(given), cut(*given))[1])
    for times in (1, 2):
        train, test = listed(photos, "train", 0.4), listed(photos, "test", 0.4)
        assert len(calls) == times and not train & test
        (photos / "ant" / f"new{times}.png").write_bytes((photos / "ant" / "0.png").read_bytes())


def test_a_folder_that_the_user_named_is_recognised_and_one_that_lies_there_is_not(photos: Path) -> None:
    assert sources.detect(photos) is None and sources.detect(photos, named=True) == "imagefolder"
    assert sources.resolve_auto(root=photos) == ("imagefolder", photos)
    shutil.move(photos, "data")
    assert sources.resolve_auto()[0] == "torchvision"
    (Path("data") / "notes").mkdir()
    with pytest.raises(SourceError, match="data.root=data holds no betons, .* folders of images by class"):
        sources.resolve_auto(root="data")


def test_a_test_set_of_its_own_is_never_cut(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "whole" / split)
    splits = data.prepare(settings(tmp_path / "whole"))
    assert len(splits.train) == len(splits.test) == 39 and "test_drawn" not in splits.info
    with pytest.raises(SourceError, match="data.test_fraction cuts a folder of classes; this data has"):
        data.prepare(settings(tmp_path / "whole", **{"data.test_fraction": 0.3}))


@pytest.mark.parametrize(("harm", "says"), [
    (lambda root: [shutil.rmtree(root / name) for name in ("bee", "cow")], "holds one folder of images"),
    (lambda root: [(root / f"cow/{n}.png").unlink() for n in (1, 2, 3)], "0.png is alone in its class"),
    (lambda root: (root / "dog").mkdir(), "dog is empty: every class needs at least one image"),
])  # fmt: skip
def test_what_cannot_be_cut_is_named(harm, says: str, photos: Path) -> None:
    harm(photos)
    with pytest.raises(SourceError, match=says):
        data.prepare(settings(photos))


def test_another_share_is_another_origin_and_other_betons(photos: Path) -> None:
    one, other = (sources.origin("imagefolder", Request(photos, test_fraction=share)) for share in (0.2, 0.3))
    assert one["test_fraction"] == 0.2 and one != other
    shutil.copytree(photos, photos.parent / "whole" / "train")
    assert "test_fraction" not in sources.origin("imagefolder", Request(photos.parent / "whole"))


def test_a_beton_remembers_how_its_test_set_was_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = {split: (random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % 4)
              for split, n in (("train", 16), ("test", 8))}  # fmt: skip
    drawn = {"fraction": 0.3, "seed": 0, "duplicates": 2}
    folder = write_betons(tmp_path / "mine", images, test_drawn=drawn)
    info = data.prepare(config.load(None, {"data.root": str(folder)})).info
    assert info["test_drawn"] == drawn and info["digest"] == content_digest(*images["train"])
    for wrong in ({"fraction": 0.3}, {**drawn, "seed": "x"}, [1]):
        write_betons(tmp_path / "mine", images, test_drawn=wrong)
        with pytest.raises(beton.BetonError, match="test_drawn three numbers"):
            data.prepare(config.load(None, {"data.root": str(folder)}))
    json.dumps(info)


def test_pipes_and_files_of_other_sizes_are_not_read_for_duplicates(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a.png").write_bytes(b"same")
    (tmp_path / "b.png").write_bytes(b"same")
    (tmp_path / "c.png").write_bytes(b"else")
    a, b, c, pipe = (tmp_path / name for name in ("a.png", "b.png", "c.png", "pipe.png"))
    assert flat.duplicates([a, pipe], [b, c, pipe]) == 1
