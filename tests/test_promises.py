"""What a run and a record promise: what is on the clock, whose seed, which weights, images and TTA."""

import contextlib
import copy
import functools
import json
from unittest import mock

import numpy as np
import observed
import pytest
import torch

from fastresnet import models
from fastresnet.bench.protocol import protocol
from fastresnet.runs import record
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.trainer import Trainer

SMALL = {
    "model.arch": "speednet", "model.stage_widths": [8, 16, 16], "schedule.name": "linear",
    "optim.name": "muon", "optim.lr": 0.2, "optim.lr_bias": 0.05, "optim.lr_head": 0.4,
    "train.batch_size": 8, "train.epochs": 2, "train.precision": "fp32", "train.crop_padding_px": 2,
    "train.loss_reduction": "sum", "eval.batch_size": 90, "run.device": "cpu", "run.threads": 1,
    "run.progress": "off", "run.report": False,
}  # fmt: skip
PLAIN = {"train.crop_padding_px": 0, "train.flip": "none"}
MEAN, STD = (np.array(values, np.float32) for values in (observed.SPLITS.mean, observed.SPLITS.std))
EMA = {"train.ema_decay": 0.9}


def settings(changes=None):
    return config.load(None, {**SMALL, **(changes or {})})


def normalised(split):
    """Stored images as the network is meant to see them: float32 (N,3,H,W)."""
    images = (split.images.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()


def logits(state, tta=False):
    """Of the test set, by a network with these weights; `tta`: the mean with the mirror image's."""
    model = models.build(settings().model, 10, 16).eval()
    model.load_state_dict(state)
    images = normalised(observed.SPLITS.test)
    with torch.no_grad():
        return (model(images) + model(images.flip(3))) / 2 if tta else model(images)


def accuracy(state, tta=False):
    hits = logits(state, tta).argmax(1).numpy() == observed.SPLITS.test.labels
    return pytest.approx(hits.mean(), abs=1e-9)


def reproduced(folder, changes, *words):
    """A record of the small settings with these changes, and each run's weights when they were evaluated:
    the last ones, and those that are judged."""
    settings(changes).dump(folder / "config.yaml")
    seen = []
    predict = Experiment.predict

    def watched(self, *given, **more):
        averaged = self.averaged_model
        seen.append([copy.deepcopy(model.state_dict()) for model in (self.model, averaged or self.model)])
        return predict(self, *given, **more)

    rehearse = protocol.rehearse

    def discarded(*given):
        rehearse(*given)
        seen.clear()

    with (
        mock.patch.object(Experiment, "predict", watched),
        mock.patch.object(protocol, "rehearse", discarded),
    ):
        made = observed.reproduced(folder / "out", f"--config={folder / 'config.yaml'}", *words)
    return made, seen


def trained_alone(changes):
    """The last weights of a run of these settings by itself."""
    with observed.experiment(settings(changes)) as one:
        one.initialise()
        for epoch in range(one.num_epochs):
            one.fit_epoch(epoch)
        return {key: value.clone() for key, value in one.model.state_dict().items()}


# ---- the seeds --------------------------------------------------------------------------------------------


def test_each_run_of_a_record_is_the_run_of_its_own_seed(tmp_path):
    made, seen = reproduced(tmp_path, {}, "--runs=3")
    assert [row["seed"] for row in made["runs"]] == [0, 1, 2] and len(seen) == 3
    for seed, (weights, _) in enumerate(seen):
        assert observed.same(weights, trained_alone({"run.seed": seed})), f"run {seed} isn't of seed {seed}"
    assert not observed.same(seen[0][0], seen[1][0])


def test_a_record_of_other_settings_than_seed_0_still_has_the_seeds_from_0(tmp_path):
    made, seen = reproduced(tmp_path, {"run.seed": 7}, "--runs=1")
    assert made["runs"][0]["seed"] == 0 and observed.same(seen[0][0], trained_alone({"run.seed": 0}))


# ---- which weights, which TTA -----------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, EMA, {"train.average_tail": 0.5}], ids=str)
def test_a_record_judges_the_last_weights_with_the_tta_that_it_states(changes, tmp_path):
    made, seen = reproduced(tmp_path, {**changes, "eval.tta": "flip"}, "--runs=2")
    for k, row in enumerate(made["runs"]):
        last, judged = seen[2 * k]
        assert row["accuracy_tta"] == accuracy(judged, tta=True) and row["accuracy"] == accuracy(judged)
        assert observed.same(last, judged) == (not changes)
    assert any(row["accuracy_tta"] != row["accuracy"] for row in made["runs"]), "or the test shows nothing"


def test_a_record_without_tta_gives_the_plain_accuracy_alone(tmp_path):
    made, seen = reproduced(tmp_path, EMA, "--runs=1")
    (row,) = made["runs"]
    assert row["accuracy_tta"] is None and row["accuracy"] == accuracy(seen[0][1])


@pytest.mark.parametrize("changes", [{}, EMA, {"train.average_tail": 0.5}], ids=str)
def test_a_run_is_judged_by_its_last_weights_averaged_where_it_averages(changes, tmp_path):
    cfg = settings({**changes, "eval.tta": "flip", "run.seed": 2, "run.dir": str(tmp_path / "run")})
    with observed.on_the_small_set():
        done = observed.start.train(cfg)
    kept = observed.checkpoint.load(done.checkpoint)
    judged = kept["averaged"] if changes else kept["model"]
    assert not changes or not observed.same(judged, kept["model"])
    found = record.read(done.dir / "result.json")["accuracy"]
    assert found["test"] == accuracy(judged) and found["test_tta"] == accuracy(judged, tta=True)
    assert found["test"] != found["test_tta"], "or the test shows nothing"
    assert done.history[-1]["test_accuracy"] == found["test"]
    predictions = np.load(done.dir / "predictions.npz")
    np.testing.assert_allclose(predictions["logits"], logits(judged).numpy(), atol=1e-4)


# ---- the clock --------------------------------------------------------------------------------------------

RESET, WHITEN, BATCH, STEP, DECIDING, PLAIN_VIEW = 1, 2, 4, 16, 1024, 8192  # seconds


class Clock:
    """A clock that moves in the named parts of a run alone, each by its own number of seconds."""

    time = 0.0

    def pass_by(self, seconds):
        self.time += seconds

    def lasting(self, kind, name, seconds):
        """The method `name` of `kind`, so that it takes seconds(its arguments)."""
        original = getattr(kind, name)

        def call(owner, *given, **more):
            self.pass_by(seconds(*given, **more))
            return original(owner, *given, **more)

        return mock.patch.object(kind, name, call)

    def loading(self, original):
        """Experiments whose training batches take BATCH each."""

        def slow(epoch, *given):
            for batch in epoch(*given):
                self.pass_by(BATCH)
                yield batch

        def init(owner, *given, **more):
            original(owner, *given, **more)
            owner.train_loader.epoch = functools.partial(slow, owner.train_loader.epoch)

        return mock.patch.object(Experiment, "__init__", init)


@contextlib.contextmanager
def made_to_last():
    """Every clock of the package is one that moves in the named parts of a run alone."""
    clock = Clock()
    views = {"none": PLAIN_VIEW, "flip": DECIDING}
    with contextlib.ExitStack() as stack:
        for patch in (
            clock.lasting(Experiment, "reset", lambda seed: RESET),
            clock.lasting(Experiment, "initialise", lambda: WHITEN),
            clock.lasting(Experiment, "predict", lambda split="test", tta="none": views[tta]),
            clock.lasting(Trainer, "step", lambda images, labels: STEP),
            clock.loading(Experiment.__init__),
            mock.patch("time.perf_counter", lambda: clock.time),
        ):
            stack.enter_context(patch)
        yield


STEPS = 10  # of two epochs of 40 images in batches of 8


@pytest.mark.parametrize("tta", ["flip", "none"])
def test_the_clock_of_a_record_holds_what_the_protocol_says_and_nothing_else(tta, tmp_path):
    with made_to_last():
        made, _ = reproduced(tmp_path, {"eval.tta": tta}, "--runs=2")
    decides = DECIDING if tta == "flip" else PLAIN_VIEW
    for row in made["runs"]:
        seconds = row["seconds"]
        assert seconds["init"] == RESET + WHITEN
        assert seconds["augment"] == STEPS * BATCH and seconds["train"] == STEPS * STEP
        assert seconds["eval"] == decides
        assert seconds["total"] == sum(seconds[key] for key in ("init", "augment", "train", "eval"))
    assert made["summary"]["seconds_mean"] == made["runs"][0]["seconds"]["total"]
    rehearsed = WHITEN + 6 * (BATCH + STEP) + decides  # three steps of each epoch
    assert made["off_clock_seconds"]["warm_up"] == rehearsed


def test_the_seconds_of_a_run_are_those_of_its_parts(tmp_path):
    cfg = settings({"eval.tta": "flip", "run.dir": str(tmp_path / "run")})
    with made_to_last(), observed.on_the_small_set():
        found = observed.start.train(cfg).record["seconds"]
    assert found["init"] == WHITEN
    assert found["train"] == STEPS * (STEP + BATCH)
    assert found["eval"] == 2 * PLAIN_VIEW + DECIDING
    assert found["wall"] == found["init"] + found["train"] + found["eval"]


# ---- the images -------------------------------------------------------------------------------------------


def epochs(changes, count=2):
    """All batches of the first epochs, each epoch as one tensor of images and one of labels."""
    with observed.experiment(settings({"train.batch_size": 10, **changes})) as one:
        drawn = [list(one.train_loader.epoch(epoch)) for epoch in range(count)]
    return [[torch.cat(parts).float() for parts in zip(*batches)] for batches in drawn]


def order(images):
    """Which stored image each of these is; every one must be one of them."""
    stored = normalised(observed.SPLITS.train).flatten(1)
    distance = (images.flatten(1)[:, None] - stored).abs().amax(2)
    assert distance.min(1).values.max() < 1e-5
    return distance.argmin(1).tolist()


def test_each_epoch_shows_every_training_image_once_in_an_order_of_its_own_and_of_its_seed():
    orders = [order(images) for images, _ in epochs(PLAIN)]
    other = [order(images) for images, _ in epochs({**PLAIN, "run.seed": 1})]
    stored = list(range(40))
    assert all(sorted(found) == stored for found in orders + other)
    assert len({tuple(found) for found in [*orders, *other, stored]}) == 5


def test_labels_stay_with_their_images():
    for images, labels in epochs(PLAIN):
        assert labels.tolist() == observed.SPLITS.train.labels[order(images)].tolist()


def test_brightness_adds_and_contrast_multiplies():
    (plain, _), (bright, _), (steep, _) = (
        epochs({**PLAIN, **more}, 1)[0] for more in ({}, {"train.brightness": 0.2}, {"train.contrast": 0.2})
    )
    added = (bright - plain) * torch.from_numpy(STD)[:, None, None]
    torch.testing.assert_close(added, added[:, :1, :1, :1].expand_as(added), atol=1e-4, rtol=0)
    gain = (steep * plain).flatten(1).sum(1) / (plain * plain).flatten(1).sum(1) - 1
    torch.testing.assert_close(steep, plain * (1 + gain)[:, None, None, None], atol=1e-4, rtol=1e-4)
    for amount in (added[:, 0, 0, 0], gain):
        assert 0.15 < amount.abs().max() <= 0.2 + 1e-4 and amount.min() < 0 < amount.max()


def test_cutout_erases_a_square_of_its_side():
    (images, _), _ = epochs({**PLAIN, "train.cutout_px": 6})
    erased = (images == 0).all(1).flatten(1).sum(1)
    assert erased.max() == 36 and (erased > 0).all()


@pytest.mark.parametrize("number", [1, 2.5, 4])
def test_resolutions_go_by_the_share_of_the_run(number):
    steps = round(5 * number)
    changes = {"train.epochs": number, "train.resolutions": [[0.4, 12], [0.8, 14], [1, 16]]}
    seen = []
    with observed.experiment(settings(changes)) as one:
        one.initialise()
        step = one.trainer.step
        one.trainer.step = lambda images, labels: (seen.append(images.shape[-1]), step(images, labels))
        for epoch in range(one.num_epochs):
            one.fit_epoch(epoch)
    assert seen == [12 if s < 0.4 * steps else 14 if s < 0.8 * steps else 16 for s in range(steps)]


# ---- the whitening ----------------------------------------------------------------------------------------


def test_whitened_patches_of_the_training_images_are_uncorrelated_and_of_unit_size():
    with observed.experiment(settings()) as one:
        one.initialise()
        filters = one.model.whiten.weight.detach()[:12]
    outputs = torch.nn.functional.conv2d(normalised(observed.SPLITS.train), filters)
    rows = outputs.transpose(0, 1).flatten(1)
    covariance = rows @ rows.T / rows.shape[1]
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-2
    large = covariance.diag() > 0.5  # those of eigenvalues well above the 5e-4 that is added to each
    assert large.sum() >= 6 and covariance.diag().max() < 1.01 and covariance.diag()[0] > 0.99


def test_the_whitening_bias_learns_until_its_epoch_and_stands_still_afterwards():
    seen = []
    with observed.experiment(settings({"train.epochs": 3, "train.freeze_whiten_after": 1.4})) as one:
        one.initialise()
        for epoch in range(3):
            one.fit_epoch(epoch, on_step=lambda trainer: bool(seen.append(one.model.whiten.bias.clone())))
    moves = [not torch.equal(a, b) for a, b in zip(seen, seen[1:])]
    assert moves == [step + 1 < 7 for step in range(14)], "1.4 epochs are 7 steps"


def test_the_last_line_of_a_record_is_the_file(tmp_path):
    made, _ = reproduced(tmp_path, {}, "--runs=1")
    assert made == json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
