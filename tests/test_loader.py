"""The resident loader: which image comes when, on which rank, and that it depends on (seed, epoch) alone."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastresnet.augment import Augment
from fastresnet.loading import Batching
from fastresnet.loading.resident import ResidentLoader

STATISTICS = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SPEC = Augment(2, "reflect", "random", 4, 0.1, 0.1)


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose pixels all hold the image's number, which is its label too."""
    labels = np.arange(count)
    return np.broadcast_to(labels[:, None, None, None], (count, 8, 8, 3)).astype(np.uint8).copy(), labels


def loader(count: int = 50, **keywords) -> ResidentLoader:
    settings = dict(batch_size=16, seed=3) | STATISTICS | keywords
    return ResidentLoader(*numbered(count), Batching(**settings))


def labels_of(batches) -> list[int]:
    return torch.cat([labels for _, labels in batches]).tolist()


def test_an_epoch_shows_every_image_once_with_its_label():
    seen = list(loader(shuffle=True).epoch(0))
    assert sorted(labels_of(seen)) == list(range(50))
    for images, labels in seen:
        values = (images * 0.25 + 0.5) * 255
        assert torch.allclose(values, labels.view(-1, 1, 1, 1).expand_as(values).float(), atol=1e-3)


def test_batches_are_channels_last_in_the_dtype_asked_for():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        images, labels = next(loader(dtype=dtype).epoch(0))
        assert images.dtype == dtype and images.shape == (16, 3, 8, 8) and labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_without_shuffling_the_order_is_the_stored_one():
    assert labels_of(loader().epoch(4)) == list(range(50))


@pytest.mark.parametrize(
    "count, drop_last, sizes", [(50, False, [16, 16, 16, 2]), (50, True, [16] * 3), (48, False, [16] * 3)]
)
def test_the_last_small_batch_comes_unless_it_is_dropped(count, drop_last, sizes):
    subject = loader(count, drop_last=drop_last)
    assert [len(labels) for _, labels in subject.epoch(0)] == sizes
    assert len(subject) == len(sizes) and subject.num_samples == sum(sizes)


