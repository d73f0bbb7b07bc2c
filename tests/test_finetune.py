"""Fine-tuning: a run's network goes on with other classes and sizes; on photographs it beats a fresh one."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import splits
from PIL import Image

import fastresnet as fr
from fastresnet import models
from fastresnet.commands import evaluate
from fastresnet.models import pretrained
from fastresnet.settings import config
from fastresnet.settings.config import ConfigError
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import Own

SMALL = {
    "train.epochs": 1, "train.batch_size": 20, "train.precision": "fp32", "run.device": "cpu",
    "run.report": False, "run.progress": "off", "run.threads": 1, "train.crop_padding_px": 0,
}  # fmt: skip
NETS = {
    "resnet": {"model.arch": "resnet", "model.stage_blocks": [1, 1], "model.stage_widths": [8, 16]},
    "preactivation": {"model.depth": 20, "model.width": 0.5, "model.block": "preactivation"},
    "resnet9": {"model.arch": "resnet9", "model.width": 0.125, "model.activation": "gelu"},
    "speednet": {"model.arch": "speednet", "model.stage_widths": [8, 16, 8], "model.head_scale": 0.2},
    "ensemble": {"model.arch": "resnet9", "model.width": 0.125, "model.members": 2},
}


# finetune.yaml's rate over what the logits are multiplied by
RATES = {"speednet": 2e-3 / 0.2, "resnet9": 2e-3 * 8}


def given(classes: int, count: int = 40, size: int = 16, seed: int = 0) -> Any:
    """Training and test set of random images, a shade a class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    shade = (labels * (150 // classes))[:, None, None, None]
    images = (random.integers(0, 100, (count, size, size, 3)) + shade).astype(np.uint8)
    return (images, labels), (images[: count // 2], labels[: count // 2])


@pytest.fixture(params=NETS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> fr.Run:
    """A short run of each family on six classes of 16 px."""
    settings = {**SMALL, **NETS[request.param], "run.dir": str(tmp_path / "first"), "optim.lr": 0.01}
    return fr.train("rn18.yaml", settings, data=given(6))


def test_a_run_goes_on_with_other_classes_by_its_folder_alone(run: fr.Run, tmp_path: Path) -> None:
    changes = {"model.pretrained": str(run.dir), "run.dir": str(tmp_path / "second")}
    changes |= {**SMALL, "train.epochs": 2, "train.freeze_epochs": 1}
    second = fr.train("finetune.yaml", changes, data=given(3, seed=1))
    first = run.record["config"]["model"]
    ours = {**second.record["config"]["model"], "freeze": [], "pretrained": None, "stem": first["stem"]}
    assert ours == first and second.record["config"]["optim"]["lr_head"] == RATES.get(first["arch"])
    assert second.record["config"]["model"]["stem"] == "cifar"
    again, facts = fr.load_model(second.checkpoint)
    assert len(facts["class_names"]) == 3
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in run.model.parameters())


def test_before_the_first_step_all_but_the_head_is_the_runs(run: fr.Run) -> None:
    cfg = config.load("finetune.yaml", {**SMALL, "model.pretrained": str(run.dir)})
    one = Experiment(cfg, splits=splits(40, 20, size=16))
    one.initialise()
    theirs, ours = run.model.state_dict(), one.model.state_dict()
    head = {name for name in ours if {"fc", "head"} & {*name.split(".")}}
    assert head and {name for name in ours if ours[name].shape != theirs[name].shape} == head
    assert all(torch.equal(ours[name], theirs[name]) for name in set(ours) - head)
    one.close()


def test_a_last_layer_for_other_classes_begins_anew_where_it_would_fit_too(run: fr.Run) -> None:
    cfg = pretrained.like_the_run(config.load("finetune.yaml", {"model.pretrained": str(run.dir)}))
    theirs = run.model.state_dict()
    heads = [name for name in theirs if name.endswith(("fc.weight", "head.weight"))]
    for names, kept in ((run.class_names, True), (tuple("abcdef"), False)):
        net = models.build(cfg.model, 6, 16, names)
        assert [torch.equal(net.state_dict()[head], theirs[head]) for head in heads] == [kept] * len(heads)
        assert ("left fresh, for other classes" in str(net.pretrained_report)) != kept


def test_what_was_said_stays_and_the_size_of_data_in_memory_too(tmp_path: Path) -> None:
    first = {**SMALL, **NETS["resnet"], "model.stem": "auto", "run.dir": str(tmp_path / "first")}
    fr.train("rn18.yaml", first, data=given(4))
    asked = {"model.pretrained": str(tmp_path / "first")}
    cfg = pretrained.like_the_run(config.load("finetune.yaml", {**asked, "model.width": 2.0}))
    assert (cfg.model.width, cfg.model.stage_widths, cfg.data.image_size) == (2.0, [8, 16], 16)
    assert cfg.provenance["model.stage_widths"] == asked["model.pretrained"]
    assert pretrained.like_the_run(cfg) == cfg
    assert pretrained.like_the_run(config.load("finetune.yaml", asked), sized=False).data.image_size == 0
    larger = {**asked, "data.image_size": 128}
    cfg = pretrained.like_the_run(config.load("finetune.yaml", larger))
    assert (cfg.data.image_size, cfg.model.stem) == (128, "cifar"), "the run's first layer, not the size's"
    other = config.load("finetune.yaml", {**asked, "model.arch": "speednet"})
    assert pretrained.like_the_run(other) == other


def test_the_network_of_a_users_own_is_named_by_the_user_alone(tmp_path: Path) -> None:
    def flat(classes: int, size: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size * size, classes))

    first = {**SMALL, "run.dir": str(tmp_path / "first"), "optim.lr": 0.01}
    run = fr.train("rn18.yaml", first, data=given(3), model=flat)
    asked = config.load("finetune.yaml", {"model.pretrained": str(run.dir)})
    with pytest.raises(ConfigError, match="no checkpoint may import: say --model.arch="):
        pretrained.like_the_run(asked)


def test_weights_for_ones_own_network_are_loaded_by_its_owner() -> None:
    with pytest.raises(ValueError, match="load its weights into model="):
        fr.train("finetune.yaml", {"model.pretrained": "x"}, model=torch.nn.Flatten(), data=given(2))


def test_a_whitening_that_was_handed_in_is_kept_and_a_missing_one_computed() -> None:
    torch.manual_seed(0)
    net = models.build(config.load(None, NETS["speednet"]).model, 10)
    images = torch.randn(50, 3, 16, 16)
    assert not net.whitened
    net.init_whitening(images)
    assert net.whitened
    before = net.whiten.weight.clone()
    for handed, kept in ((net, True), (models.build(config.load(None, NETS["speednet"]).model, 10), False)):
        cfg = config.load(None, SMALL)
        one = Experiment(cfg, splits=splits(40, 20, size=16), own=Own(handed))
        one.initialise()
        assert one.model.whitened and torch.equal(one.model.whiten.weight, before) == kept
        one.close()


# ---- on photographs ----------------------------------------------------------------------------------------


def photographs(root: Path, split: str, classes: range, each: int) -> list[tuple[Image.Image, int]]:
    """The first `each` photographs of these classes of Imagenette, 160 px, with their labels."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, which isn't installed")
    table = parquet.read_table(next(root.glob(f"{split}*.parquet")), columns=["image", "label"])
    labels = table.column("label").to_numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes]))
    encoded = table.take(rows).column("image").combine_chunks().field("bytes").to_pylist()
    return [(Image.open(io.BytesIO(one)).convert("RGB"), int(labels[row])) for one, row in zip(encoded, rows)]


def in_memory(pictures: list[tuple[Image.Image, int]], px: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N,px,px,3) and labels."""
    small = [np.asarray(picture.resize((px, px), Image.Resampling.BOX)) for picture, _ in pictures]
    return np.stack(small), np.array([label for _, label in pictures])


def in_folders(pictures: list[tuple[Image.Image, int]], folder: Path) -> Path:
    """PHOTOS/<class>/*.jpg of mixed sizes: two sides of each picture are cut off, by random widths."""
    random = np.random.default_rng(0)
    for number, (picture, label) in enumerate(pictures):
        width, height = (160 - int(strip) for strip in random.integers(0, 40, 2))
        path = folder / f"class{label}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.crop((0, 0, width, height)).save(path, quality=90)
    return folder


TINY = {"model.arch": "resnet", "model.depth": 18, "model.width": 0.25, "model.stem": "imagenet"}
WHOLE = {"model.freeze": [], "train.freeze_epochs": None, "optim.layer_decay": 1.0}
QUIET = {"run.report": False, "run.progress": "off", "run.device": "cpu", "eval.every": 0}


@pytest.mark.slow(30)
def test_on_photographs_of_other_classes_a_fine_tuned_net_beats_one_that_starts_anew(
    imagenette_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The documented line at 64 px: five classes learned, then five others from 10 photographs each."""
    pytest.importorskip("ffcv", reason="needs ffcv, which isn't installed: photographs of mixed size stream")
    monkeypatch.chdir(tmp_path)
    root, known, others = imagenette_root, range(5), range(5, 10)
    counts = {"train": 600, "test": 40}
    learned = [in_memory(photographs(root, split, known, n), 64) for split, n in counts.items()]
    known_well = {**QUIET, **TINY, "train.epochs": 8, "train.batch_size": 64, "optim.lr": 0.1}
    first = fr.train("rn18.yaml", {**known_well, "run.dir": "first"}, data=learned)
    photos = in_folders(photographs(root, "train", others, 100), tmp_path / "photos")
    own = {**QUIET, "data.root": str(photos), "data.test_fraction": 0.9}
    ways = {
        "tuned": {**own, "model.pretrained": "first"},
        "anew": {**own, **TINY, **WHOLE, "data.image_size": 64},
    }
    runs = {name: fr.train("finetune.yaml", {**changes, "run.dir": name}) for name, changes in ways.items()}
    one = runs["tuned"].record
    assert one["data"]["train_size"] == 50 and one["data"]["test_drawn"]["fraction"] == 0.9
    accuracies = {name: run.record["accuracy"]["test"] for name, run in runs.items()}
    assert accuracies["tuned"] > accuracies["anew"], f"{accuracies}, {first.record['accuracy']}"
    capsys.readouterr()
    evaluate.main(["--checkpoint=tuned", "--json"])
    judged = json.loads(capsys.readouterr().out)
    assert judged["top1"] == one["accuracy"]["test"] and judged["digest"] == one["data"]["digest"]
