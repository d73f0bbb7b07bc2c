"""A caller's own network, data, loss, augmentation and callbacks act and are recorded."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastresnet as fr
from fastresnet.data.own import splits_of
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import Own

SMALL = {
    "train.epochs": 3, "train.batch_size": 20, "train.precision": "fp32", "run.device": "cpu",
    "run.report": False, "run.progress": "off", "optim.lr": 0.05, "train.crop_padding_px": 0,
    "train.flip": "none", "eval.batch_size": 40,
}  # fmt: skip


class Linear(nn.Module):
    """A network of the caller's own."""

    def __init__(self, classes=2, size=8):
        super().__init__()
        self.layer = nn.Linear(3 * size * size, classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


def linear(classes, size):
    return Linear(classes, size)


def squared(logits, labels):
    return F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).float())


def darker(images):
    return images * 0.0


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = (random.integers(0, 100, (80, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    return (images, labels), (images[:40], labels[:40])


@pytest.fixture
def train(tmp_path, pair):
    def call(overrides=None, **handed):
        settings = {**SMALL, "run.dir": str(tmp_path / "run"), **(overrides or {})}
        return fr.train("rn18.yaml", settings, data=handed.pop("data", pair), **handed)

    return call


@pytest.mark.parametrize("model", [Linear(), linear])
def test_a_network_and_data_of_ones_own_are_trained_and_recorded(train, model):
    run = train(model=model)
    assert run.record["accuracy"]["test"] > 0.9
    assert run.record["data"]["name"] == "given" and not run.record["data"]["synthetic"]
    assert run.record["own"] == [f"model: test_handed:{getattr(model, '__name__', 'Linear')}"]
    assert run.record["config"]["model"]["arch"].startswith("test_handed:")
    assert run.record["flops_per_image"] == 2 * 3 * 8 * 8 * 2


def test_a_model_handed_in_starts_from_its_weights_and_stays_as_it_was(train):
    own = Linear()
    before = own.layer.weight.detach().clone()
    trained = train({"train.max_steps": 1, "optim.lr": 1e-9}, model=own).model
    assert torch.equal(own.layer.weight, before)
    assert torch.allclose(trained.layer.weight, before, atol=1e-6)


def test_a_checkpoint_never_imports_the_network_that_it_names(train):
    run = train(model=Linear())
    with pytest.raises(ValueError, match="load_model\\(path, model=...\\)"):
        fr.load_model(run.checkpoint)
    again, facts = fr.load_model(run.checkpoint, model=Linear())
    assert torch.equal(again.layer.weight, run.model.layer.weight) and facts["image_size"] == 8


def test_a_loss_of_ones_own_is_what_training_falls_by(train):
    assert train({"train.max_steps": 1}, model=linear, loss=squared).history[0]["train_loss"] < 0.6


def test_an_augmentation_of_ones_own_reaches_training_and_not_the_test(train):
    run = train(model=linear, augment=darker)
    assert np.allclose(run.history[-1]["train_accuracy"], 0.5, atol=0.2)  # black images tell nothing


class Forgetful(Linear):
    """With dropout."""

    def forward(self, images):
        return super().forward(F.dropout(images, 0.5, self.training))


def test_what_ones_own_code_draws_follows_the_seed_and_goes_on_exactly_from_any_step(pair):
    own = Own(Forgetful(), augment=lambda images: images + torch.randn_like(images))
    cfg, data = config.load("rn18.yaml", SMALL), splits_of(pair)
    whole, parts = (Experiment(cfg, splits=data, own=own) for _ in range(2))
    state = torch.get_rng_state()
    whole.fit_epoch(0)
    for limit in (1, 3, None):
        parts.fit_epoch(0, limit=limit)
    assert torch.equal(whole.model.layer.weight, parts.model.layer.weight)
    assert torch.equal(torch.get_rng_state(), state), "the caller's own"


def test_callbacks_see_the_run_and_can_end_it(train, tmp_path):
    seen = []

    class Watch(fr.Callback):
        def on_run_begin(self, folder):
            seen.append(("begin", folder.name))

        def on_step_end(self, trainer):
            seen.append(("step", trainer.steps_done))

        def on_epoch_end(self, row):
            seen.append(("epoch", row["epoch"]))
            return row["epoch"] == 2

        def on_run_end(self, record):
            seen.append(("end", record["steps"]))

    run = train(model=linear, callbacks=[Watch()])
    steps = [("step", n) for n in range(1, 9)]
    assert seen == [("begin", "run"), *steps[:4], ("epoch", 1), *steps[4:], ("epoch", 2), ("end", 8)]
    kept = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert len(run.history) == len(kept["per_epoch"]) == 2
    assert kept["accuracy"]["test"] == pytest.approx(kept["per_epoch"][-1]["test_accuracy"])


def test_a_callback_can_end_the_run_inside_an_epoch(train):
    class AtThree(fr.Callback):
        def on_step_end(self, trainer):
            return trainer.steps_done == 3

    run = train({"eval.every": 0}, model=linear, callbacks=[AtThree()])
    assert run.record["steps"] == 3 and run.history[-1]["test_accuracy"] is not None


def test_early_stopping_waits_for_its_patience():
    stop = fr.EarlyStopping("val_loss", patience=2)
    answers = [stop.on_epoch_end({"val_loss": value}) for value in (1.0, 0.5, None, 0.6, 0.4, 0.4, 0.5)]
    assert answers == [False, False, None, False, False, False, True]
    with pytest.raises(ValueError, match="has no 'val_f1'; it has epoch, step"):
        fr.EarlyStopping("val_f1")


@pytest.mark.parametrize(("handed", "says"), [
    ({"model": 3}, "model must be callable, got int"),
    ({"model": nn.Flatten()}, r"to logits \(N,2\): two images gave \(2, 192\)"),
    ({"model": lambda classes, size: "net"}, "must be a torch.nn.Module or give one, got str"),
    ({"model": lambda: Linear()}, r"model: test_handed:lambda\(2, 8\), classes and image size: TypeError"),
    ({"model": Linear(size=16)}, r"on two images \(2, 3, 8, 8\): RuntimeError: .*mat1 and mat2"),
    ({"model": Linear().requires_grad_(False)}, "no parameter that learns"),
    ({"model": Linear().to("meta")}, "model: copied to the CPU: NotImplementedError"),
    ({"model": linear, "augment": lambda images: images[:1]}, r"augment gave \(1, 3, 8, 8\)"),
    ({"model": linear, "augment": lambda images: images.int()}, r"\(2, 3, 8, 8\) int32 for"),
    ({"model": linear, "augment": lambda images: None}, "augment gave NoneType"),
    ({"model": linear, "augment": lambda: None}, "augment: TypeError: .* takes 0 positional arguments"),
    ({"model": linear, "loss": lambda logits, labels: 1.0}, "a scalar with a gradient, got float"),
    ({"model": linear, "loss": lambda logits, labels: logits.sum(1)}, r"with a gradient, got \(2,\)"),
    ({"model": linear, "loss": lambda logits, labels: logits.sum().detach()}, "gradient, got one without"),
    ({"model": linear, "loss": nn.CrossEntropyLoss}, "loss: "),
    ({"model": linear, "callbacks": fr.Callback()}, "callbacks must be a list, got Callback"),
    ({"model": linear, "callbacks": [fr.EarlyStopping]}, r"is a class, hand in EarlyStopping\(\)"),
    ({"model": linear, "callbacks": [fr.EarlyStopping()]}, "measures val_accuracy: that needs .* data.val_"),
    ({"model": linear, "overrides": {"run.loggers": ["wandb"]}}, "wandb needs the package wandb: pip"),
    ({"model": linear, "callbacks": [3]}, "int has none of them"),
    ({"model": linear, "data": ("a.beton", "b.beton", "c.beton")}, "two betons are wanted"),
])  # fmt: skip
def test_wrong_parts_end_in_one_line_before_a_folder_is_made(train, tmp_path, monkeypatch, handed, says):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=says) as error:
        train(**handed)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


OWN = """
import torch


def descent(groups, settings, run):
    return [torch.optim.ASGD(groups)]
"""


def test_a_resumed_run_imports_what_the_caller_names_and_never_what_the_checkpoint_does(
    train, tmp_path, monkeypatch
):
    (tmp_path / "descent_of_mine.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    named = {"optim.name": "descent_of_mine:descent"}
    first = train({**named, "train.max_steps": 2}, model=linear)
    monkeypatch.delitem(sys.modules, "descent_of_mine")
    again = {"run.resume": str(first.checkpoint), "run.dir": str(tmp_path / "again")}
    with pytest.raises(ValueError, match="checkpoint may import: say --optim.name=descent_of_mine:descent"):
        train(again, model=linear)
    assert "descent_of_mine" not in sys.modules
    assert train({**again, **named}, model=linear).record["steps"] == 12


NETS = """
from torch import nn


def net(settings, classes, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes + 1))


def broken(settings):
    return nn.Flatten()
"""


@pytest.mark.parametrize(("name", "says"), [
    ("net", r"to logits \(N,2\): two images gave \(2, 3\)"),
    ("broken", "model.arch=nets_of_mine:broken for 2 classes and 8 px: TypeError"),
])  # fmt: skip
def test_a_network_that_a_recipe_names_is_tried_before_a_folder_is_made(
    train, tmp_path, monkeypatch, name, says
):
    (tmp_path / "nets_of_mine.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        train({"model.arch": f"nets_of_mine:{name}"})
    assert not (tmp_path / "run").exists()


def test_settings_of_a_checkpoint_name_no_code_that_nobody_told_of():
    saved = config.load(None, {"data.source": "theirs:SOURCE", "run.loggers": ["theirs:Log"]})
    for key in ("data.source", "run.loggers"):
        with pytest.raises(config.ConfigError, match=f"{key}=theirs:.* no checkpoint may import"):
            config.check_named_code(saved, {}, "a.pt", (key,))
        config.check_named_code(saved, saved.flat(), "a.pt", (key,))
