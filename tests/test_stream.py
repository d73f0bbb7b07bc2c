"""StreamLoader over real betons: the same batches as the resident loader, and FFCV's traps contained."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from fastresnet import beton
from fastresnet.augment import Augment
from fastresnet.beton.pages import checksums
from fastresnet.loading import Batching
from fastresnet.loading.resident import ResidentLoader
from fastresnet.loading.stream import StreamLoader, clamped_workers
from fastresnet.loading.upload import Decoded

pytestmark = pytest.mark.skipif(not beton.can_write(), reason="needs ffcv, which isn't installed")
STATISTICS = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SPEC = Augment(2, "reflect", "random", 4, 0.1, 0.1)
COUNT = 50
SETTINGS = dict(batch_size=16, seed=3, shuffle=True, augment=SPEC) | STATISTICS


@pytest.fixture(scope="module")
def writer():
    """One process with ffcv in it for all betons: starting it takes seconds."""
    with beton.Writer() as process:
        yield process


@pytest.fixture(scope="module")
def raw(tmp_path_factory, writer):
    """A beton of 50 images of 8x8, its images and labels, and one loader for it (FFCV compiles for each)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(COUNT)
    path = tmp_path_factory.mktemp("stream") / "raw.beton"
    writer.write(path, images, labels)
    return path, images, labels, StreamLoader(path, Batching(**SETTINGS), workers=1)


@pytest.fixture(scope="module")
def varied(tmp_path_factory, writer):
    """24 smooth JPEGs of several sizes and four colours, sample 5 corrupt, and a loader at 16 px."""
    random = np.random.default_rng(1)
    images = []
    tints = np.array([[1, 0.3, 0.3], [0.3, 1, 0.3], [0.3, 0.3, 1], [1, 1, 1]])
    for number in range(24):
        height, width = random.integers(20, 60, 2)
        ramp = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 55, width)[None, :, None]
        images.append((ramp * tints[number % 4]).astype(np.uint8))
    path = tmp_path_factory.mktemp("stream") / "varied.beton"
    writer.write(path, images, np.arange(24), mode="jpg")
    layout = beton.open_beton(path)
    with path.open("r+b") as file:
        file.seek(int(layout.pointers[5]))
        file.write(b"\0" * int(layout.sizes[5]))
    asked = Batching(8, seed=3, shuffle=True, augment=Augment(flip="random"), **STATISTICS)
    return images, StreamLoader(path, asked, on_error="skip", image_size=16, workers=1)


def assert_same_batches(one, other, epoch=0):
    for (images, labels), (theirs, numbers) in zip(one.epoch(epoch), other.epoch(epoch), strict=True):
        assert torch.equal(images, theirs) and torch.equal(labels, numbers)
        assert images.is_contiguous(memory_format=torch.channels_last)


def ffcv_threads() -> int:
    return sum(type(thread).__name__ == "Epoch" for thread in threading.enumerate())


def test_streaming_gives_the_resident_loaders_batches(raw):
    path, images, labels, stream = raw
    resident = ResidentLoader(images, labels, Batching(**SETTINGS))
    assert len(stream) == len(resident) and stream.num_samples == resident.num_samples
    for epoch in (0, 3):  # any epoch, without the ones before it: that is what resuming needs
        assert_same_batches(stream, resident, epoch)


def test_a_part_of_a_beton_is_mirrored_as_the_same_images_in_memory_are(raw):
    path, images, labels, _ = raw
    kept = np.arange(5, COUNT, 2)
    asked = Batching(**SETTINGS | {"augment": Augment(flip="alternating")})
    stream = StreamLoader(path, asked, indices=kept, workers=1)
    resident = ResidentLoader(images[kept], labels[kept], asked)
    for epoch in (0, 1):
        (sequence, choices), plan = resident.plan(epoch), stream.plan(epoch)
        assert np.array_equal(plan.samples, kept[sequence.numpy()])
        assert torch.equal(plan.choices.flip, choices.flip)


def test_an_epoch_of_the_hardest_images_streams_those_that_memory_would_show(raw):
    path, images, labels, _ = raw
    kept, losses = np.arange(5, COUNT, 2), torch.rand(23, generator=torch.Generator().manual_seed(0))
    spec = Augment(flip="alternating")
    asked = Batching(**SETTINGS | {"batch_size": 4, "share": 0.5, "augment": spec})
    stream = StreamLoader(path, asked, indices=kept, workers=1)
    resident = ResidentLoader(images[kept], labels[kept], asked)

    def by_losses(order, epoch):
        places = losses[order].argsort(descending=True)[:12].sort().values
        return places, order[places] + epoch

    for loader in (stream, resident):
        loader.choose = by_losses
    hardest = set(kept[losses.argsort(descending=True)[:12].numpy()].tolist())
    assert_same_batches(stream, resident, 1)
    for _, numbers in stream.epoch(0):
        assert kept[stream.rows.numpy()].tolist() == numbers.tolist()
        hardest -= set(numbers.tolist())
    assert not hardest


