"""Checkpoints: whole or absent, safe to read, strict about what they fit."""

import os
import pickle
import random
import resource
import sys
import zipfile

import pytest
import torch

from fastresnet import models
from fastresnet.base import digest
from fastresnet.models import pretrained
from fastresnet.runs import checkpoint
from fastresnet.settings import config

CLASSES = ["a", "b", "c"]


def payload(**changes):
    cfg = config.load(None, {"model.depth": 20, "model.width": 0.25})
    model = models.build(cfg.model, len(CLASSES), 32)
    return {
        "model": model.state_dict(), "averaged": None, "config": cfg.to_dict(), "class_names": CLASSES,
        "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 32, "epoch": 3, **changes,
    }  # fmt: skip


def test_what_was_saved_is_what_is_loaded(tmp_path):
    saved = payload()
    checkpoint.save(tmp_path / "deep" / "last.pt", saved)
    loaded = checkpoint.load(tmp_path / "deep" / "last.pt")
    assert loaded["class_names"] == CLASSES and loaded["epoch"] == 3
    assert all(torch.equal(saved["model"][key], value) for key, value in loaded["model"].items())


def test_the_model_comes_back_in_evaluation_mode_with_its_facts(tmp_path):
    checkpoint.save(tmp_path / "last.pt", payload())
    model, facts = checkpoint.load_model(tmp_path / "last.pt")
    assert not model.training and facts["image_size"] == 32
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_averaged_weights_are_preferred_where_the_run_kept_them(tmp_path):
    saved = payload()
    saved["averaged"] = {key: torch.zeros_like(value) for key, value in saved["model"].items()}
    checkpoint.save(tmp_path / "last.pt", saved)
    averaged, _ = checkpoint.load_model(tmp_path / "last.pt")
    live, _ = checkpoint.load_model(tmp_path / "last.pt", averaged=False)
    assert not any(p.any() for p in averaged.parameters())
    assert any(p.any() for p in live.parameters())


def test_a_runs_folder_means_its_last_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", payload())
    assert checkpoint.find(tmp_path) == tmp_path / "checkpoints" / "last.pt"


@pytest.mark.parametrize("name", ["nothing.pt", "."])
def test_a_missing_checkpoint_is_named(tmp_path, name):
    with pytest.raises(ValueError, match="checkpoint"):
        checkpoint.load(tmp_path / name)


