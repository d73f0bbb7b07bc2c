"""Every source gives the same images, labels and digest; what is broken is refused by name."""

import io
import json
import os
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastresnet import sources
from fastresnet.base import parts
from fastresnet.base.digest import content_digest
from fastresnet.data.cutting import split_validation, stratified_subset
from fastresnet.sources import ImageSet, Request, SourceError, batches, downloads, synthetic

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 3)
        for split, count in (("train", 15), ("test", 6))
    }


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder: Path, images: dict, shards: int = 1, names: tuple[str, ...] = CLASSES) -> Path:
    """Shards in the hub's layout."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder.mkdir(exist_ok=True)
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "img": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    for split, (pixels, labels) in images.items():
        for shard, part in enumerate(np.array_split(np.arange(len(labels)), shards)):
            rows = [{"bytes": png(pixels[i]), "path": None} for i in part]
            table = arrow.table(
                {
                    "img": arrow.array(
                        rows, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
                    ),
                    "label": arrow.array(labels[part], arrow.int64()),
                }
            ).replace_schema_metadata(metadata)
            parquet.write_table(table, folder / f"{split}-{shard:05}-of-{shards:05}.parquet")
    return folder


def write_python_batches(folder: Path, images: dict) -> Path:
    folder.mkdir()
    pixels, labels = images["train"]
    for number in range(5):
        part = slice(number * 3, number * 3 + 3)
        _pickle(folder / f"data_batch_{number + 1}", pixels[part], labels[part])
    _pickle(folder / "test_batch", *images["test"])
    names = [name.encode() for name in CLASSES]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    return folder


def _pickle(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    planar = pixels.transpose(0, 3, 1, 2).reshape(-1, 3072)
    path.write_bytes(pickle.dumps({b"data": planar, b"labels": labels.tolist(), b"batch_label": b"x"}, 2))


def write_binary_batches(folder: Path, images: dict) -> Path:
    folder.mkdir()
    rows = {split: np.column_stack([labels.astype(np.uint8), pixels.transpose(0, 3, 1, 2).reshape(-1, 3072)])
            for split, (pixels, labels) in images.items()}  # fmt: skip
    for number in range(5):
        rows["train"][number * 3 : number * 3 + 3].tofile(folder / f"data_batch_{number + 1}.bin")
    rows["test"].tofile(folder / "test_batch.bin")
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def write_imagefolder(folder: Path, images: dict) -> Path:
    for split, (pixels, labels) in images.items():
        for number, (image, label) in enumerate(zip(pixels, labels)):
            where = folder / split / CLASSES[label]
            where.mkdir(parents=True, exist_ok=True)
            (where / f"{number:03}.png").write_bytes(png(image))
    return folder


WRITERS = {
    "parquet": write_parquet, "batches": write_python_batches, "binary": write_binary_batches,
    "imagefolder": write_imagefolder,
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_every_source_gives_the_same_set(kind: str, images: dict, tmp_path: Path) -> None:
    root = WRITERS[kind](tmp_path / "shapes", images)
    source = "batches" if kind == "binary" else kind
    assert sources.detect(root) == source
    for split, (pixels, labels) in images.items():
        found = sources.load(source, split, Request(root=root))
        assert isinstance(found, ImageSet) and found.class_names == CLASSES and not found.synthetic
        assert found.images.flags.c_contiguous and found.digest == content_digest(pixels, labels)
        assert found.name == ("cifar10-lookalike" if source == "batches" else "shapes")


def test_the_digest_does_not_depend_on_the_order_but_on_everything_else(images: dict) -> None:
    pixels, labels = images["train"]
    digest, turned = content_digest(pixels, labels), np.random.default_rng(1).permutation(15)
    assert content_digest(pixels[turned], labels[turned]) == digest
    assert content_digest(pixels, labels[::-1]) != digest
    assert content_digest(pixels[:-1], labels[:-1]) != digest
    assert content_digest(pixels[:2], np.array([0, 300])) != content_digest(pixels[:2], np.array([0, 44]))


def test_the_real_cifar10_has_the_published_digest(cifar_root: Path) -> None:
    if sources.detect(cifar_root) not in ("parquet", "batches"):
        pytest.skip("FASTRESNET_DATA holds neither Parquet shards nor batches")
    test = sources.load(str(sources.detect(cifar_root)), "test", Request(root=cifar_root))
    assert (
        isinstance(test, ImageSet)
        and test.name == "cifar10"
        and test.digest == sources.CIFAR10_DIGESTS["test"]
    )
    assert test.class_names == sources.CIFAR10_CLASSES


def test_several_parquet_shards_are_one_split_and_a_missing_one_is_named(images, tmp_path):
    root = write_parquet(tmp_path / "many", images, shards=3)
    found = sources.load("parquet", "train", Request(root=root, workers=2))
    assert np.array_equal(found.labels, images["train"][1])
    (root / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(ValueError, match=r"train shard 1 is missing \(2 of 3 there\)"):
        sources.load("parquet", "train", Request(root=root))


def test_parquet_without_class_names_numbers_them(images: dict, tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "bare", images, names=())
    assert sources.load("parquet", "test", Request(root=root)).class_names == ("0", "1", "2")


def test_labels_that_would_make_absurdly_many_classes_are_refused_before_they_take_memory(images, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shard = write_parquet(tmp_path / "flipped", images, names=()) / "train-00000-of-00001.parquet"
    table = parquet.read_table(shard)
    labels = table.column("label").to_pylist()
    table = table.set_column(1, "label", arrow.array([labels[0] + 2**40, *labels[1:]]))
    parquet.write_table(table, shard)
    with pytest.raises(ValueError, match="flipped train set: a label is 10995116.*more than 100,000 classes"):
        sources.load("parquet", "train", Request(root=shard.parent))


def test_broken_parquet_is_named(images: dict, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"train\.parquet is not a readable Parquet file"):
        sources.load("parquet", "train", Request(root=tmp_path))
    parquet.write_table(arrow.table({"text": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="needs an image column .* found text: string"):
        sources.load("parquet", "train", Request(root=tmp_path))
    with pytest.raises(ValueError, match="no Parquet shard for the test split"):
        sources.load("parquet", "test", Request(root=tmp_path))
    parquet.write_table(arrow.table({"text": ["a"]}), tmp_path / "train.parquet", store_schema=False)
    name = (tmp_path / "train.parquet").read_bytes().replace(b"text", b"te\xec(")  # no UTF-8
    (tmp_path / "train.parquet").write_bytes(name)
    with pytest.raises(SourceError, match=r"train\.parquet is not a readable Parquet file: .*utf-8"):
        sources.load("parquet", "train", Request(root=tmp_path))
    rows = {"img": [png(images["train"][0][0]), b"not an image"], "label": [0, 1]}
    parquet.write_table(arrow.table(rows), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="train row 1 is not a readable image"):
        sources.load("parquet", "train", Request(root=tmp_path))
    rows = {"img": [png(images["train"][0][0]), png(np.zeros((8, 9, 3), np.uint8))], "label": [0, 1]}
    parquet.write_table(arrow.table(rows), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="train row 1 is 9x8 px but .*train row 0 is 32x32 px"):
        sources.load("parquet", "train", Request(root=tmp_path))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        sources.load("parquet", "train", Request(root=tmp_path))


class Dangerous:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_that_would_run_code_is_refused(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_python_batches(tmp_path / "batches", images)
    (root / "data_batch_2").write_bytes(pickle.dumps({b"data": Dangerous(), b"labels": []}, 2))
    with pytest.raises(ValueError, match=r"data_batch_2 is not a readable batch: it asks for .*, which has"):
        sources.load("batches", "train", Request(root=root))
    assert not Path("harmed").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_batches_of_every_pickle_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    content = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2, 3]}
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol))
    read = batches.restricted_unpickle(tmp_path / "batch")
    assert np.array_equal(read[b"data"], content[b"data"]) and read[b"labels"] == [1, 2, 3]


@pytest.mark.parametrize("harm, message", [
    (lambda root: (root / "data_batch_3").write_bytes(b""), "data_batch_3 is not a readable batch"),
    (lambda root: os.truncate(root / "data_batch_3", 500), "data_batch_3 is not a readable batch"),
    (lambda root: (root / "data_batch_3").write_bytes(pickle.dumps([1], 2)), "needs data and labels"),
    (lambda root: _pickle(root / "data_batch_3", np.zeros((1, 1, 1, 3072)), np.zeros(1, np.int64)),
     r"data must be uint8 \(N, 3072\)"),
    (lambda root: (root / "data_batch_5").unlink(), "data_batch_5 is missing"),
])  # fmt: skip
def test_broken_batches_are_named(harm, message: str, images: dict, tmp_path: Path) -> None:
    root = write_python_batches(tmp_path / "batches", images)
    harm(root)
    with pytest.raises(ValueError, match=message):
        sources.load("batches", "train", Request(root=root))


def test_a_cut_off_binary_batch_is_named(images: dict, tmp_path: Path) -> None:
    root = write_binary_batches(tmp_path / "batches", images)
    (root / "test_batch.bin").write_bytes((root / "test_batch.bin").read_bytes()[:-1])
    with pytest.raises(ValueError, match="bin: 18437 bytes is not a whole number of 3073-byte records"):
        sources.load("batches", "test", Request(root=root))


def test_cifar100_batches_take_the_fine_label(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3072), np.uint8)
    for split in ("train", "test"):
        content = {b"data": pixels, b"fine_labels": [99, 3], b"coarse_labels": [1, 2]}
        (tmp_path / split).write_bytes(pickle.dumps(content, 2))
    names = [f"c{k}".encode() for k in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, 2))
    found = sources.load("batches", "train", Request(root=tmp_path))
    assert found.labels.tolist() == [99, 3] and found.name == "cifar100" and found.class_names[99] == "c99"


@pytest.mark.parametrize("harm, message", [
    (lambda root: (root / "train/bee/bad.png").write_bytes(b"no"), r"bad\.png is not a readable image"),
    (lambda root: shutil.rmtree(root / "test/cow"), "test: class folder cow is missing, it is in train/"),
    (lambda root: (root / "test/dog").mkdir(), "test: class folder dog is not in train/"),
    (lambda root: [path.unlink() for path in (root / "train/ant").iterdir()], "train/ant is empty"),
    (lambda root: shutil.rmtree(root / "test"), "no test/ folder beside train/"),
    (lambda root: shutil.rmtree(root / "train"), "no class folders under train/"),
    (lambda root: Image.new("RGB", (9, 8)).save(root / "train/ant/odd.png"),
     r"odd\.png is 9x8 px but .* data\.image_size"),
])  # fmt: skip
def test_what_is_wrong_in_an_image_folder_is_named(harm, message: str, images: dict, tmp_path: Path) -> None:
    root = write_imagefolder(tmp_path / "shapes", images)
    harm(root)
    with pytest.raises(ValueError, match=message):
        for split in sources.SPLITS:
            sources.load("imagefolder", split, Request(root=root))


def test_an_unreadable_image_can_be_left_out(images: dict, tmp_path: Path) -> None:
    root = write_imagefolder(tmp_path / "shapes", images)
    (root / "train/bee/a.png").write_bytes(b"no")
    whole = (root / "train/cow/002.png").read_bytes()
    (root / "train/cow/002.png").write_bytes(whole[: len(whole) // 2])
    assert len(sources.load("imagefolder", "train", Request(root=root, on_error="skip")).labels) == 14


def test_images_of_several_sizes_come_one_by_one(images: dict, tmp_path: Path) -> None:
    root = write_imagefolder(tmp_path / "shapes", images)
    Image.new("L", (50, 40)).save(root / "train/ant/odd.jpg")
    found = sources.load("imagefolder", "train", Request(root=root, image_size=32))
    assert isinstance(found, sources.FolderSet) and len(found) == 16
    assert [image.shape for image in found] == list(found.shapes) and (40, 50, 3) in found.shapes
    found.paths[0].write_bytes(b"gone bad")
    with pytest.raises(ValueError, match=found.paths[0].name):
        found[0]


def test_a_folder_larger_than_memory_comes_one_by_one(images: dict, tmp_path: Path) -> None:
    root = write_imagefolder(tmp_path / "shapes", images)
    found = sources.load("imagefolder", "train", Request(root, memory=15 * 3072 - 1))
    assert isinstance(found, sources.FolderSet) and len(found) == 15
    assert isinstance(sources.load("imagefolder", "train", Request(root, memory=15 * 3072)), ImageSet)
    with pytest.raises(SourceError, match=r"needs 0.0 GiB of memory, and only"):
        sources.load("parquet", "train", Request(write_parquet(tmp_path / "rows", images), memory=100))
    huge = Request(counts={"train": 10**12, "test": 1})
    with pytest.raises(SourceError, match="data.synthetic_train=1000000000000 needs 2,861,022.9 GiB"):
        sources.load("synthetic", "train", huge)


def test_a_pipe_in_a_folder_is_named_and_not_waited_for(images: dict, tmp_path: Path) -> None:
    root = write_imagefolder(tmp_path / "shapes", images)
    os.mkfifo(root / "train/ant/z.png")
    with pytest.raises(ValueError, match=r"z\.png is not a readable image: it is no file but a pipe"):
        sources.load("imagefolder", "train", Request(root))
    assert len(sources.load("imagefolder", "train", Request(root, on_error="skip"))) == 15


def test_names_that_would_move_a_terminal_or_are_no_text_are_shown_as_codes(images, tmp_path):
    root = write_imagefolder(tmp_path / "sh\x1b[2Japes", images)
    for split in ("train", "test"):
        os.rename(root / split / "ant", root / split / "a\x1b]0;nt\x07")
        os.rename(os.fsencode(root / split / "bee"), os.fsencode(root / split) + b"/b\xff")
    found = sources.load("imagefolder", "train", Request(root))
    assert found.class_names == ("a\\x1b]0;nt\\x07", "b\\udcff", "cow") and found.name == "sh\\x1b[2Japes"
    assert len(found) == 15 and "".join(found.class_names).encode("utf-8")


def test_a_source_is_one_file_and_one_line(images, tmp_path, monkeypatch):
    """What a new source brings is all that finding, reading and telling it apart need."""

    def read(request: Request, split: str) -> ImageSet:
        pixels, labels = images[split]
        return ImageSet(pixels, labels, CLASSES, request.folder("ours").name, split, "ours")

    ours = sources.Source(read, holds=lambda folder: any(folder.glob("*.ours")), endings=(".ours",))
    monkeypatch.setattr(synthetic, "OURS", ours, raising=False)
    monkeypatch.setitem(parts.SOURCES, "ours", "fastresnet.sources.synthetic:OURS")
    (tmp_path / "a.ours").touch()
    assert sources.resolve_auto(root=str(tmp_path)) == ("ours", tmp_path)
    before = sources.origin("ours", Request(tmp_path))
    assert len(sources.load("ours", "test", Request(tmp_path))) == 6
    (tmp_path / "a.ours").write_text("more")
    assert sources.origin("ours", Request(tmp_path)) != before
    with pytest.raises(ValueError, match="data.source must be one of torchvision, .*, ours, got 'theirs'"):
        sources.load("theirs", "test")


def test_labels_and_shapes_are_checked() -> None:
    good = np.zeros((2, 4, 4, 3), np.uint8)
    for pixels, labels, message in [
        (good, np.array([0, 3]), r"labels must lie between 0 and 2 \(3 classes\), got 3 at sample 1"),
        (good, np.array([-1, 0]), "got -1 at sample 0"),
        (good, np.array([0.0, 1.0]), "one int64 label an image"),
        (good[:, :, :, :2], np.array([0, 1]), "images must be uint8"),
        (good[:0], np.array([], np.int64), "holds no images"),
    ]:
        with pytest.raises(SourceError, match=message):
            ImageSet(pixels, labels, CLASSES, "x", "train", "test")


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, make) -> None:
    module = types.ModuleType("torchvision")
    vars(module)["datasets"] = types.SimpleNamespace(CIFAR10=make, CIFAR100=make, SVHN=make, STL10=make)
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setattr("fastresnet.sources.downloads.time.sleep", lambda seconds: None)


def test_a_download_is_tried_again_and_offline_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    calls = []

    def offline(*args, **kwargs):
        calls.append(args)
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    fake_torchvision(monkeypatch, offline)
    words = "can't download cifar10 .*3 attempts.* FASTRESNET_DATA .*data.source=synthetic"
    with pytest.raises(ValueError, match=words):
        sources.load("torchvision", "train", Request(root=tmp_path))
    assert len(calls) == 3


def test_a_download_with_the_wrong_content_is_not_called_cifar10(images, tmp_path, monkeypatch):
    pixels, labels = images["train"]
    data = types.SimpleNamespace(data=pixels, targets=labels.tolist(), classes=list(CLASSES))
    fake_torchvision(monkeypatch, lambda *args, **kwargs: data)
    with pytest.raises(SourceError, match="not those of CIFAR-10"):
        sources.load("torchvision", "train", Request(root=tmp_path))
    with pytest.raises(SourceError, match="cifar100 train: expected 50000 images, found 15"):
        sources.load("torchvision", "train", Request(root=tmp_path, name="cifar100"))


def test_planar_downloads_are_turned_to_pixels_last(images: dict, tmp_path: Path, monkeypatch) -> None:
    pixels, labels = images["train"]
    data = types.SimpleNamespace(data=pixels.transpose(0, 3, 1, 2), labels=labels)
    fake_torchvision(monkeypatch, lambda *args, **kwargs: data)
    monkeypatch.setitem(downloads.COUNTS["svhn"], "train", len(pixels))
    found = downloads.read(Request(tmp_path, "svhn"), "train")
    assert np.array_equal(found.images, pixels) and len(found.class_names) == 10


def test_auto_searches_in_the_order_of_the_contract(images: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTRESNET_DATA", raising=False)
    assert sources.resolve_auto() == ("torchvision", Path("data"))
    write_python_batches(tmp_path / "spare", images)
    (tmp_path / "data").mkdir()
    shutil.copytree("spare", "data/cifar-10-batches-py")
    assert sources.resolve_auto() == ("batches", Path("data/."))
    write_parquet(tmp_path / "mine", images)
    monkeypatch.setenv("FASTRESNET_DATA", "mine")
    assert sources.resolve_auto() == ("parquet", Path("mine"))
    assert sources.resolve_auto(root="spare") == ("batches", Path("spare"))
    monkeypatch.setenv("FASTRESNET_DATA", "nowhere")
    with pytest.raises(SourceError, match="FASTRESNET_DATA=nowhere is not a folder"):
        sources.resolve_auto()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(SourceError, match="FASTRESNET_DATA=nowhere holds no betons, Parquet"):
        sources.resolve_auto()


def test_a_subset_keeps_the_classes_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for wanted, count in ((10, 10), (0.5, 50), (7, 7), (100, 100), (1, 1)):
        chosen = stratified_subset(labels, wanted, seed=0)
        assert len(chosen) == count == len(set(chosen)) and (np.diff(chosen) > 0).all()
        assert np.abs(np.bincount(labels[chosen], minlength=3) - np.array([0.6, 0.3, 0.1]) * count).max() < 1
    assert np.array_equal(stratified_subset(labels, 20, 5), stratified_subset(labels, 20, 5))
    assert not np.array_equal(stratified_subset(labels, 20, 5), stratified_subset(labels, 20, 6))
    for wrong in (101, 1.5, 0.001):
        with pytest.raises(SourceError, match="data.subset"):
            stratified_subset(labels, wrong, 0)


def test_validation_and_training_share_no_image_and_lose_none() -> None:
    labels = np.arange(100) % 10
    train, held = split_validation(labels, 0.2, seed=0)
    assert sorted([*train, *held]) == list(range(100)) and (np.bincount(labels[held]) == 2).all()
    assert len(split_validation(labels, 0.0, seed=0)[1]) == 0


# ---- what strangers may hand in ----------------------------------------------------------------------------


def test_a_text_where_parquet_should_hold_bytes_never_opens_the_file_it_names(images, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    elsewhere = tmp_path / "secret.png"
    elsewhere.write_bytes(png(images["train"][0][0]))
    kind = arrow.struct([("bytes", arrow.string()), ("path", arrow.string())])
    rows = arrow.array([{"bytes": str(elsewhere), "path": None}], kind)
    (tmp_path / "set").mkdir()
    parquet.write_table(arrow.table({"img": rows, "label": [0]}), tmp_path / "set" / "train.parquet")
    with pytest.raises(ValueError, match="needs an image column"):
        sources.load("parquet", "train", Request(root=tmp_path / "set"))


def test_parquet_that_unpacks_to_more_than_memory_is_refused_on_the_way(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    many = arrow.table({"img": [bytes(100_000)] * 2000, "label": [0] * 2000})
    parquet.write_table(many, tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="train.parquet needs .* of memory"):
        sources.load("parquet", "train", Request(root=tmp_path, memory=30 << 20))


def test_a_pipe_among_shards_and_deep_metadata_hold_nothing_up(images, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="no Parquet shard for the train split"):
        sources.load("parquet", "train", Request(root=tmp_path))
    (tmp_path / "train.parquet").unlink()
    table = arrow.table({"img": [png(images["train"][0][0])], "label": [0]})
    deep = table.replace_schema_metadata({"huggingface": "[" * 100_000})
    parquet.write_table(deep, tmp_path / "train.parquet")
    assert sources.load("parquet", "train", Request(root=tmp_path)).class_names == ("0",)


@pytest.mark.parametrize("labels", [[[1], [2, 3]], 5, [1.5], ["a"], [2**70], None])
def test_labels_of_a_batch_that_are_no_whole_numbers_are_refused(labels, images, tmp_path):
    root = write_python_batches(tmp_path / "batches", images)
    content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": labels}
    (root / "data_batch_1").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(SourceError, match="whole.number"):
        sources.load("batches", "train", Request(root=root))


@pytest.mark.parametrize("names", [5, {b"a": 1}, b"abc"])
def test_names_of_classes_that_are_no_list_count_as_none(names, images, tmp_path):
    root = write_python_batches(tmp_path / "batches", images)
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    assert sources.load("batches", "train", Request(root=root)).class_names == tuple("0123456789")
