"""From settings to data: the order of auto, betons found or refused, subset, validation, facts."""

import json
import os
from dataclasses import replace
from pathlib import Path

import betons_by_hand
import numpy as np
import pytest
import torch

from fastresnet import beton, data, sources
from fastresnet.base.digest import content_digest
from fastresnet.data import conversion, cutting, finding, jpeg, reading
from fastresnet.settings import config
from fastresnet.sources import SourceError, downloads

Images = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, no FASTRESNET_DATA, and no ffcv unless a test asks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTRESNET_DATA", raising=False)
    monkeypatch.setattr(beton, "can_write", lambda: False)


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    return {split: (rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % 4)
            for split, n in (("train", 40), ("test", 12))}  # fmt: skip


def write_betons(folder: Path, images: Images, *, sidecar: bool = True, **facts) -> Path:
    """train.beton and test.beton with sidecars, made by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = conversion.statistics(images["train"][0])
    for split, (pixels, labels) in images.items():
        path = betons_by_hand.make(folder / f"{split}.beton", list(pixels), labels.tolist())
        if sidecar:
            betons_by_hand.beside(path, {
                "name": "mine", "split": split, "digest": content_digest(pixels, labels),
                "class_names": list("abcd"), "mean": list(mean), "std": list(std), "count": len(labels),
                "source": "parquet", "synthetic": False, "mode": "raw", **facts,
            })  # fmt: skip
    return folder


def settings(**changes) -> config.Config:
    return config.load(None, {f"data.{key}": value for key, value in changes.items()})


def test_betons_given_by_path_need_no_source_and_no_ffcv(images: Images, tmp_path: Path) -> None:
    folder = write_betons(tmp_path / "mine", images)
    notes: list[str] = []
    given = settings(train=str(folder / "train.beton"), test=str(folder / "test.beton"))
    splits = data.prepare(given, notes.append)
    assert np.array_equal(splits.train.images, images["train"][0])
    assert len(splits.test) == 12 and splits.val is None
    assert splits.class_names == ("a", "b", "c", "d") and splits.train.path == folder / "train.beton"
    assert np.allclose(splits.mean, images["train"][0].mean((0, 1, 2)) / 255)
    assert np.allclose(splits.std, images["train"][0].std((0, 1, 2)) / 255)
    expected = {"name": "mine", "synthetic": False, "train_size": 40, "beton": True}
    expected["digest"] = content_digest(*images["train"])
    assert {key: splits.info[key] for key in expected} == expected
    assert notes[-1] == "data: mine (parquet), 40 training and 12 test images"


def test_a_beton_without_a_sidecar_speaks_for_itself(images: Images, tmp_path: Path) -> None:
    folder = write_betons(tmp_path / "mine", images, sidecar=False)
    splits = data.prepare(settings(root=str(folder)))
    assert (splits.info["name"], splits.info["source"]) == ("mine", "beton")
    assert splits.class_names == tuple("0123")
    assert splits.info["digest"] == content_digest(*images["train"])


def flip(path: Path, at: int, count: int = 1) -> None:
    """Turn one bit of `count` bytes."""
    content = bytearray(path.read_bytes())
    content[at : at + count] = bytes(byte ^ 4 for byte in content[at : at + count])
    path.write_bytes(content)


@pytest.mark.parametrize("jpegs", [set(), set(range(40))], ids=["raw", "jpg"])
def test_every_bit_that_is_read_is_compared_with_what_was_written(images: Images, jpegs, tmp_path: Path):
    folder = write_betons(tmp_path / "mine", images)
    pixels, labels = images["train"]
    path = betons_by_hand.make(folder / "train.beton", list(pixels), labels.tolist(), jpegs)
    betons_by_hand.beside(path, json.loads(beton.sidecar_path(path).read_text()))
    layout, rng = beton.open_beton(path), np.random.default_rng(0)
    data.prepare(settings(root=str(folder)))
    used = int((layout.pointers + layout.sizes).max())
    for at in [layout.data_start, used - 1, *rng.integers(layout.data_start, used, 10).tolist()]:
        flip(path, at)
        with pytest.raises(beton.BetonError, match=r"train\.beton: page 0 \(samples 0 to 39\) is not"):
            data.prepare(settings(root=str(folder)))
        flip(path, at)
    for at in rng.integers(0, betons_by_hand.FIELDS_END + 40 * betons_by_hand.STRIDE, 20).tolist():
        flip(path, at)
        with pytest.raises(beton.BetonError):
            data.prepare(settings(root=str(folder)))
        flip(path, at)
    data.prepare(settings(root=str(folder)))


def test_an_edited_sidecar_is_refused_and_a_resealed_one_does_not_make_cifar10(images, tmp_path):
    folder = write_betons(tmp_path / "mine", images, synthetic=True, name="synthetic-8px")
    sidecar = beton.sidecar_path(folder / "train.beton")
    text = sidecar.read_text()
    for old, new in (("true", "false"), ("synthetic-8px", "cifar10"), ('"count": 40', '"count": 41')):
        sidecar.write_text(text.replace(old, new))
        with pytest.raises(beton.BetonError, match="was edited since it was written"):
            data.prepare(settings(root=str(folder)))
    folder = write_betons(tmp_path / "mine", images, name="cifar10")
    with pytest.raises(beton.BetonError, match="is called cifar10, and its digest isn't"):
        data.prepare(settings(root=str(folder)))
    folder = write_betons(tmp_path / "mine", images, name="cifar10", digest=sources.CIFAR10_DIGESTS["train"])
    with pytest.raises(beton.BetonError, match="its images are not those that its sidecar speaks of"):
        data.prepare(settings(root=str(folder)))


def test_the_record_says_what_was_hashed_not_what_the_jpegs_were_made_of(images, tmp_path):
    pixels, labels = images["train"]
    folder = write_betons(tmp_path / "mine", images)
    path = betons_by_hand.make(folder / "train.beton", list(pixels), labels.tolist(), set(range(40)))
    facts = json.loads(beton.sidecar_path(path).read_text()) | {"mode": "jpg", "quality": 90}
    betons_by_hand.beside(path, {key: facts[key] for key in facts if key != "stored_digest"})
    info = data.prepare(settings(root=str(folder))).info
    encoded = [np.frombuffer(betons_by_hand.jpeg(image), np.uint8) for image in pixels]
    assert info["digest"] == content_digest(encoded, labels)
    assert info["source_digest"] == content_digest(pixels, labels) and info["jpeg_quality"] == 90
    assert info["checked"] == "all bytes, with the checksums beside them"


def test_betons_of_another_mode_or_quality_than_asked_for_are_not_used_again(images, tmp_path):
    write_betons(tmp_path / "data/betons/svhn", images, name="svhn", mode="jpg", quality=95)
    wanted = {"name": "svhn", "synthetic_train": 30, "synthetic_test": 10}
    assert data.prepare(settings(**wanted)).info["name"] == "svhn"
    assert data.prepare(settings(**wanted, write_mode="jpg", jpeg_quality=95)).info["name"] == "svhn"
    for other in ({"write_mode": "raw"}, {"jpeg_quality": 10}, {"write_mode": "jpg", "jpeg_quality": 90}):
        cfg = settings(**wanted, **other, source="auto", root=None)
        kept = reading.Wanted(cfg.data, frozenset(other), None, print)
        assert finding._made_before(kept, lambda facts: True) is None


def test_a_subset_is_another_data_set(images, tmp_path, monkeypatch):
    folder = str(write_betons(tmp_path / "mine", images))
    splits = data.prepare(settings(root=folder, subset=20))
    pixels, labels = images["train"][0][splits.train.indices], images["train"][1][splits.train.indices]
    assert splits.info["name"] == "mine-20" and splits.info["digest"] == content_digest(pixels, labels)
    assert (splits.mean, splits.std) == conversion.statistics(pixels)
    streamed = data.prepare(settings(root=folder, subset=20, loader="ffcv"))
    assert streamed.train.images is None and streamed.info["digest"] == splits.info["digest"]
    assert streamed.info["checked"].startswith("each page when it is first read")
    assert (streamed.mean, streamed.std) == (splits.mean, splits.std) and streamed.info["counted"] == 20
    monkeypatch.setattr(cutting, "COUNTED", 7)
    some = data.prepare(settings(root=folder, subset=20, loader="ffcv"))
    assert some.info["counted"] == 7 and some.mean == conversion.statistics(pixels[::3])[0]
    assert data.prepare(settings(root=folder)).info["counted"] == 40


def test_a_sidecar_of_another_beton_is_an_error(images: Images, tmp_path: Path) -> None:
    folder = write_betons(tmp_path / "mine", images)
    betons_by_hand.make(folder / "train.beton", list(images["train"][0]), (3 - images["train"][1]).tolist())
    with pytest.raises(beton.BetonError, match="belongs to another beton"):
        data.prepare(settings(root=str(folder)))


def test_auto_takes_betons_made_before_then_the_named_folder(images, tmp_path, monkeypatch):
    other = {split: (255 - pixels, labels) for split, (pixels, labels) in images.items()}
    monkeypatch.setenv("FASTRESNET_DATA", str(write_betons(tmp_path / "named", other, name="other")))
    assert data.prepare(settings()).info["name"] == "other"
    write_betons(tmp_path / "data/betons/svhn", images, name="svhn")
    assert data.prepare(settings(name="svhn")).info["name"] == "svhn"
    assert data.prepare(settings(name="cifar100")).info["name"] == "other"
    write_betons(tmp_path / "data/betons/svhn", images, name="synthetic-8px", synthetic=True)
    found = data.prepare(settings(name="svhn")).info["name"]
    assert found == "other", "synthetic betons don't stand in for real ones"


def test_broken_betons_made_before_are_passed_over_and_told_of(images, tmp_path, monkeypatch):
    folder = write_betons(tmp_path / "data/betons/mine", images)
    (folder / "train.beton").write_bytes((folder / "train.beton").read_bytes()[:-1])
    monkeypatch.setenv("FASTRESNET_DATA", str(write_betons(tmp_path / "named", images, name="other")))
    notes: list[str] = []
    assert data.prepare(settings(), notes.append).info["name"] == "other"
    assert any(line.startswith("not used: ") and "cut off" in line for line in notes)


def test_synthetic_images_come_only_when_asked_for_and_say_so(tmp_path, monkeypatch, capfd):
    def offline(*args: object) -> None:
        raise ValueError("can't download cifar10")

    monkeypatch.setattr(downloads, "SOURCE", replace(downloads.SOURCE, read=offline))
    with pytest.raises(ValueError, match="can't download cifar10"):
        data.prepare(settings())
    small = {"synthetic_train": 30, "synthetic_test": 10, "synthetic_size": 8}
    notes: list[str] = []
    splits = data.prepare(settings(allow_synthetic=True, **small), notes.append)
    assert (splits.info["synthetic"], splits.info["name"], len(splits.train)) == (True, "synthetic-8px", 30)
    assert "SYNTHETIC DATA" in capfd.readouterr().err and any("can't download" in line for line in notes)
    asked = data.prepare(settings(source="synthetic", **small))
    assert asked.info["digest"] == splits.info["digest"] and asked.info["beton"] is False
    with pytest.raises(SourceError, match="data.root=.*nowhere is not a folder"):
        data.prepare(settings(allow_synthetic=True, root="nowhere"))  # a wrong path is not an absent network


def test_an_explicit_source_needs_its_folder() -> None:
    with pytest.raises(SourceError, match="data.source=parquet needs data.root"):
        data.prepare(settings(source="parquet"))
    with pytest.raises(SourceError, match="got nowhere"):
        data.prepare(settings(source="imagefolder", root="nowhere"))


def test_subset_and_validation_are_stratified_disjoint_and_the_same_every_time(images, tmp_path):
    folder = str(write_betons(tmp_path / "mine", images))
    splits = data.prepare(settings(root=folder, subset=20.0, val_fraction=0.2))
    again = data.prepare(settings(root=folder, subset=20.0, val_fraction=0.2).replace({"run.seed": 5}))
    assert splits.val is not None and (len(splits.train), len(splits.val)) == (16, 4)
    assert np.bincount(splits.train.labels).tolist() == [4] * 4
    assert np.bincount(splits.val.labels).tolist() == [1] * 4
    assert splits.train.indices is not None and splits.val.indices is not None and again.val is not None
    assert not set(splits.train.indices) & set(splits.val.indices)
    assert np.array_equal(again.val.indices, splits.val.indices)
    assert np.array_equal(splits.train.images, images["train"][0][splits.train.indices])
    assert splits.info["train_size"] == 16 and splits.info["full_train_size"] == 40
    with pytest.raises(SourceError, match="data.subset=41 asks for 41 images, the set has 40"):
        data.prepare(settings(root=folder, subset=41.0))


def test_labels_that_the_classes_do_not_cover_are_refused(images: Images, tmp_path: Path) -> None:
    folder = write_betons(tmp_path / "mine", images, class_names=["a", "b"])
    with pytest.raises(SourceError, match=r"train set: labels must lie between 0 and 1 \(2 classes\), got 2"):
        data.prepare(settings(root=str(folder)))


def test_training_and_test_set_must_belong_together(images: Images, tmp_path: Path) -> None:
    one = write_betons(tmp_path / "one", images)
    two = write_betons(tmp_path / "two", images, class_names=list("wxyz"))
    with pytest.raises(SourceError, match="different classes: a, b, c, d and w, x, y, z"):
        data.prepare(settings(train=str(one / "train.beton"), test=str(two / "test.beton")))
    two = write_betons(tmp_path / "two", images, synthetic=True)
    with pytest.raises(SourceError, match="one of training and test set is synthetic"):
        data.prepare(settings(train=str(one / "train.beton"), test=str(two / "test.beton")))


def test_images_of_several_sizes_or_too_many_stay_in_the_beton(images, tmp_path, monkeypatch):
    folder = write_betons(tmp_path / "mine", images)
    monkeypatch.setattr(reading.memory, "free_bytes", lambda: 10_000)
    splits = data.prepare(settings(root=str(folder)))
    assert splits.train.images is None and splits.train.nbytes == 40 * 192 and splits.train.path is not None
    assert splits.test.images is not None and np.array_equal(splits.train.labels, images["train"][1])
    varied = [np.zeros((8, 8 + i % 3, 3), np.uint8) for i in range(40)]
    betons_by_hand.make(folder / "train.beton", varied, images["train"][1].tolist())
    beton.sidecar_path(folder / "train.beton").unlink()
    beton.sidecar_path(folder / "test.beton").unlink()
    splits = data.prepare(settings(root=str(folder)))
    assert splits.train.images is None and splits.train.image_shape == (8, 10)


def test_images_of_another_size_than_wanted_are_left_to_be_streamed(images: Images, tmp_path: Path) -> None:
    folder = str(write_betons(tmp_path / "mine", images))
    for size, held in ((0, True), (8, True), (12, False)):
        splits = data.prepare(settings(root=folder, image_size=size))
        assert (splits.train.images is not None, splits.test.images is not None) == (held, held)


def test_an_unreadable_image_stops_or_is_left_out(images: Images, tmp_path: Path) -> None:
    folder = write_betons(tmp_path / "mine", images, sidecar=False)
    pixels, labels = images["train"]
    path = betons_by_hand.make(folder / "train.beton", list(pixels), labels.tolist(), {7})
    at = int(beton.open_beton(path).pointers[7])
    content = bytearray(path.read_bytes())
    content[at : at + 30] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(beton.BetonError, match="sample 7"):
        data.prepare(settings(root=str(folder)))
    notes: list[str] = []
    splits = data.prepare(settings(root=str(folder), on_error="skip"), notes.append)
    assert len(splits.train) == 39 and splits.train.indices is not None and 7 not in splits.train.indices
    assert any("1 images can't be decoded and are left out (samples 7)" in line for line in notes)


def test_a_beton_of_jpegs_is_decoded_for_the_device_and_the_record_says_by_what(images, tmp_path):
    pixels, labels = images["train"]
    every = set(range(len(labels)))
    path = betons_by_hand.make(tmp_path / "train.beton", list(pixels), labels.tolist(), every)
    layout = beton.open_beton(path)
    on_threads = reading.Wanted(settings().data, frozenset(), None, print)
    on_device = replace(on_threads, device=torch.device("cpu"))  # the way of a GPU, on the CPU
    expected, expected_labels = beton.read(path)
    for wanted in (on_threads, on_device):
        found, found_labels, skipped, decoder = reading._pixels(layout, None, wanted)
        assert decoder == (jpeg.decoder() if wanted.device and jpeg.decoder() else "pillow")
        assert not len(skipped)
        assert np.abs(found.astype(int) - expected).max() <= 5, "of one decoder or another"
        np.testing.assert_array_equal(found_labels, expected_labels)


def test_statistics_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1500, 4, 5, 3), dtype=np.uint8)
    mean, std = conversion.statistics(images)
    assert np.allclose(mean, (images / 255).mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(std, (images / 255).std((0, 1, 2)), atol=1e-12)
    assert conversion.statistics(iter(images)) == (mean, std)


def test_the_real_cifar10_has_the_known_statistics(cifar_root: Path) -> None:
    splits = data.prepare(settings(root=str(cifar_root)))
    assert splits.info["digest"] == sources.CIFAR10_DIGESTS["train"] and splits.info["name"] == "cifar10"
    assert np.allclose(splits.mean, (0.49139968, 0.48215841, 0.44653091), atol=1e-6)
    assert np.allclose(splits.std, (0.24703223, 0.24348513, 0.26158784), atol=1e-6)


def test_a_sidecar_that_is_a_pipe_or_was_forged_is_refused_before_any_training(
    images: Images, tmp_path: Path
):
    folder = write_betons(tmp_path / "mine", images)
    sidecar = beton.sidecar_path(folder / "train.beton")
    sidecar.unlink()
    os.mkfifo(sidecar)
    with pytest.raises(beton.BetonError, match="it is a pipe, a device or a folder"):
        data.prepare(settings(root=str(folder)))
    drawn = {"fraction": 0.2, "seed": 0, "duplicates": float("inf")}
    for wrong in ({"mode": 5}, {"quality": "x"}, {"origin": []}, {"test_drawn": drawn}):
        sidecar.unlink()
        write_betons(folder, images, **wrong)
        with pytest.raises(beton.BetonError, match="wrong type|three numbers"):
            data.prepare(settings(root=str(folder)))


def test_a_text_of_a_sidecar_that_no_utf8_holds_does_not_reach_the_record(images: Images, tmp_path: Path):
    folder = write_betons(tmp_path / "mine", images, source="\ud800\x1b[2J")
    assert data.prepare(settings(root=str(folder))).info["source"] == "\\ud800\\x1b[2J"


def test_a_beton_that_changes_between_its_reading_and_its_hashing_is_an_error(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write_betons(tmp_path / "mine", images, sidecar=False)
    path, read = folder / "train.beton", beton.read_whole

    def then_changed(layout, *more, **how):
        found = read(layout, *more, **how)
        if layout.path == path:
            content = bytearray(path.read_bytes())
            content[betons_by_hand.PAGE] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(beton, "read_whole", then_changed)
    with pytest.raises(beton.BetonError, match="changed or removed while it was in use"):
        data.prepare(settings(root=str(folder)))