def test_the_rows_of_a_batch_leave_out_what_could_not_be_read(varied):
    stream = varied[1]
    seen = []
    for _, numbers in stream.epoch(0):
        assert stream.rows.tolist() == numbers.tolist()
        seen += numbers.tolist()
    assert sorted(seen) == [number for number in range(24) if number != 5]


def test_batches_are_free_to_keep(raw):
    _, images, labels, stream = raw
    kept = list(stream.epoch(1))
    resident = ResidentLoader(images, labels, Batching(**SETTINGS))
    for (one, _), (other, _) in zip(kept, resident.epoch(1), strict=True):
        assert torch.equal(one, other)


def test_leaving_an_epoch_early_ends_its_thread(raw):
    stream = raw[3]
    before = ffcv_threads()
    for batch in stream.epoch(0):
        assert ffcv_threads() == before + 1 or batch is not None
        break
    batches = stream.epoch(0)
    next(batches)
    batches.close()
    assert ffcv_threads() == before


def test_an_exception_in_a_stage_ends_the_epoch_with_that_exception(raw, monkeypatch):
    stream, before = raw[3], ffcv_threads()

    def fails(*arguments):
        raise RuntimeError("the stage failed")

    monkeypatch.setattr("fastresnet.loading.ffcv_epoch.EpochIterator.run_pipeline", fails)
    with pytest.raises(RuntimeError, match="the stage failed"):
        list(stream.epoch(0))
    assert ffcv_threads() == before


def test_a_page_is_compared_with_its_checksum_before_its_images_are_given(raw, monkeypatch):
    path, _, _, loader = raw
    sums = checksums(loader.layout)["pages"]
    monkeypatch.setattr(loader, "pages", beton.PageCheck(loader.layout, sums))
    assert sum(len(labels) for _, labels in loader.epoch(0)) == COUNT
    monkeypatch.setattr(loader, "pages", beton.PageCheck(loader.layout, [sums[0][::-1]]))
    with pytest.raises(beton.BetonError, match=r"raw.beton: page 0 \(samples 0 to 49\) is not what was"):
        next(iter(loader.epoch(0)))
    assert ffcv_threads() == 0


def test_a_training_batch_of_corrupt_images_alone_is_a_step_on_the_batch_before(raw, monkeypatch):
    _, images, labels, stream = raw
    good, none = np.arange(16), np.arange(0)

    def steps(*batches):
        def decoded(samples, cut):
            for rows in batches:
                yield Decoded(torch.from_numpy(images[:16]), torch.from_numpy(labels[:16]), rows)

        monkeypatch.setattr(stream, "_decoded", decoded)
        return [shown for shown, _ in stream.epoch(0)]

    first, again = steps(good, none)
    assert torch.equal(first, again)
    with pytest.raises(beton.BetonError, match="no image of an epoch's first batch can be read"):
        steps(none, good)
    monkeypatch.setattr(stream, "asked", replace(stream.asked, shuffle=False))
    assert len(steps(none, good, none)) == 1, "a test counts each image once"


def test_a_beton_that_changes_during_the_run_is_an_error(raw, monkeypatch):
    path, _, _, stream = raw
    batches = stream.epoch(0)
    next(batches)
    monkeypatch.setattr(stream.layout.file, "_stamp", (0, 0))
    with pytest.raises(beton.BetonError, match="was changed or removed while it was in use"):
        list(batches)


def test_a_beton_cut_under_the_threads_that_read_it_is_an_error_and_no_signal(raw, monkeypatch):
    """Cut where no look at the file is between: a mapped file would end this process here."""
    from fastresnet.loading.ffcv_epoch import CUT

    path, _, _, stream = raw
    whole, before = path.read_bytes(), path.stat()
    running = stream._started(stream.samples, None)
    try:
        os.truncate(path, stream.layout.data_start + 8 * 8 * 3 + 1)
        *_, (_, _, last) = running
        assert (last == CUT).all()
        monkeypatch.setattr(stream.layout.file, "check_unchanged", lambda: None)
        with pytest.raises(beton.BetonError, match=r"raw.beton: sample \d+ can't be read"):
            list(stream.epoch(0))
    finally:
        running.close()
        path.write_bytes(whole)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sum(len(labels) for _, labels in stream.epoch(0)) == COUNT


def test_threads_are_no_more_than_cores_and_torch_keeps_its_own(raw):
    assert clamped_workers(10_000) == clamped_workers(0) >= 1 == clamped_workers(1)
    before = torch.get_num_threads()
    next(raw[3].epoch(0))
    assert torch.get_num_threads() == before