def test_the_same_seed_and_epoch_give_the_same_batches_in_any_order_of_asking():
    one, other = loader(augment=SPEC, shuffle=True), loader(augment=SPEC, shuffle=True)
    list(other.epoch(0))
    for (images, labels), (same_images, same_labels) in zip(one.epoch(7), other.epoch(7), strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert labels_of(one.epoch(7)) != labels_of(one.epoch(8))
    one.seed = 4
    assert labels_of(one.epoch(7)) != labels_of(other.epoch(7))


def test_a_batch_is_free_to_keep():
    kept = list(loader(augment=SPEC, shuffle=True).epoch(0))
    for (images, _), (again, _) in zip(kept, loader(augment=SPEC, shuffle=True).epoch(0), strict=True):
        assert torch.equal(images, again)


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_ranks_together_see_the_global_batches_of_one_process(drop_last):
    common = dict(augment=SPEC, shuffle=True, drop_last=drop_last)
    whole = list(loader(52, batch_size=16, **common).epoch(1))
    ranks = [loader(52, batch_size=4, rank=r, world_size=4, **common) for r in range(4)]
    parts = [list(rank.epoch(1)) for rank in ranks]
    assert {len(rank) for rank in ranks} == {len(whole)}
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


def test_all_ranks_make_the_same_number_of_steps_and_a_rest_that_does_not_divide_is_refused():
    ranks = [loader(52, batch_size=4, rank=r, world_size=4, shuffle=True) for r in range(4)]
    assert {len(list(rank.epoch(0))) for rank in ranks} == {4}
    with pytest.raises(ValueError, match="leaves 3 images in an epoch's last batch"):
        loader(51, batch_size=4, rank=0, world_size=4)


def test_the_resolution_follows_the_step_of_the_run():
    subject = loader(resolution=lambda step: 6 if step < 5 else None, sizes=(6, None))
    sizes = [images.shape[-1] for epoch in range(2) for images, _ in subject.epoch(epoch)]
    assert sizes == [6] * 5 + [8] * 3


def test_batches_land_in_the_buffers_given():
    subject = loader(augment=SPEC, shuffle=True)
    asked_for, expected = [], list(subject.epoch(0))
    images, labels = (torch.empty_like(x) for x in expected[0])

    def buffers(shape):
        asked_for.append(shape)
        return (images, labels) if shape == (16, 3, 8, 8) else None

    for (got, got_labels), (wanted, wanted_labels) in zip(subject.epoch(0, buffers), expected, strict=True):
        assert torch.equal(got, wanted) and torch.equal(got_labels, wanted_labels)
        assert (got is images and got_labels is labels) == (len(got) == 16)
    assert asked_for == [(16, 3, 8, 8)] * 3 + [(2, 3, 8, 8)]


def test_a_read_only_array_is_taken_without_a_warning():
    images, labels = numbered(20)
    images.flags.writeable = False
    assert labels_of(ResidentLoader(images, labels, Batching(20, **STATISTICS)).epoch(0)) == list(range(20))


@pytest.mark.parametrize("keywords, words", [
    (dict(batch_size=0), "train.batch_size must be at least 1, got 0"),
    (dict(batch_size=64, drop_last=True), "train.batch_size=64 is larger than the 50 images"),
    (dict(batch_size=16, drop_last=True, world_size=4), "train.batch_size=64 is larger than the 50 images"),
    (dict(kernel="fast"), "data.kernel must be one of"),
])  # fmt: skip
def test_impossible_settings_get_one_clear_line(keywords, words):
    with pytest.raises(ValueError, match=words):
        loader(**keywords)


def test_foreign_arrays_are_refused_with_their_shape():
    images, labels = numbered(20)
    with pytest.raises(ValueError, match=r"images must be uint8 \(N,H,W,3\), got float32 \(20, 8, 8, 3\)"):
        ResidentLoader(images.astype(np.float32), labels, Batching(4, **STATISTICS))
    with pytest.raises(ValueError, match="20 images and 19 labels"):
        ResidentLoader(images, labels[:-1], Batching(4, **STATISTICS))


@contextlib.contextmanager
def no_waiting():
    """A synchronisation in the block is an error. Asking for that warns, and would stay on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_watch_for_waits_is_taken_down_even_where_setting_it_up_warns(monkeypatch):
    modes = []

    def mode(name):
        modes.append(name)
        warnings.warn("a prototype feature", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", mode)
    with no_waiting():
        assert modes == ["error"]
    with pytest.raises(RuntimeError), no_waiting():
        raise RuntimeError("waited")
    assert modes == ["error", "default"] * 2


@pytest.mark.parametrize("kernel", ["triton", "reference"])
def test_an_epoch_on_a_gpu_would_ask_nothing_of_the_device(monkeypatch, kernel):
    """A fake tensor has no values: whoever reads one on the host, as `.item()` and `if` do, gets an error."""
    triton_augment = pytest.importorskip("fastresnet.augment.kernels.triton_augment", exc_type=ImportError)
    launched = []
    monkeypatch.setattr(
        triton_augment, "_kernel", {(n, 1): lambda *a, **k: launched.append(a) for n in (16, 2)}
    )
    monkeypatch.setattr("fastresnet.machine.memory.free_bytes", lambda device: 2**30)
    extras = (("erasing", 0.5), ("grayscale", 0.5), ("mixup", 0.5), ("cutmix", 0.5))
    spec = Augment(2, "reflect", "alternating", 4, 0.1, 0.1, extras)
    with FakeTensorMode(allow_non_fake_inputs=True):
        subject = loader(augment=spec, shuffle=True, device="cuda", kernel=kernel, classes=50)
        shapes = {(tuple(images.shape), tuple(labels.shape)) for images, labels in subject.epoch(0)}
    assert shapes == {((16, 3, 8, 8), (16, 50)), ((2, 3, 8, 8), (2, 50))}
    assert len(launched) == (4 if kernel == "triton" else 0)


@pytest.mark.gpu
def test_an_epoch_on_a_gpu_never_waits_for_the_device():
    subject = loader(augment=SPEC, shuffle=True, device="cuda")
    list(subject.epoch(0))  # compiles the kernel
    with no_waiting():
        for _ in subject.epoch(1):
            pass
