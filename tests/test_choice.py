"""Which loader serves a split, and the loaders that settings describe."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from drawn import splits

from fastresnet import augment, loading
from fastresnet.loading import choice
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import Trainer

CPU = torch.device("cpu")


def asked(loader: str, image_size: int = 0) -> SimpleNamespace:
    return SimpleNamespace(loader=loader, image_size=image_size)


def sized(nbytes: int):
    return replace(splits().train, nbytes=nbytes)


def test_auto_chooses_by_what_fits_and_gives_the_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr(choice.memory, "free_bytes", lambda device: 1000 * 2**20)
    assert loading.choose(asked("auto"), sized(100 * 2**20), CPU, 2**20)[0] == "resident"
    large = replace(sized(900 * 2**20), path=tmp_path)
    name, reason = loading.choose(asked("auto"), large, CPU, 50 * 2**20)
    assert name == "ffcv" and "1,000.0 MiB with two batches, 1,000.0 MiB free on cpu" in reason
    assert loading.choose(asked("torchvision"), sized(10**12), CPU, 0) == ("torchvision", "asked for")


def test_a_set_without_a_beton_cannot_be_streamed_and_one_that_must_be_cannot_be_resident(tmp_path):
    with pytest.raises(ValueError, match="data.loader=ffcv streams from a beton, and this set has none"):
        loading.choose(asked("ffcv"), sized(1), CPU, 0)
    streamed = replace(sized(3 << 30), images=None, path=tmp_path / "x.beton")
    assert loading.choose(asked("auto"), streamed, CPU, 0)[0] == "ffcv"
    with pytest.raises(ValueError, match=r"data.loader=resident holds the whole set .* \(3.0 GiB\)"):
        loading.choose(asked("resident"), streamed, CPU, 0)


def test_a_size_that_images_in_memory_dont_have_is_refused():
    with pytest.raises(ValueError, match="data.image_size=24 cuts images .* in memory, 32x32 px: convert"):
        loading.choose(asked("auto", 24), sized(1), CPU, 0)
    assert loading.choose(asked("resident", 32), sized(1), CPU, 0)[0] == "resident"


SETTINGS = {
    "train.crop_padding_px": 2, "train.crop_mode": "zero", "train.flip": "alternating", "train.cutout_px": 3,
    "train.brightness": 0.2, "train.contrast": 0.3, "train.batch_size": 16, "run.seed": 5,
}  # fmt: skip


def test_every_augmentation_asked_for_arrives_at_the_training_images_under_its_own_name():
    spec = augment.Augment(2, "zero", "alternating", 3, 0.2, 0.3)
    made = loading.build(config.load("rn18.yaml", SETTINGS), splits(), device=CPU, dtype=torch.float32)
    loader = made.train
    assert loader.asked.augment == spec
    choices = loader.plan(0)[1]
    assert choices.brightness.abs().max() <= 0.2 < choices.contrast.abs().max() <= 0.3


def test_the_training_set_comes_in_another_order_each_epoch_and_the_test_set_as_it_is_stored():
    made = loading.build(config.load("rn18.yaml", SETTINGS), splits(), device=CPU, dtype=torch.float32)
    rows = [made.train.plan(epoch)[0].tolist() for epoch in (0, 1)]
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1]) == list(range(64))
    assert list(range(64)) not in rows
    rows, choices = made.evaluation["test"].plan(0)
    assert rows.tolist() == list(range(32)) and choices == augment.no_choices(32)


def test_a_captured_steps_batches_are_written_where_it_reads_them_and_train_the_same(monkeypatch):
    changes = {**SETTINGS, "train.resolutions": [[0.5, 16]], "train.epochs": 2.0, "model.width": 0.0625}
    plain, captured = (Experiment(config.load("rn18.yaml", changes), splits=splits()) for _ in range(2))
    trainer, placed = captured.trainer, []

    def whole_step(images, labels, kind) -> None:
        trainer.rates.set(trainer.steps_done)
        trainer.update(images, labels, kind)

    def step(images, labels) -> None:
        placed.append(any(images is graph.inputs[0] for graph in trainer._graphs.values()))
        Trainer.step(trainer, images, labels)

    monkeypatch.setattr("fastresnet.training.capture.recorded", lambda body, device: (body, None))
    trainer.options = replace(trainer.options, cuda_graph=True)
    trainer.whole_step, trainer.step = whole_step, step
    for epoch in (0, 1):
        plain.fit_epoch(epoch)
        captured.fit_epoch(epoch)
    assert placed == ([False] + [True] * 3) * 2  # the first of each size is what it was captured with
    assert all(map(torch.equal, plain.model.parameters(), captured.model.parameters()))
