"""Betons: what FFCV wrote is read pixel for pixel, damage is refused by name, nothing half-written stays."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import betons_by_hand
import numpy as np
import pytest

from fastresnet import beton
from fastresnet.base.digest import content_digest
from fastresnet.beton import worker
from fastresnet.beton import writer as writing
from fastresnet.beton.pages import ROW, fingerprint
from fastresnet.sources import FolderSet

needs_ffcv = pytest.mark.skipif(not beton.can_write(), reason="writing betons needs ffcv")
FACTS = {
    "name": "shapes", "split": "train", "digest": "00", "class_names": ["a", "b"], "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2], "count": 6, "source": "parquet", "synthetic": False,
}  # fmt: skip
FINGERPRINT_OF_ALL_BYTES = "6ba475836c1b32bd863eee5e2c4f3b6106f9b696374beb7b4f1cf83a9c68fc25"
READ_BY_FFCV = """
import sys
import numpy as np, torch
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.compiler import Compiler
Compiler.set_enabled(False)  # the same code without 10 s of compilation a pipeline
for path in sys.argv[1:]:
    loader = Loader(path, batch_size=7, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False,
                    os_cache=True, pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]})
    images, labels = zip(*[(image.copy(), label.copy()) for image, label in loader])
    np.savez(path + ".npz", images=np.concatenate(images), labels=np.concatenate(labels)[:, 0])
