"""Pictures and loggers: they are written, say what they should, and wrong input is named."""

import numpy as np
import pytest
from made_run import CLASSES, history
from matplotlib.figure import Figure

from fastresnet.augment import Augment
from fastresnet.reports import dataview, plots
from fastresnet.runs import loggers
from fastresnet.settings import config


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 1000


def test_curves_leave_out_epochs_that_were_not_evaluated(tmp_path):
    assert plots.series(history(), "test_accuracy") == ([1.0, 3.0, 4.0], [0.4, 0.7, 0.6])
    assert is_png(plots.curves(history(), tmp_path / "plots" / "curves.png"))
    assert is_png(plots.curves(history(1), tmp_path / "one.png"))
    with pytest.raises(ValueError, match="no epoch was finished"):
        plots.curves([], tmp_path / "none.png")


def test_the_highest_accuracy_and_its_epoch_stand_in_the_legend(tmp_path, monkeypatch):
    seen = []
    write = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), write(self, *a, **k)))
    plots.curves(history(), tmp_path / "x.png")
    loss, accuracy = seen[0].axes
    texts = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert "max 70.00 % at epoch 3" in texts and {"training", "test"} <= set(texts)
    assert "min 0.3 at epoch 3" in [text.get_text() for text in loss.get_legend().get_texts()]
    assert accuracy.get_xlabel() == "epoch" and accuracy.get_ylabel() == "accuracy (%)"


def test_grids_take_images_of_any_size_and_refuse_none(tmp_path):
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros((200, 100, 3), np.uint8)]
    assert is_png(plots.image_grid(images, ["a\nb", "c"], tmp_path / "g.png", right=[True, None], title="t"))
    assert is_png(plots.class_rows([("a", images), ("b", images[:1])], tmp_path / "r.png"))
    with pytest.raises(ValueError, match="no image to draw"):
        plots.image_grid([], [], tmp_path / "none.png")


def test_channel_statistics_are_those_of_all_pixels(tiny_images):
    images, labels = tiny_images(n=2050, classes=4)
    facts = dataview.statistics(images, labels, CLASSES)
    assert np.allclose(facts["mean"], images.mean(axis=(0, 1, 2)))
    assert np.allclose(facts["std"], images.std(axis=(0, 1, 2)))
    assert list(facts["classes"].values()) == np.bincount(labels).tolist() and facts["images"] == 2050


def test_images_are_picked_from_their_class_and_repeat_with_the_seed(tiny_images):
    _, labels = tiny_images(n=40, classes=4)
    chosen = dataview.pick(labels, 5, 12, seed=1)
    assert [len(some) for some in chosen] == [10, 10, 10, 10, 0]
    assert all((labels[some] == label).all() for label, some in enumerate(chosen))
    assert all(map(np.array_equal, dataview.pick(labels, 4, 3, 1), dataview.pick(labels, 4, 3, 1)))


def test_augmented_images_without_augmentation_are_the_stored_ones(tiny_images):
    images, _ = tiny_images(n=8)
    how = dict(mean=(0.5,) * 3, std=(0.2,) * 3, seed=0)
    assert np.array_equal(dataview.augmented(images, Augment(), **how), images)
    mirrored = dataview.augmented(images, Augment(flip="alternating"), **how)
    turned = [not np.array_equal(a, b) for a, b in zip(mirrored, images, strict=True)]
    assert any(turned) and not all(turned)
    assert all(np.array_equal(a, b[:, ::-1]) for a, b, t in zip(mirrored, images, turned, strict=True) if t)


# ---- loggers -----------------------------------------------------------------------------------------------


def test_no_logger_is_opened_unless_asked_for_and_unknown_ones_are_named(tmp_path):
    assert loggers.open_all([], tmp_path, config.load(None)) == []
    with pytest.raises(ValueError, match="must be one of tensorboard, wandb, got 'carrier-pigeon'"):
        loggers.open_all(["carrier-pigeon"], tmp_path, config.load(None))


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is in the extra `loggers`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (log,) = loggers.open_all(["tensorboard"], tmp_path, config.load(None))
    for row in history():
        log.epoch(row)
    log.close({"accuracy": {"test": 0.6}})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    read = [(e.step, round(e.value, 3)) for e in events.Scalars("accuracy/test")]
    assert read == [(10, 0.4), (30, 0.7), (40, 0.6)]
    assert {"loss/train", "run/lr", "final/test_accuracy"} <= set(events.Tags()["scalars"])


def test_a_logger_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.check(["wandb"])