def test_pytorch_keeps_its_threads_when_ffcv_is_imported_and_opened(raw):
    program = (
        "import sys, torch; torch.set_num_threads(3)\n"
        "from fastresnet.loading.stream import StreamLoader\n"
        "from fastresnet.loading import Batching\n"
        "loader = StreamLoader(sys.argv[1], Batching(8, [0.5] * 3, [0.5] * 3), workers=1)\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(raw[0])], capture_output=True, text=True)
    assert done.stdout == "3\n", done.stderr


def test_an_epoch_after_the_warm_up_compiles_nothing(raw):
    stream = raw[3]
    stream.warm_up()
    with numba.core.event.install_recorder("numba:compile") as compiled:
        list(stream.epoch(0))
        stream.some_images(20)
    assert not compiled.buffer


def test_some_images_are_plain_from_all_over_the_set_and_those_of_the_resident_loader(raw, varied):
    _, images, labels, stream = raw
    resident = ResidentLoader(images, labels, Batching(**SETTINGS))
    assert torch.equal(stream.some_images(20), resident.some_images(20))
    normalised = (torch.from_numpy(images[:: COUNT // 10]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    torch.testing.assert_close(stream.some_images(10), normalised)
    stored, of_several_sizes = varied
    middle = of_several_sizes.some_images(4)[:, :, 7:9, 7:9].mean((1, 2, 3)) * 0.25 + 0.5
    for picture, seen in zip(stored[::6], middle):
        height, width = picture.shape[:2]
        here = picture[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]
        assert abs(here.mean() / 255 - seen) < 0.03


def test_streamed_jpegs_are_the_pixels_that_the_resident_loader_decodes(writer, tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    images = coarse.repeat(5, axis=1).repeat(5, axis=2)  # hard edges: where decoders differ most
    writer.write(tmp_path / "x.beton", images, np.arange(24), mode="jpg")
    asked = Batching(8, **STATISTICS)
    whole, labels = beton.read(tmp_path / "x.beton")[:2]
    stream = StreamLoader(tmp_path / "x.beton", asked, workers=1)
    resident = ResidentLoader(whole, labels, asked)
    assert_same_batches(stream, resident)


def test_a_beton_with_other_names_order_and_more_fields_streams(tmp_path):
    from ffcv.fields import FloatField, IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    fields = dict(score=FloatField(), target=IntField(), picture=RGBImageField(write_mode="raw"))
    writer = DatasetWriter(str(tmp_path / "x.beton"), fields, num_workers=1)
    writer.from_indexed_dataset([(0.5, number, image) for number, image in enumerate(images)])
    asked = Batching(8, **STATISTICS)
    stream = StreamLoader(tmp_path / "x.beton", asked, workers=1)
    assert_same_batches(stream, ResidentLoader(images, np.arange(20), asked))


def test_a_corrupt_jpeg_is_left_out_or_named(varied):
    images, stream = varied
    stream.skipped.clear()
    batches = list(stream.epoch(0))
    seen = torch.cat([labels for _, labels in batches]).tolist()
    assert sorted(seen) == [i for i in range(24) if i != 5] and stream.skipped == [5]
    stream.on_error = "raise"
    with pytest.raises(beton.BetonError, match="the JPEG of sample 5 can't be decoded"):
        list(stream.epoch(1))
    stream.on_error = "skip"


def test_images_of_several_sizes_become_crops_of_one_size_that_depend_on_seed_and_epoch(varied):
    _, stream = varied
    one, same, later = ([images for images, _ in stream.epoch(k)] for k in (2, 2, 3))
    assert all(images.shape[1:] == (3, 16, 16) for images in one)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], later[0])


def test_testing_shows_the_centre_of_each_image(varied):
    images, stream = varied
    asked, order = stream.asked, stream.order
    stream.asked, stream.order = replace(asked, augment=None), "sequential"
    try:
        shown, labels = next(stream.epoch(0))
    finally:
        stream.asked, stream.order = asked, order
    for picture, label in zip(shown, labels.tolist()):
        height, width = images[label].shape[:2]
        middle = (
            images[label][height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1].mean() / 255
        )
        assert abs(float(picture[:, 7:9, 7:9].mean()) * 0.25 + 0.5 - middle) < 0.03


def test_several_sizes_without_a_size_to_train_at_are_refused_with_the_range(varied):
    with pytest.raises(ValueError, match=r"holds images from .* px: set data.image_size"):
        StreamLoader(varied[1].layout.path, Batching(8, **STATISTICS))


def test_the_decoder_reports_what_it_writes_and_no_more():
    from fastresnet.loading.ffcv_epoch import Decoder

    assert Decoder().size is None and Decoder(16, 24).size == (16, 24)


def test_an_imagenet_stem_resnet_learns_from_images_of_several_sizes(varied):
    from fastresnet import models
    from fastresnet.settings import config

    _, stream = varied
    cfg = config.load("rn18.yaml", {"model.stem": "imagenet", "model.width": 0.25})
    torch.manual_seed(0)
    model = models.build(cfg.model, 4, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for epoch in range(8):
        for images, labels in stream.epoch(epoch):
            loss = torch.nn.functional.cross_entropy(model(images), labels % 4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