"""


def smooth(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that JPEG keeps well, and labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    images = np.kron(coarse, np.ones((1, size // 4, size // 4, 1))).astype(np.uint8)
    return images, rng.integers(0, 10, count)


@pytest.fixture(scope="module")
def writers() -> Iterator[list[beton.Writer]]:
    made: list[beton.Writer] = []
    yield made
    for process in made:
        process.close()


@pytest.fixture
def writer(writers: list[beton.Writer]) -> beton.Writer:
    """A process with ffcv in it, which takes seconds to start: the last one, unless a failure ended it."""
    if not beton.can_write():
        pytest.skip("writing betons needs ffcv")
    if not writers or writers[-1]._process.poll() is not None:
        writers.append(beton.Writer())
    return writers[-1]


@pytest.mark.slow(15)
def test_all_write_modes_read_as_ffcv_reads_them(writer: beton.Writer, tmp_path: Path) -> None:
    sets = {mode: smooth(40, 32) for mode in ("raw", "jpg", "proportion")} | {"smart": smooth(12, 160)}
    for mode, (images, labels) in sets.items():
        seen: list[tuple[int, int]] = []
        writer.write(tmp_path / f"{mode}.beton", images, labels, mode=mode, workers=2,
                     progress=lambda done, total, seen=seen: seen.append((done, total)))  # fmt: skip
        assert seen[-1] == (len(labels), len(labels))
    paths = {mode: str(tmp_path / f"{mode}.beton") for mode in sets}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_BY_FFCV, *paths.values()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for mode, (images, labels) in sets.items():
        modes = beton.open_beton(paths[mode]).stored_as
        ours, our_labels = beton.read(paths[mode])
        theirs = np.load(paths[mode] + ".npz")
        assert np.array_equal(our_labels, labels) and np.array_equal(theirs["labels"], labels)
        difference = np.abs(ours.astype(int) - theirs["images"].astype(int))
        if mode == "raw":
            assert modes["jpg"] == 0 and np.array_equal(ours, images) and difference.max() == 0
            continue
        assert modes["jpg"] > 0 and (modes["raw"] > 0) == (mode == "proportion")
        # FFCV asks libjpeg-turbo for its fast DCT, which rounds more coarsely than Pillow's accurate one
        assert difference.max() <= 8 and difference.mean() < 1
        assert np.abs(ours.astype(int) - images).mean() < 12  # sharp edges of colour cost JPEG this much


def test_the_jpegs_that_ffcv_wrote_come_out_as_jpegs(writer: beton.Writer, tmp_path: Path) -> None:
    images, labels = smooth(5, 32)
    writer.write(tmp_path / "x.beton", images, labels, mode="jpg")
    payloads = beton.jpeg_payloads(beton.open_beton(tmp_path / "x.beton"))
    assert len(payloads) == 5 and all(p[:2] == b"\xff\xd8" and p[-2:] == b"\xff\xd9" for p in payloads)


def test_an_image_that_fails_while_being_written_ends_the_writer_with_its_name(writer, tmp_path):
    (tmp_path / "good.png").write_bytes(betons_by_hand.jpeg(np.zeros((8, 8, 3), np.uint8)))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    paths = [tmp_path / ("bad.png" if i == 250 else "good.png") for i in range(300)]
    images = FolderSet(tuple(paths), ((8, 8, 3),) * 300, np.zeros(300, np.int64), ("a",), "x", "train")
    words = r"x\.beton can't be written: .*bad\.png is not a readable image"
    with pytest.raises(beton.BetonError, match=words):
        writer.write(tmp_path / "out/x.beton", images, images.labels, workers=2)
    assert os.listdir(tmp_path / "out") == []


@needs_ffcv
def test_a_full_disk_is_one_line_and_leaves_the_old_beton_as_it_was(tmp_path, monkeypatch):
    path = betons_by_hand.make(tmp_path / "x.beton", list(smooth(3, 8)[0]), [0, 1, 2])
    before = path.read_bytes()
    little = SimpleNamespace(free=1 << 20)
    monkeypatch.setattr("fastresnet.beton.writer.shutil.disk_usage", lambda folder: little)
    with pytest.raises(beton.BetonError, match="the disk has 1.0 MiB free"):
        beton.write(path, *smooth(20, 32))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.beton"]


@needs_ffcv
def test_nothing_is_written_when_nobody_is_left_who_asked_for_it(tmp_path: Path) -> None:
    job = worker.Job(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64), "raw", 90, 1, 1 << 21, 0)
    root, another = str(Path(__file__).parents[1]), "1"  # not the number of its parent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", writing._START, root, another],
        input=pickle.dumps((str(tmp_path / "x.beton"), job)), capture_output=True, timeout=100,
        start_new_session=True,
    )  # fmt: skip
    assert done.stdout == b"" and os.listdir(tmp_path) == []


@needs_ffcv
def test_a_file_size_limit_hit_while_writing_ends_with_the_systems_reason(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys, numpy as np\n"
        "from fastresnet import beton\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 20, 12 << 20))\n"
        "try: beton.write(sys.argv[1], np.zeros((9000, 32, 32, 3), np.uint8), np.zeros(9000, np.int64))\n"
        "except beton.BetonError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.beton")],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert "x.beton can't be written: " in done.stdout and done.stderr == "", done
    assert os.listdir(tmp_path) == []


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize("images, labels, settings, message", [
    (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int64), {}, "images must be uint8"),
    (IMAGES, np.zeros(3, np.int64), {}, "2 images and 3 labels"),
    (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int64), {}, "at least one"),
    (IMAGES, np.zeros(2), {}, "labels must be whole numbers"),
    (IMAGES, np.zeros(2, np.int64), {"mode": "png"}, "write mode must be one of"),
    (IMAGES, np.zeros(2, np.int64), {"quality": 0}, "quality must lie between"),
])  # fmt: skip
@needs_ffcv
def test_what_ffcv_would_hang_on_is_refused_before(tmp_path, images, labels, settings, message) -> None:
    with pytest.raises(beton.BetonError, match=message):
        beton.write(tmp_path / "x.beton", images, labels, **settings)
    assert os.listdir(tmp_path) == []


def test_without_ffcv_writing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastresnet.beton.writer.importlib.util.find_spec", lambda name: None)
    with pytest.raises(beton.BetonError, match="needs ffcv: run scripts/setup.sh"):
        beton.write(tmp_path / "x.beton", *smooth(2, 8))


def test_samples_out_of_order_and_over_several_pages_are_read_in_sample_order(tmp_path: Path) -> None:
    images, labels = smooth(60, 128)  # 48 KiB each: 42 to a page of 2 MiB
    order = [int(i) for i in np.random.default_rng(1).permutation(60)]
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), labels.tolist(), order=order)
    read, read_labels = beton.read(path)
    assert np.array_equal(read, images) and np.array_equal(read_labels, labels)


def test_jpeg_and_raw_images_mix_in_one_beton(tmp_path: Path) -> None:
    images, labels = smooth(9, 16)
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), labels.tolist(), {0, 3, 4})
    expected, _ = betons_by_hand.read(path.read_bytes())
    for threads in (1, 3):
        assert np.array_equal(beton.read(path, threads=threads)[0], np.stack(expected))
    assert beton.open_beton(path).stored_as == {"jpg": 3, "raw": 6}
    with pytest.raises(beton.BetonError, match="sample 1 is stored raw"):
        beton.jpeg_payloads(beton.open_beton(path))


def test_a_corrupt_jpeg_is_named_or_left_out(tmp_path: Path) -> None:
    images, labels = smooth(9, 16)
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), labels.tolist(), set(range(9)))
    layout = beton.open_beton(path)
    content = bytearray(path.read_bytes())
    at = int(layout.pointers[4])
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(beton.BetonError, match=r"x\.beton: the JPEG of sample 4 can't be decoded"):
        beton.read(path)
    with pytest.raises(beton.BetonError, match="sample 4"):
        beton.verify(path)
    read, read_labels, skipped = beton.read_whole(beton.open_beton(path), on_error="skip")
    assert skipped.tolist() == [4] and len(read) == 8 and np.array_equal(read_labels, np.delete(labels, 4))


def test_images_of_several_sizes_are_described_but_not_read_whole(tmp_path: Path) -> None:
    images = [np.full((8 + i, 10, 3), i, np.uint8) for i in range(3)]
    path = betons_by_hand.make(tmp_path / "x.beton", images, [0, 1, 2])
    layout = beton.open_beton(path)
    assert (layout.uniform, layout.largest) == (False, (10, 10))
    shapes = [image.shape for image in beton.each_image(layout)]
    assert shapes == [(8, 10, 3), (9, 10, 3), (10, 10, 3)]
    with pytest.raises(beton.BetonError, match="images differ in size .*sample 1 is 10x9 px"):
        beton.read(path)


def test_missing_empty_foreign_and_cut_off_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = betons_by_hand.make(tmp_path / "x.beton", list(smooth(6, 16)[0]), list(range(6))).read_bytes()

    def refused(content: bytes, message: str) -> None:
        (tmp_path / "y.beton").write_bytes(content)
        with pytest.raises(beton.BetonError, match=message) as caught:
            beton.read(tmp_path / "y.beton")
        assert "y.beton" in str(caught.value) and "\n" not in str(caught.value)

    with pytest.raises(beton.BetonError, match="does not exist; write it with scripts/convert.py"):
        beton.read(tmp_path / "none.beton")
    with pytest.raises(beton.BetonError, match="is not a file"):
        beton.read(tmp_path)
    refused(b"", "is empty")
    refused(b"PK\x03\x04" * 10, "version .* is it a beton at all")
    refused(whole[:-10], "allocation table .* cut off")
    refused(whole[:-48], "don't go together")
    refused(whole[: 3 << 20], "cut off")
    refused(whole[:16] + bytes(8) + whole[24:], "half written")
    refused(whole[:8] + bytes(8) + whole[16:], "holds no samples")
    refused(whole[:24] + b"\x03" + whole[25:], "needs an RGB image field and an integer label field")
    refused(whole[:24] + b"\xff" + whole[25:], "only FFCV's own reader")
    refused(whole[: 24 + 1041] + b"\x00" + whole[24 + 1042 :], "integer label field")


def test_the_label_is_the_field_called_so_or_the_only_integer_or_the_one_asked_for(tmp_path: Path) -> None:
    path, index, target = tmp_path / "x.beton", (1, b"index", [0, 1, 2]), (1, b"target", [5, 6, 7])
    betons_by_hand.with_fields(path, [index, target])
    with pytest.raises(beton.BetonError, match="several integer fields: index, target; name .* data.label"):
        beton.open_beton(path)
    layout = beton.open_beton(path, "target")
    assert layout.labels.tolist() == [5, 6, 7] and layout.label_field == "target"
    assert layout.field_names == ("picture", "index", "target") and layout.image_field == "picture"
    with pytest.raises(beton.BetonError, match="data.label_field=fine: there is no such integer field, but"):
        beton.open_beton(path, "fine")
    betons_by_hand.with_fields(path, [index, (1, b"label", [3, 2, 1])])
    assert beton.open_beton(path).labels.tolist() == [3, 2, 1]
    betons_by_hand.with_fields(path, [(0, b"weight", [1, 1, 1]), (1, b"class", [3, 2, 1])])
    assert beton.read(path)[1].tolist() == [3, 2, 1]
    assert [int(image.max()) for image in beton.read(path)[0]] == [0, 1, 2]


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    for wrong in (-1, 1 << 40):
        path = betons_by_hand.make(tmp_path / "x.beton", list(smooth(3, 8)[0]), [0, wrong, 1])
        with pytest.raises(beton.BetonError, match=f"label {wrong} of sample 1 is no class"):
            beton.open_beton(path)


def test_pages_are_compared_when_they_are_first_touched(tmp_path: Path) -> None:
    images, labels = smooth(60, 128)  # 48 KiB each: 42 to a page of 2 MiB
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), labels.tolist())
    betons_by_hand.beside(path, {**FACTS, "count": 60, "digest": content_digest(images, labels)})
    content = bytearray(path.read_bytes())
    content[2 * betons_by_hand.PAGE + 5] ^= 1  # in the second page
    path.write_bytes(content)
    layout = beton.open_beton(path)
    _, check = beton.read_sidecar(layout)
    check.check(np.arange(42))
    with pytest.raises(beton.BetonError, match=r"page 1 \(samples 42 to 59\) is not what was written"):
        check.check(np.array([3, 50]))
    content[2 * betons_by_hand.PAGE + 5] ^= 1
    content[betons_by_hand.PAGE + 5] ^= 1
    path.write_bytes(content)
    check.check(np.array([3, 50]))  # page 0 was compared already: it isn't read a second time


def test_a_fingerprint_sees_every_bit_wherever_it_lies(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for length in (1, 8, ROW, 2 * ROW + 5):
        content = random.integers(0, 256, length, dtype=np.uint8)
        seen = {fingerprint(content), fingerprint(np.append(content, np.uint8(0)))}
        for at in {0, length // 2, length - 1}:
            for bit in range(8):
                changed = content.copy()
                changed[at] ^= 1 << bit
                seen.add(fingerprint(changed))
        assert len(seen) == 2 + 8 * len({0, length // 2, length - 1})
    words = random.integers(0, 256, ROW, dtype=np.uint8)
    for bit in range(64):  # the same bit of two words: what a single sum of products would miss
        changed = words.copy()
        changed[[bit // 8, 8 + bit // 8]] ^= np.uint8(1 << bit % 8)
        assert fingerprint(changed) != fingerprint(words)
    swapped = words.reshape(-1, 8)[random.permutation(ROW // 8)].reshape(-1)
    assert fingerprint(swapped) != fingerprint(words)
    assert fingerprint(np.arange(256, dtype=np.uint8)) == FINGERPRINT_OF_ALL_BYTES  # for ever


def test_verify_reads_hashes_and_decodes_everything(tmp_path: Path) -> None:
    images, labels = smooth(6, 16)
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), (labels % 2).tolist())
    facts = {**FACTS, "digest": content_digest(images, labels % 2)}
    betons_by_hand.beside(path, facts)
    layout, found = beton.verify(path)
    assert len(layout) == 6 and found["digest"] == facts["digest"]
    betons_by_hand.beside(path, {**facts, "digest": content_digest(images, 1 - labels % 2)})
    with pytest.raises(beton.BetonError, match="its images are not those that its sidecar speaks of"):
        beton.verify(path)
    betons_by_hand.beside(path, {**facts, "class_names": ["a"]})
    with pytest.raises(beton.BetonError, match=r"lies outside 0\.\.0"):
        beton.verify(path)
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    betons_by_hand.beside(path, facts)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(images.tobytes(), noise.tobytes()))
    with pytest.raises(beton.BetonError, match="page 0"):
        beton.verify(path)


def test_labels_out_of_range_are_found_by_verify(tmp_path: Path) -> None:
    path = betons_by_hand.make(tmp_path / "x.beton", list(smooth(4, 8)[0]), [0, 1, 7, 1])
    with pytest.raises(beton.BetonError, match=r"label 7 of sample 2 lies outside 0\.\.1"):
        beton.verify(path, classes=2)


def test_a_beton_changed_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    path = betons_by_hand.make(tmp_path / "x.beton", list(smooth(6, 16)[0]), list(range(6)), {5})
    layout = beton.open_beton(path)
    os.truncate(path, betons_by_hand.PAGE + 10)
    with pytest.raises(beton.BetonError, match="cut off while it was being read"):
        layout.payload(5)
    with pytest.raises(beton.BetonError, match="changed or removed while it was in use"):
        layout.file.check_unchanged()
    path.unlink()
    with pytest.raises(beton.BetonError, match="changed or removed"):
        layout.file.check_unchanged()


def test_a_sidecar_belongs_to_its_beton_alone(writer: beton.Writer, tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    images, labels = smooth(6, 8)
    facts = {**FACTS, "digest": content_digest(images, labels % 2)}
    writer.write(path, images, labels % 2, sidecar=facts)
    found, check = beton.read_sidecar(beton.open_beton(path))
    check.check(np.arange(6))
    assert {key: found[key] for key in facts} == facts and found["stored_digest"] == facts["digest"]
    sidecar = beton.sidecar_path(path)
    text = sidecar.read_text()
    betons_by_hand.make(path, list(images), (1 - labels % 2).tolist())
    with pytest.raises(beton.BetonError, match=r"train\.beton\.json belongs to another beton"):
        beton.read_sidecar(beton.open_beton(path))
    for broken, message in (("{", "not readable JSON"), ("[]", "is missing or of the wrong type"),
                            (text.replace("0.5", "0.6"), "was edited"), ("[" * 99999, "not readable JSON"),
                            (text.replace("0.5", "5.0"), "from 0 to 1")):  # fmt: skip
        sidecar.write_text(broken)
        with pytest.raises(beton.BetonError, match=message):
            beton.read_sidecar(beton.open_beton(path))
    sidecar.unlink()
    assert beton.read_sidecar(beton.open_beton(path)) is None
    path.unlink()
    with pytest.raises(beton.BetonError, match="differs from what was to be written"):
        writer.write(path, images, labels % 2, sidecar={**FACTS, "digest": content_digest(images, labels)})
    assert os.listdir(tmp_path) == []


def test_several_threads_can_read_one_beton(tmp_path: Path) -> None:
    images, labels = smooth(30, 16)
    path = betons_by_hand.make(tmp_path / "x.beton", list(images), labels.tolist())
    layout, wrong = beton.open_beton(path), []

    def read() -> None:
        wrong.extend(i for i in range(30) if not np.array_equal(beton.read_one(layout, i), images[i]))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
