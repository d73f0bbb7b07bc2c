"""Every kernel against the same augmentation written image by image, for each option and all together."""

import pytest
import torch
from oracle import MEAN, STD, assert_within_twice_the_rounding
from oracle import augment as exactly

from fastresnet import augment
from fastresnet.augment import Augment

HEIGHT, WIDTH, STORED, BATCH = 12, 16, 30, 23
EVERYTHING = Augment(3, "mean", "random", 6, 0.2, 0.3)
SPECS = {
    "nothing": Augment(),
    "crop reflect": Augment(crop_padding_px=3),
    "crop zero": Augment(crop_padding_px=3, crop_mode="zero"),
    "crop mean": Augment(crop_padding_px=3, crop_mode="mean"),
    "deepest reflection": Augment(crop_padding_px=HEIGHT - 1, flip="random"),
    "flip": Augment(flip="random"),
    "crop reflect and flip": Augment(crop_padding_px=3, flip="random"),
    "crop zero and flip": Augment(crop_padding_px=3, crop_mode="zero", flip="random"),
    "cutout even": Augment(cutout_px=4),
    "cutout odd": Augment(cutout_px=5),
    "cutout larger than the image": Augment(cutout_px=40),
    "brightness": Augment(brightness=0.3),
    "contrast": Augment(contrast=0.3),
    "all, reflected": Augment(2, "reflect", "alternating", 5, 0.1, 0.1),
    "all, black": Augment(2, "zero", "random", 5, 0.1, 0.1),
    "all, mean": EVERYTHING,
}


@pytest.fixture(scope="module")
def stored() -> torch.Tensor:
    return torch.randint(
        0, 256, (STORED, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture(scope="module")
def indices() -> torch.Tensor:
    return torch.randint(0, STORED, (BATCH,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kernel", ["reference", "rows", "fused"])
def test_the_kernel_does_what_the_documentation_says(stored, indices, kernel, spec, dtype):
    choices = augment.draw(spec, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    arguments = dict(mean=MEAN, std=STD)
    for size in (None, (9, 10)):
        exact = exactly(stored, indices, choices, size)
        plain = augment.apply(stored, indices, choices, size=size, kernel="reference", **arguments)
        result = augment.apply(stored, indices, choices, size=size, kernel=kernel, dtype=dtype, **arguments)
        assert_within_twice_the_rounding(result, plain, exact)


@pytest.mark.parametrize("kernel", ["reference", "rows", "fused"])
def test_memory_format_and_out_buffer_hold_the_same_batch(stored, indices, kernel):
    choices = augment.draw(EVERYTHING, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    arguments = dict(mean=MEAN, std=STD, kernel=kernel)
    last = augment.apply(stored, indices, choices, **arguments)
    first = augment.apply(stored, indices, choices, channels_last=False, **arguments)
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
    assert torch.equal(last, first)
    buffer = torch.full_like(first, float("nan"))
    assert augment.apply(stored, indices, choices, out=buffer, **arguments) is buffer
    assert torch.equal(buffer, first)


def test_flip_mirrors_the_crop_not_the_padding(stored):
    spec = Augment(crop_padding_px=3, crop_mode="zero", flip="random")
    one = torch.tensor([4])
    to_the_left = dict(dy=torch.tensor([3]), dx=torch.tensor([0]))
    plain = augment.Choices(1, spec, **to_the_left)
    mirrored = augment.Choices(1, spec, flip=torch.tensor([True]), **to_the_left)
    for kernel in ("reference", "rows", "fused"):
        before, after = (
            augment.apply(stored, one, choices, mean=MEAN, std=STD, kernel=kernel)
            for choices in (plain, mirrored)
        )
        assert torch.equal(after, before.flip(3))


def test_row_copies_in_several_chunks_equal_one_chunk(stored, indices, monkeypatch):
    from fastresnet.augment.kernels import rows

    choices = augment.draw(EVERYTHING, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    whole = augment.apply(stored, indices, choices, mean=MEAN, std=STD, kernel="rows")
    monkeypatch.setattr(rows, "CHUNK_BYTES", 5 * HEIGHT * WIDTH * 3)
    assert torch.equal(augment.apply(stored, indices, choices, mean=MEAN, std=STD, kernel="rows"), whole)


def test_cutout_and_mean_padding_are_exactly_zero_whatever_the_jitter(stored, indices):
    spec = Augment(crop_padding_px=3, crop_mode="mean", cutout_px=40, brightness=1.0, contrast=1.0)
    choices = augment.draw(spec, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    for kernel in ("reference", "rows", "fused"):
        assert not augment.apply(stored, indices, choices, mean=MEAN, std=STD, kernel=kernel).any()


def test_batches_made_in_inference_mode_do_not_spoil_later_ones(stored, indices):
    choices = augment.draw(EVERYTHING, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    with torch.inference_mode():
        one = augment.apply(stored, indices, choices, mean=MEAN, std=STD, kernel="rows")
    other = augment.apply(stored, indices, choices, mean=MEAN, std=STD, kernel="rows")
    assert torch.equal(one, other) and not other.is_inference()
    (other * torch.ones((), requires_grad=True)).sum().backward()
