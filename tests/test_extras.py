"""Augmentations beyond the kernels: composed after each of them alike; one more is a module and a line."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import splits
from pyarrow import parquet

from fastresnet import augment, loading
from fastresnet.augment import Augment
from fastresnet.augment.extras import EXTRAS, erasing, grayscale, trivial
from fastresnet.base import pictures
from fastresnet.data.own import splits_of
from fastresnet.settings import ConfigError, config
from fastresnet.training.experiment import Experiment

MEAN, STD, COUNT = (0.49, 0.48, 0.44), (0.247, 0.243, 0.261), 40
BOTH = Augment(2, "reflect", "random", 4, 0.1, 0.1, (("erasing", 0.5), ("grayscale", 0.5)))
MIXED = Augment(flip="random", extras=(("cutmix", 0.5), ("mixup", 0.5)))
TRIVIAL = Augment(2, "reflect", "random", extras=(("trivial", 0.8),))


@pytest.fixture(scope="module")
def stored() -> torch.Tensor:
    return torch.randint(
        0, 256, (COUNT, 12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def finished(stored, spec, **keywords) -> torch.Tensor:
    choices = augment.draw(spec, COUNT, (12, 16), seed=3, epoch=0)
    return augment.apply(stored, torch.arange(COUNT), choices, mean=MEAN, std=STD, **keywords)


def only(name: str, share: float) -> Augment:
    return Augment(extras=((name, share),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["rows", "fused"])
@pytest.mark.parametrize("spec", [BOTH, MIXED, TRIVIAL], ids=["alone", "mixed", "trivial"])
@pytest.mark.parametrize("size", [None, (9, 10)])
def test_every_kernel_composes_the_extras_as_the_reference_does(stored, kernel, size, spec, dtype):
    plain = finished(stored, spec, kernel="reference", size=size)
    result = finished(stored, spec, kernel=kernel, size=size, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(result.float(), plain, atol=tolerance, rtol=0)
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)


def test_the_kernel_is_reported_with_what_it_leaves_to_pytorch():
    name, reason = augment.kernel_for("reference", torch.device("cpu"), BOTH)
    assert (name, reason) == ("reference", "asked for; then erasing and grayscale in plain PyTorch")
    assert MIXED.mixes and not BOTH.mixes and not Augment().mixes


def test_erasing_zeroes_one_rectangle_of_the_asked_share_of_images_and_leaves_the_rest(stored):
    plain, erased = finished(stored, Augment()), finished(stored, only("erasing", 1.0))
    for before, after in zip(plain, erased):
        hole = (before != after).any(0)
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        if len(rows):
            box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            assert not after[box].any() and int(hole.sum()) == after[box].numel() / 3
    draws = augment.counter.Draws(0, 0, torch.arange(20_000))
    top, left, bottom, right = erasing.draw(draws, 0.25).T
    area = (bottom - top) * (right - left)
    assert abs(float((area > 0).double().mean()) - 0.25) < 0.013
    assert 0 <= top.min() and bottom.max() <= 1.0001 and 0 <= left.min() and right.max() <= 1.0001
    assert erasing.AREA[0] * 0.99 < area[area > 0].min() and area.max() < erasing.AREA[1] * 1.01


def test_grayscale_gives_all_channels_the_luma_of_the_pixel(stored):
    grey = finished(stored, only("grayscale", 1.0))
    pixels = grey * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    luma = (stored.double() / 255 * torch.tensor(grayscale.LUMA)).sum(3)
    torch.testing.assert_close(pixels.double(), luma[:, None].expand_as(pixels), atol=1e-5, rtol=0)
    assert torch.equal(finished(stored, only("grayscale", 0.0)), finished(stored, Augment()))


@pytest.mark.parametrize("change", range(1, 11))
def test_a_trivial_change_is_the_one_that_torchvision_makes(change):
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    images = (
        torch.rand((2, 3, 40, 32), generator=torch.Generator().manual_seed(change)).mul(255).round() / 255
    )
    strength = 0.5
    turn = {"interpolation": transforms.InterpolationMode.BILINEAR}

    def moved(angle=0.0, shift=(0, 0), shear=(0.0, 0.0)):
        degrees = [math.degrees(math.atan(one)) for one in shear]
        return transforms.affine(images, angle, list(shift), 1.0, degrees, **turn)

    expected = {
        trivial.SHEAR_X: lambda: moved(shear=(0.15, 0.0)),
        trivial.SHEAR_Y: lambda: moved(shear=(0.0, 0.15)),
        trivial.SHIFT_X: lambda: moved(shift=(-5, 0)),
        trivial.SHIFT_Y: lambda: moved(shift=(0, -6.25)),
        trivial.ROTATE: lambda: moved(angle=-15.0),
        trivial.BRIGHTNESS: lambda: transforms.adjust_brightness(images, 1.45),
        trivial.COLOUR: lambda: transforms.adjust_saturation(images, 1.45),
        trivial.CONTRAST: lambda: transforms.adjust_contrast(images, 1.45),
        trivial.POSTERIZE: lambda: transforms.posterize((images * 255).round().byte(), 6) / 255,
        trivial.SOLARIZE: lambda: transforms.solarize(images, 0.5),
    }[change]()
    result = trivial.apply(images, torch.tensor([[change, strength]] * 2), (0.0,) * 3, (1.0,) * 3)
    assert not torch.allclose(result, images, atol=1e-3)
    torch.testing.assert_close(result, expected, atol=3e-3, rtol=0)


def test_trivial_changes_the_asked_share_of_images_each_kind_as_often():
    drawn = trivial.draw(augment.counter.Draws(0, 0, torch.arange(20_000)), 0.5)
    counts = drawn[:, 0].long().bincount()
    assert len(counts) == 11 and abs(int(counts[0]) - 10_000) < 300
    assert abs(counts[1:] - 1000).max() < 150 and drawn[:, 1].abs().max() <= 1
    images = torch.rand(8, 3, 12, 12)
    assert torch.equal(trivial.apply(images, torch.zeros(8, 2), MEAN, STD), images)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_images_hold_as_much_of_their_neighbour_as_their_labels_say(name):
    numbers = torch.arange(COUNT)
    values = (numbers * 97 % 256).float()  # of all pixels of an image, and far from its neighbour's
    images = values.to(torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3).contiguous()
    choices = augment.draw(only(name, 0.75), COUNT, (64, 64), seed=3, epoch=0)
    unit = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    mixed = augment.apply(images, numbers, choices, **unit).mean((1, 2, 3))
    weights = augment.mixed(numbers, choices, COUNT)
    torch.testing.assert_close(weights.sum(1), torch.ones(COUNT))
    apart = (values - values.roll(1)).abs()
    assert torch.all((mixed - weights @ values).abs() <= 0.04 * apart + 1e-3)
    own, neighbours = weights.diagonal(), weights[numbers, numbers - 1]  # of the first one it is the last
    torch.testing.assert_close(own + neighbours, torch.ones(COUNT))
    assert 0.5 < (own < 1).float().mean() < 0.95


def test_training_on_weights_of_one_class_each_is_training_on_classes():
    changes = {"train.batch_size": 16, "train.epochs": 1.0, "model.width": 0.0625}
    changes["train.label_smoothing"] = 0.1

    def trained(extras: list[str]) -> tuple[Experiment, float]:
        cfg = config.load("rn18.yaml", {**changes, "train.extras": extras})
        experiment = Experiment(cfg, splits=splits())
        experiment.warm_up()
        return experiment, experiment.fit_epoch(0).accuracy

    (plain, hits), (soft, same), (mixed, _) = map(trained, ([], ["mixup 0"], ["mixup 0.5", "cutmix 0.5"]))
    for one, other, third in zip(plain.model.parameters(), soft.model.parameters(), mixed.model.parameters()):
        torch.testing.assert_close(one, other)
        assert third.isfinite().all()
    assert hits == same and not torch.equal(one, third)


@pytest.mark.parametrize("loader", ["resident", "torchvision"])
def test_an_augmentation_more_is_a_module_and_a_line(monkeypatch, loader):
    ends = SimpleNamespace(
        draw=lambda draws, share: draws.coin("negative", share),
        apply=lambda images, drawn, mean, std: torch.where(drawn[:, None, None, None], -images, images),
    )
    monkeypatch.setitem(EXTRAS, "negative", ends)
    changes = {"data.loader": loader, "data.workers": 1, "train.batch_size": 16}

    def batches(extras: list[str]):
        cfg = config.load("rn18.yaml", {**changes, "train.extras": extras})
        made = loading.build(cfg, splits(), device=torch.device("cpu"), dtype=torch.float32)
        return list(made.train.epoch(0))

    for (images, labels), (negative, same) in zip(batches([]), batches(["negative 1"]), strict=True):
        assert torch.equal(labels, same)
        torch.testing.assert_close(negative, -images)


@pytest.mark.parametrize("extras, words", [(["erasing"], "train.extras"), (["erasing 1.5"], "train.extras")])
def test_an_entry_is_a_name_and_a_share(extras, words):
    with pytest.raises(ConfigError, match=words):
        config.load("rn18.yaml", {"train.extras": extras})
    with pytest.raises(ValueError, match="train.extras knows erasing, .*, got 'erasin'"):
        augment.from_settings(config.load("rn18.yaml", {"train.extras": ["erasin 0.5"]}).train)
    with pytest.raises(ValueError, match="train.extras names 1 of its augmentations again"):
        augment.from_settings(config.load("rn18.yaml", {"train.extras": ["mixup 0.5", "mixup 0.2"]}).train)


def shown(root, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a split of the real CIFAR-10 with their labels."""
    rows = parquet.read_table(next(root.glob(f"{split}-00000*"))).slice(0, count).to_pylist()
    images = np.stack([pictures.decode(row["img"]["bytes"]) for row in rows])
    return images, np.array([row["label"] for row in rows])


@pytest.mark.slow
def test_where_real_images_are_few_a_trivial_change_does_no_harm(cifar_root):
    """Two standard deviations on 2,000 images are some two points; docs/recipes.md has what extras gain."""
    changes = {"model.stage_widths": [16, 32, 32], "model.head_scale": 1 / 32, "train.batch_size": 100}
    changes |= {"optim.weight_decay": 2e-4, "train.resolutions": None, "train.epochs": 16.0}
    data = splits_of((shown(cifar_root, "train", 1000), shown(cifar_root, "test", 2000)))

    def accuracy(*extras: str) -> float:
        experiment = Experiment(
            config.load("cpu.yaml", {**changes, "train.extras": list(extras)}), splits=data
        )
        experiment.initialise()
        for epoch in range(experiment.num_epochs):
            experiment.fit_epoch(epoch)
        return experiment.evaluate("test").accuracy

    plain, changed = accuracy(), accuracy("trivial 0.5")
    assert plain > 0.45 and changed > plain - 0.02, (plain, changed)