class _Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    torch.save(payload(metrics=_Evil()), tmp_path / "evil.pt")
    digest.seal(tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="refused.*more than tensors and plain values"):
        checkpoint.load(tmp_path / "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(ValueError, match="bare.pt: damaged, or not a checkpoint"):
        checkpoint.load(tmp_path / "bare.pt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_refused(tmp_path, share):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="last.pt: damaged"):
        checkpoint.load(path)


def test_bare_weights_are_not_a_checkpoint(tmp_path):
    torch.save(payload()["model"], tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="not a checkpoint.*model.pretrained"):
        checkpoint.load(tmp_path / "weights.pt")


def test_another_format_version_is_refused(tmp_path):
    checkpoint.save(tmp_path / "old.pt", payload(format_version=99))
    with pytest.raises(ValueError, match="format version 99"):
        checkpoint.load(tmp_path / "old.pt")


def test_weights_of_another_model_are_refused_with_the_first_differences(tmp_path):
    other = payload(class_names=["a", "b"])
    checkpoint.save(tmp_path / "last.pt", other)
    with pytest.raises(ValueError, match=r"weights of another model: .*\(3,.*has \(2,"):
        checkpoint.load_model(tmp_path / "last.pt")


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoint.save(path, payload(bad=lambda: None))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_fills_up_is_an_error_of_the_disk_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # Python ignores its signal
    try:
        with pytest.raises(OSError, match="can't write it, the disk has .* left"):
            checkpoint.save(path, payload())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def flipped(path, place):
    whole = bytearray(path.read_bytes())
    whole[place] ^= 0x10
    path.write_bytes(whole)


@pytest.mark.parametrize("share", [i / 40 for i in [*range(40), 38.2, 38.5, 39.5]])
def test_one_changed_bit_anywhere_is_noticed(tmp_path, share):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    flipped(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match="last.pt: (damaged|refused)"):
        checkpoint.load(path)


def test_a_forged_seal_opens_no_door(tmp_path):
    path, choice = tmp_path / "last.pt", random.Random(0)
    checkpoint.save(path, payload())
    whole = path.read_bytes()[: -digest.SEAL_BYTES]
    for _ in range(60):
        path.write_bytes(whole)
        flipped(path, choice.randrange(len(whole)))
        digest.seal(path)
        try:
            checkpoint.load_model(path)
        except ValueError as error:
            assert "\n" not in str(error)


def sealed(path, changes):
    torch.save({"format_version": checkpoint.FORMAT_VERSION, **payload(**changes)}, path)
    digest.seal(path)
    return path


@pytest.mark.parametrize("changes, message", [
    ({"mean": [0.5, 0.5]}, "mean must hold 3 to 3 items"),
    ({"std": [0.0] * 3}, r"std\[0\] must lie in"),
    ({"class_names": [1]}, r"class_names\[0\] must be string"),
    ({"image_size": 10**9}, "image_size must lie in"),
    ({"model": {"conv1.weight": "text"}}, "model must hold tensors by name"),
    ({"config": {"model": {"width": 10**9}}}, "model.width must be"),
    ({"config": {"model": {"width": 60.0}}}, "weights of another model"),
])  # fmt: skip
def test_what_a_checkpoint_holds_is_checked_before_it_is_used(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.load_model(sealed(tmp_path / "a.pt", changes))


def test_a_file_larger_than_the_free_memory_is_refused_unread(tmp_path):
    path = tmp_path / "huge.pt"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(ValueError, match=r"takes 4.0 TiB of memory"):
        checkpoint.load(path)


def test_an_archive_that_unpacks_to_more_than_it_is_large_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    digest.seal(tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match="would unpack to more than it is large"):
        checkpoint.load(tmp_path / "bomb.pt")


def test_the_checkpoint_before_stays_until_the_new_one_is_proven(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    before, seal = path.read_bytes(), digest.seal

    def seal_on_a_bad_disk(temporary):
        seal(temporary)
        flipped(temporary, 5000)

    monkeypatch.setattr(digest, "seal", seal_on_a_bad_disk)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.save(path, payload(epoch=4))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_any_program_reads_a_checkpoint_with_torch_load(tmp_path):
    checkpoint.save(tmp_path / "a.pt", payload())
    assert torch.load(tmp_path / "a.pt", weights_only=True)["epoch"] == 3


def test_weights_go_into_a_model_and_into_ones_own(tmp_path):
    saved = payload()
    own = models.build(config.from_dict(saved["config"]).model, len(CLASSES), 32)
    checkpoint.load_weights(own, saved["model"], "here")
    assert all(torch.equal(saved["model"][key], value) for key, value in own.state_dict().items())
    checkpoint.save(tmp_path / "last.pt", payload())
    loaded, _ = checkpoint.load_model(tmp_path / "last.pt", model=own)
    stored = checkpoint.load(tmp_path / "last.pt")["model"]
    assert loaded is own and all(torch.equal(stored[key], value) for key, value in own.state_dict().items())


def test_many_missing_weights_are_counted():
    saved = payload()
    model = models.build(config.from_dict(saved["config"]).model, len(CLASSES), 32)
    names = list(saved["model"])
    with pytest.raises(ValueError, match=f"here: weights of another model: lacks {names[0]}.* and 2 more"):
        checkpoint.load_weights(model, {key: saved["model"][key] for key in names[5:]}, "here")
    with pytest.raises(ValueError, match=f"lacks {names[0]}, {names[1]}, {names[2]} \\(check"):
        checkpoint.load_weights(model, {key: saved["model"][key] for key in names[3:]}, "here")


def nested(depth):
    deep: list = []
    for _ in range(depth):
        deep = [deep]
    return deep


@pytest.mark.parametrize("changes, message", [
    ({"model": {"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}}, "no larger than the file"),
    ({"averaged": {"conv1.weight": torch.zeros(1).expand(10**9)}}, "averaged must hold tensors by name"),
    ({"model": {"conv1.weight": torch.eye(4).to_sparse()}}, "model must hold tensors by name|refused"),
    ({"model": {"conv1.weight": torch.empty(4, device="meta")}}, "model must hold tensors by name"),
    ({"accuracy": {"odd": nested(5000)}}, "nested too deeply"),
])  # fmt: skip
def test_tensors_without_numbers_of_their_own_and_nests_are_refused(tmp_path, monkeypatch, changes, message):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)  # to write the nest
    path = sealed(tmp_path / "a.pt", changes)
    sys.setrecursionlimit(limit)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_no_run_starts_from_a_damaged_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    model = models.build(config.from_dict(payload()["config"]).model, len(CLASSES), 32)
    assert pretrained.load_into(model, path).loaded
    flipped(path, path.stat().st_size // 2)
    with pytest.raises(
        ValueError, match="model.pretrained: .*last.pt: damaged, its bytes don't fit its seal"
    ):
        pretrained.load_into(model, path)


def test_names_in_a_checkpoint_hold_nothing_that_a_terminal_obeys(tmp_path):
    names = ["\x1b[2Jcat", "dog", "cow"]
    checkpoint.save(tmp_path / "a.pt", payload(class_names=names))
    assert checkpoint.load(tmp_path / "a.pt")["class_names"] == ["\\x1b[2Jcat", "dog", "cow"]
