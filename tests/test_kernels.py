"""Every kernel against the same augmentation written image by image, for each option and all together."""

import pytest
import torch
from oracle import MEAN, STD, assert_within_twice_the_rounding
from oracle import augment as exactly

from fastresnet import augment
from fastresnet.augment import Augment

HEIGHT, WIDTH, BATCH = 12, 16, 23
RANDOM = torch.Generator().manual_seed(1)
STORED = torch.randint(0, 256, (30, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=RANDOM)
INDICES = torch.randint(0, len(STORED), (BATCH,), generator=RANDOM)
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


def drawn(spec, count=BATCH, epoch=0, device="cpu"):
    return augment.draw(spec, count, (HEIGHT, WIDTH), seed=3, epoch=epoch, device=device)


def finished(choices, kernel, indices=INDICES, **more):
    return augment.apply(STORED, indices, choices, mean=MEAN, std=STD, kernel=kernel, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kernel", ["reference", "rows", "fused"])
def test_the_kernel_does_what_the_documentation_says(kernel, spec, dtype):
    choices = drawn(spec)
    for size in (None, (9, 10)):
        exact = exactly(STORED, INDICES, choices, size)
        plain = finished(choices, "reference", size=size)
        result = finished(choices, kernel, size=size, dtype=dtype)
        assert_within_twice_the_rounding(result, plain, exact)


@pytest.mark.parametrize("kernel", ["reference", "rows", "fused"])
def test_memory_format_and_out_buffer_hold_the_same_batch(kernel):
    choices = drawn(EVERYTHING)
    last = finished(choices, kernel)
    first = finished(choices, kernel, channels_last=False)
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
    assert torch.equal(last, first)
    buffer = torch.full_like(first, float("nan"))
    assert finished(choices, kernel, out=buffer) is buffer
    assert torch.equal(buffer, first)


def test_flip_mirrors_the_crop_not_the_padding():
    spec = Augment(crop_padding_px=3, crop_mode="zero", flip="random")
    one = torch.tensor([4])
    to_the_left = dict(dy=torch.tensor([3]), dx=torch.tensor([0]))
    plain = augment.Choices(1, spec, **to_the_left)
    mirrored = augment.Choices(1, spec, flip=torch.tensor([True]), **to_the_left)
    for kernel in ("reference", "rows", "fused"):
        before, after = (finished(choices, kernel, one) for choices in (plain, mirrored))
        assert torch.equal(after, before.flip(3))


def test_row_copies_in_several_chunks_equal_one_chunk(monkeypatch):
    from fastresnet.augment.kernels import rows

    choices = drawn(EVERYTHING)
    whole = finished(choices, "rows")
    monkeypatch.setattr(rows, "CHUNK_BYTES", 5 * HEIGHT * WIDTH * 3)
    assert torch.equal(finished(choices, "rows"), whole)


def test_cutout_and_mean_padding_are_exactly_zero_whatever_the_jitter():
    spec = Augment(crop_padding_px=3, crop_mode="mean", cutout_px=40, brightness=1.0, contrast=1.0)
    choices = drawn(spec)
    for kernel in ("reference", "rows", "fused"):
        assert not finished(choices, kernel).any()


def test_batches_made_in_inference_mode_do_not_spoil_later_ones():
    choices = drawn(EVERYTHING)
    with torch.inference_mode():
        one = finished(choices, "rows")
    other = finished(choices, "rows")
    assert torch.equal(one, other) and not other.is_inference()
    (other * torch.ones((), requires_grad=True)).sum().backward()
