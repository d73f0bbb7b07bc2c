"""The random choices: their distributions, their seeds, and which kernel a device gets."""

import pytest
import torch

from fastresnet import augment
from fastresnet.augment import Augment, dispatch, draw

MANY = 20_000


def looks_uniform(values: torch.Tensor, places: int) -> bool:
    """Chi-square at p = 0.0001, whose quantile is Wilson and Hilferty's approximation."""
    counts = torch.bincount(values.long(), minlength=places).double()
    assert len(counts) == places, "a value beyond the last place"
    expected, degrees = len(values) / places, places - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic < degrees * (1 - 2 / (9 * degrees) + 3.719 * (2 / (9 * degrees)) ** 0.5) ** 3


def test_every_crop_and_cutout_centre_is_equally_likely():
    choices = draw(Augment(crop_padding_px=4, cutout_px=8), MANY, (32, 48), seed=0, epoch=0)
    for values, places in (
        (choices.dy, 9),
        (choices.dx, 9),
        (choices.dy * 9 + choices.dx, 81),
        (choices.cut_y, 32),
        (choices.cut_x, 48),
    ):
        assert looks_uniform(values, places)


def test_half_of_the_images_are_mirrored():
    for flip in ("random", "alternating"):
        share = draw(Augment(flip=flip), MANY, (32, 32), seed=0, epoch=0).flip.double().mean()
        assert abs(share - 0.5) < 4 * 0.5 / MANY**0.5


def test_jitter_is_uniform_within_its_limits():
    choices = draw(Augment(brightness=0.2, contrast=0.1), MANY, (32, 32), seed=0, epoch=0)
    for values, limit in ((choices.brightness, 0.2), (choices.contrast, 0.1)):
        assert values.abs().max() <= limit
        tenths = ((values + limit) / (2 * limit) * 10).long().clamp(max=9)
        assert looks_uniform(tenths, 10)


def test_choices_depend_on_seed_and_epoch_alone():
    spec = Augment(4, "reflect", "random", 8, 0.1, 0.1)
    one, same = (draw(spec, 100, (32, 32), seed=5, epoch=2) for _ in range(2))
    for name in ("dy", "dx", "flip", "cut_y", "cut_x", "brightness", "contrast"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        for seed, epoch in ((5, 3), (6, 2), (2, 5)):
            assert not torch.equal(getattr(one, name), getattr(draw(spec, 100, (32, 32), seed, epoch), name))
    assert not torch.equal(one.dy, one.dx)


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    draw(Augment(4, "reflect", "random", 8, 0.1, 0.1), 100, (32, 32), seed=5, epoch=2)
    assert torch.equal(torch.rand(1), expected)


def test_alternating_flip_shows_each_image_both_ways_in_turn():
    samples = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    flips = [
        draw(Augment(flip="alternating"), 1000, (32, 32), seed=1, epoch=k, samples=order).flip
        for k, order in enumerate((torch.arange(1000), samples, samples))
    ]
    assert torch.equal(flips[1], ~flips[0][samples])  # by image, wherever the order puts it
    assert torch.equal(flips[2], ~flips[1])
    other_seed = draw(Augment(flip="alternating"), 1000, (32, 32), seed=2, epoch=0).flip
    assert 400 < int((other_seed != flips[0]).sum()) < 600


def test_what_is_off_is_not_drawn():
    choices = draw(Augment(), 10, (32, 32), seed=0, epoch=0)
    assert choices == augment.no_choices(10)


def test_slices_and_selections_are_rows_of_the_epoch():
    choices = draw(Augment(4, "reflect", "random"), 10, (32, 32), seed=0, epoch=0)
    part, picked = choices.slice(8, 12), choices.select(torch.tensor([9, 0]))
    assert (part.count, picked.count, choices.slice(11, 14).count) == (2, 2, 0)
    assert torch.equal(part.dy, choices.dy[8:]) and torch.equal(picked.flip, choices.flip[[9, 0]])


@pytest.mark.parametrize("settings, words", [
    (dict(flip="sometimes"), "flip must be one of none, random, alternating, got 'sometimes'"),
    (dict(crop_mode="wrap"), "crop_mode must be one of"),
    (dict(cutout_px=-1), "cutout_px must be at least 0, got -1"),
])  # fmt: skip
def test_impossible_augmentations_are_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        Augment(**settings)


def test_padding_that_cannot_be_reflected_names_the_size():
    with pytest.raises(ValueError, match=r"crop_padding_px=8 can't be reflected from images of 8x32 px"):
        draw(Augment(crop_padding_px=8), 10, (8, 32), seed=0, epoch=0)


def test_a_cpu_without_numba_copies_rows_and_is_told_so(monkeypatch):
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    dispatch._kernel.cache_clear()
    name, reason = augment.kernel_for("auto", torch.device("cpu"))
    with pytest.raises(ValueError, match="data.kernel=fused needs numba"):
        augment.kernel_for("fused", torch.device("cpu"))
    dispatch._kernel.cache_clear()
    assert name == "rows" and "numba" in reason


def test_a_cpu_gets_the_fused_kernel_and_is_told_what_it_cannot_have():
    cpu = torch.device("cpu")
    assert augment.kernel_for("auto", cpu)[0] == "fused"
    assert augment.kernel_for("reference", cpu)[0] == "reference"
    with pytest.raises(ValueError, match="data.kernel must be one of .*, got 'cuda'"):
        augment.kernel_for("cuda", cpu)
    with pytest.raises(ValueError, match="data.kernel=rows is for a CPU, this run is on cuda"):
        augment.kernel_for("rows", torch.device("cuda"))


def test_a_gpu_without_triton_gets_plain_pytorch_and_is_told_so(monkeypatch):
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    dispatch._kernel.cache_clear()
    name, reason = augment.kernel_for("auto", torch.device("cuda"))
    assert name == "reference" and "no Triton" in reason
    with pytest.raises(ValueError, match="triton isn't installed"):
        augment.kernel_for("triton", torch.device("cuda"))
    dispatch._kernel.cache_clear()
