"""Using a trained network: evaluation, prediction, export, Grad-CAM; and checkpoints and images that can't be
used."""

import io
import json
import sys

import betons_by_hand
import drawn
import numpy as np
import pytest
import torch
from made_run import CLASSES, call, write_checkpoint
from PIL import Image

from fastresnet import data
from fastresnet.base import files
from fastresnet.commands import predict
from fastresnet.commands.export import FORMATS
from fastresnet.inference import export, gradcam, judging, model_card, trained
from fastresnet.machine import precision
from fastresnet.reports import metrics


@pytest.fixture
def weights(tmp_path):
    return write_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def test_normalisation_is_that_of_training(weights, pixels):
    network = trained.load(weights)
    expected = (pixels / 255 - np.array([0.5, 0.5, 0.4])) / np.array([0.2, 0.2, 0.3])
    assert np.allclose(network.normalise(pixels).permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        network.normalise(pixels.astype(np.float32))


def test_logits_do_not_depend_on_the_batch_size(weights, pixels):
    network = trained.load(weights).exact()
    assert np.allclose(network.logits(pixels, batch_size=2), network.logits(pixels), atol=1e-5)
    assert np.allclose(network.probabilities(pixels).sum(axis=1), 1)


def test_what_cannot_be_changed_or_does_not_fit_is_named(weights):
    with pytest.raises(ValueError, match="model.depth can't be changed"):
        trained.load(weights, {"model.depth": 32})
    network = trained.load(weights, {"eval.batch_size": 7})
    assert network.cfg.eval.batch_size == 7
    with pytest.raises(ValueError, match="4 classes, that has 3"):
        network.check_classes(("ant", "bee", "cat"), "that")
    with pytest.raises(ValueError, match="'dog' there, 'cow' here"):
        network.check_classes(("ant", "bee", "cat", "cow"), "that")


class Bomb:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "damaged, or not a checkpoint"),
    (lambda path: torch.save({"model": Bomb()}, path), "damaged, or not a checkpoint"),
    (lambda path: write_checkpoint(path, class_names=["one"]), "weights of another model"),
    (lambda path: write_checkpoint(path, format_version=99), "format version 99"),
    (lambda path: torch.save({"weight": torch.zeros(1)}, path), "damaged, or not a checkpoint"),
    (lambda path: path.unlink(), "no such checkpoint"),
])  # fmt: skip
def test_a_checkpoint_that_cannot_be_used_is_one_line_and_exit_2(weights, monkeypatch, capsys, spoil, words):
    spoil(weights)
    assert call(monkeypatch, "predict", "--checkpoint", weights, "-") == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err and "code ran" not in out


# ---- prediction --------------------------------------------------------------------------------------------


def test_predict_prints_classes_and_says_which_are_right(weights, pixels, tmp_path, monkeypatch, capsys):
    (tmp_path / "images" / "ant").mkdir(parents=True)
    Image.fromarray(pixels[0]).save(tmp_path / "images" / "ant" / "a.png")
    Image.fromarray(pixels[1]).save(tmp_path / "images" / "b.png")
    grid, cam = tmp_path / "grid.png", tmp_path / "cam.png"
    words = f"--checkpoint {weights} {tmp_path}/images --top 2 --grid {grid} --gradcam {cam}".split()
    assert call(monkeypatch, "predict", *words) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 2 and all(line.count("%") == 2 for line in lines)
    assert ("right" in lines[0] or "wrong, is ant" in lines[0]) and "right" not in lines[1]
    told = f"right: {int(lines[0].endswith('right'))} of the 1 whose folder is called like a class"
    assert said.err.splitlines()[-3:] == [told, f"drawn: {grid}", f"drawn: {cam}"]
    assert grid.stat().st_size > 1000 and cam.stat().st_size > 1000


def test_predict_reads_standard_input_and_writes_json(weights, pixels, monkeypatch, capsys):
    buffer = io.BytesIO()
    Image.fromarray(pixels[0]).save(buffer, "PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    assert call(monkeypatch, "predict", "--checkpoint", weights, "-", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["probabilities"]) == set(CLASSES) and answer["true"] is None
    assert answer["probability"] == pytest.approx(trained.load(weights).probabilities(pixels[:1]).max())


def test_predict_names_a_bad_image_and_an_empty_folder(weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("hello")
    for name, words in (("empty", "without images"), ("text.png", "is not a readable image")):
        assert call(monkeypatch, "predict", "--checkpoint", weights, tmp_path / name) == 2
        assert words in capsys.readouterr().err


def test_gradcam_lies_between_0_and_1_and_leaves_the_network_alone(weights, pixels):
    network = trained.load(weights)
    before = network.logits(pixels)
    heat = gradcam.heatmaps(network.model, network.normalise(pixels), torch.zeros(6, dtype=torch.int64))
    assert heat.shape == (6, 32, 32) and heat.min() >= 0 and heat.max() <= 1 and heat.max() > 0.99
    assert np.array_equal(network.logits(pixels), before)
    assert all(p.requires_grad and p.grad is None for p in network.model.parameters())


def test_gradcam_finds_the_only_place_that_speaks_for_a_class():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 1, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    torch.nn.init.ones_(model[0].weight)
    images = torch.zeros(1, 3, 8, 8)
    images[0, :, 2, 5] = 1
    heat = gradcam.heatmaps(model, images, torch.zeros(1, dtype=torch.int64))[0]
    assert heat.argmax() == 2 * 8 + 5 and heat.sum() == pytest.approx(1)


# ---- evaluation --------------------------------------------------------------------------------------------


@pytest.fixture
def splits(monkeypatch):
    """The data of evaluate.py, made here: 40 images of the checkpoint's classes."""
    rng = np.random.default_rng(1)
    part = data.Split(
        rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), rng.integers(0, 4, 40), None, None, (32, 32), 0
    )
    made = data.Splits(
        part, None, part, (0.5,) * 3, (0.2,) * 3, CLASSES, {"name": "made", "digest": "00", "synthetic": True}
    )
    monkeypatch.setattr(data, "prepare", lambda cfg, notes=None: made)
    return made


def test_evaluate_writes_tables_and_pictures_that_agree(weights, splits, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "evaluate", "--checkpoint", weights, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    out = tmp_path / "run" / "evaluation"
    assert json.loads((out / "evaluation.json").read_text()) == printed
    rows = [line.split(",") for line in (out / "confusion.csv").read_text().splitlines()]
    assert rows[0][1:] == list(CLASSES)
    assert np.array([row[1:] for row in rows[1:]], int).tolist() == printed["confusion"]
    logits = trained.load(weights).logits(splits.test.images)
    assert printed["top1"] == metrics.evaluation(logits, splits.test.labels, CLASSES)["top1"]
    assert set(printed["tta"]) == {"flip", "crops"} and printed["synthetic"] is True
    names = ("confusion.png", "confusion_normalised.png", "reliability.png", "worst.png")
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_judging_opens_the_set_once_and_says_before_each_batch_where_it_stands(weights, splits, monkeypatch):
    said, opened, open_loader = [], [], judging.open_loader
    monkeypatch.setattr(judging, "open_loader", lambda *given: opened.append(1) or open_loader(*given))
    judging.judge(trained.load(weights, {"eval.batch_size": 25}), splits.test, said.append)
    stood = [f"evaluating, TTA {tta} of 40 images" for tta in ("none: 0", "none: 25", "flip: 0")]
    assert said[:3] == stood and len(said) == 6 and len(opened) == 1


def test_evaluate_for_people_says_that_the_data_is_drawn(weights, splits, monkeypatch, capsys):
    assert call(monkeypatch, "evaluate", "--checkpoint", weights) == 0
    text = capsys.readouterr().out
    assert "SYNTHETIC" in text and "95 % interval" in text and "TTA    flip" in text


def test_on_a_terminal_no_line_about_a_network_is_longer_than_it(
    weights, splits, pixels, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert call(monkeypatch, "evaluate", "--checkpoint", weights) == 0
    Image.fromarray(pixels[0]).save(tmp_path / "one.png")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "predict", "--checkpoint", weights, "one.png") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, told)) <= 70 and told[-2] == "one.png" and told[-1].count(" %") == 3
    assert "next      fastresnet export \\" in told
    assert call(monkeypatch, "export", "--checkpoint", weights, "--formats", "card") == 0
    assert "says what goes in and what comes out" in capsys.readouterr().out


def test_evaluate_refuses_other_classes_and_a_split_that_is_not_there(tmp_path, splits, monkeypatch, capsys):
    other = write_checkpoint(tmp_path / "other.pt", classes=("ant", "bee", "cat"))
    assert call(monkeypatch, "evaluate", "--checkpoint", other) == 2
    assert "3 classes" in capsys.readouterr().err
    assert call(monkeypatch, "evaluate", "--checkpoint", other, "--split", "val") == 2
    assert "without a validation split" in capsys.readouterr().err


def test_evaluation_computes_in_the_run_s_precision_unless_told(weights, splits, monkeypatch, capsys):
    def judged(*words):
        assert call(monkeypatch, "evaluate", "--checkpoint", weights, "--json", *words) == 0
        return json.loads(capsys.readouterr().out)

    half, exact = judged("--train.precision=bf16"), judged("--train.precision=fp32")
    assert (half["precision"], exact["precision"]) == ("bf16", "fp32") and half["loss"] != exact["loss"]
    own = trained.load(weights).cfg.train.precision
    assert judged()["precision"] == precision.resolve(own, torch.device("cpu")).name


def test_a_run_in_a_precision_that_this_device_lacks_is_judged_in_fp32_and_says_so(tmp_path):
    path = write_checkpoint(tmp_path / "half.pt", changes={"train.precision": "fp16"})
    network = trained.load(path)
    assert network.precision.name == "fp32"
    assert "the run's fp16 can't be had on this cpu" in network.precision.reason
    with pytest.raises(ValueError, match="train.precision=fp16 needs a GPU"):
        trained.load(path, {"train.precision": "fp16"})


# ---- export ------------------------------------------------------------------------------------------------


def test_exporting_leaves_the_network_where_and_as_it_lies(weights):
    network = trained.load(weights)
    before = [(value.data_ptr(), value.stride()) for value in network.model.state_dict().values()]
    export.ready(network)
    assert [(value.data_ptr(), value.stride()) for value in network.model.state_dict().values()] == before


@pytest.mark.parametrize("layout", export.LAYOUTS)
def test_torch_export_gives_the_same_logits_for_uint8_images(weights, pixels, tmp_path, layout):
    network = trained.load(weights)
    path = export.to_torch_export(network, tmp_path / "m.pt2", layout)
    found = export.largest_difference(network, path, pixels, layout)
    assert found["largest_difference"] < 1e-5 * found["largest_logit"] and found["changed_classes"] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_gives_the_same_logits_in_onnxruntime(weights, pixels, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is in the extra `export`")
    network = trained.load(weights)
    found = export.largest_difference(network, export.to_onnx(network, tmp_path / "m.onnx"), pixels[:5])
    assert found["largest_difference"] < 1e-5 * found["largest_logit"] and found["changed_classes"] == 0


def test_safetensors_hold_the_weights_and_what_using_them_needs(weights, tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is in the extra `export`")
    network = trained.load(weights)
    with safetensors.safe_open(export.to_safetensors(network, tmp_path / "m.safetensors"), "pt") as file:
        own = network.model.state_dict()
        assert set(file.keys()) == set(own)
        assert all(torch.equal(file.get_tensor(key), own[key]) for key in own)
        facts = json.loads(file.metadata()["fastresnet"])
    assert facts["class_names"] == list(CLASSES) and facts["image_size"] == 32


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_torchvision_takes_the_weights_of_a_resnet18(tmp_path, pixels, stem):
    pytest.importorskip("torchvision")
    changes = {"model.depth": 18, "model.width": 1.0, "model.stem": stem}
    network = trained.load(write_checkpoint(tmp_path / "a.pt", changes=changes))
    images = network.normalise(pixels)
    with torch.inference_mode():
        assert torch.allclose(export.model_of_torchvision(network)(images), network.model(images), atol=1e-4)
    theirs = torch.load(export.to_torchvision(network, tmp_path / "tv.pth"), weights_only=True)
    assert theirs.keys() == network.model.state_dict().keys()


def test_a_network_that_torchvision_lacks_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="torchvision has no network like"):
        export.to_torchvision(trained.load(weights), tmp_path / "tv.pth")
    narrow = write_checkpoint(tmp_path / "n.pt", changes={"model.depth": 18})
    with pytest.raises(ValueError, match="differs from torchvision's resnet18"):
        export.to_torchvision(trained.load(narrow), tmp_path / "tv.pth")


def test_the_card_comes_from_the_record(weights, tmp_path, monkeypatch, capsys):
    card = model_card.text(trained.load(weights), None)
    assert "ant, bee, cat, dog" in card and "SYNTHETIC" in card and "no record" in card
    assert call(monkeypatch, "export", "--checkpoint", weights, "--formats", "card") == 0
    assert (tmp_path / "run" / "export" / "README.md").read_text() == card
    assert call(monkeypatch, "export", "--checkpoint", weights, "--formats", "png") == 2
    assert "--formats must name some of" in capsys.readouterr().err


def test_an_export_that_lacks_a_package_says_so_before_it_writes_anything(weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert call(monkeypatch, "export", "--checkpoint", weights, "--formats", "card,onnx") == 2
    assert capsys.readouterr().err.endswith("isn't here: pip install onnxscript\n")
    assert not (weights.parent.parent / "export").exists()


# ---- streamed sets -----------------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path):
    """The same 20 images as a split in memory and as one that must be streamed from a beton of 24."""
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), rng.integers(0, 4, 24)
    path = tmp_path / "test.beton"
    betons_by_hand.make(path, list(images), labels.tolist())
    kept = np.arange(4, 24)
    whole = data.Split(images[kept], labels[kept], None, None, (32, 32), 0)
    return whole, data.Split(None, labels[kept], path, kept, (32, 32), images[kept].nbytes)


def test_the_worst_mistakes_of_a_streamed_set_are_shown_from_its_beton(halves):
    whole, streamed = map(data.Pictures, halves)
    assert all(np.array_equal(whole[place], streamed[place]) for place in (0, 7, 19))


@pytest.mark.slow(15)
def test_a_streamed_set_is_judged_as_the_same_images_in_memory_are(weights, halves):
    pytest.importorskip("ffcv")
    network = trained.load(weights, {"eval.batch_size": 8, "data.workers": 1}).exact()
    whole, streamed = (judging.judge(network, part) for part in halves)
    assert whole["confusion"] == streamed["confusion"] and whole["tta"] == streamed["tta"]
    assert whole["loss"] == pytest.approx(streamed["loss"], rel=1e-5)


def test_evaluation_of_a_run_s_checkpoint_repeats_the_run_s_own_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "prepare", lambda *given: drawn.splits(64, 96, 16))
    words = "--config=smoke --train.max_steps=2 --train.batch_size=32 --train.precision=bf16 --run.dir=run"
    more = "--train.compile=off --run.report=false --run.progress=off"
    assert call(monkeypatch, "train", *words.split(), *more.split()) == 0
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    capsys.readouterr()
    assert call(monkeypatch, "evaluate", "--checkpoint", "run", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["precision"], again["top1"]) == ("bf16", record["accuracy"]["test"])
    assert again["loss"] == pytest.approx(record["loss"], rel=1e-5)  # summed in fp32 there


def test_predict_takes_more_images_than_it_holds_at_a_time_and_no_endless_stream(
    weights, pixels, tmp_path, monkeypatch, capsys
):
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(predict, "CHUNK", 2)
    monkeypatch.setattr(predict, "GRID", 5)
    grid = tmp_path / "grid.pdf"
    assert call(monkeypatch, "predict", "--checkpoint", weights, tmp_path, "--grid", grid, "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in told] == [str(tmp_path / f"{number}.png") for number in range(6)]
    whole = trained.load(weights).probabilities(pixels)
    assert np.allclose([row["probability"] for row in told], whole.max(axis=1)) and grid.exists()
    monkeypatch.setattr(predict, "LARGEST", 100)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(200))))
    assert call(monkeypatch, "predict", "--checkpoint", weights, "-") == 2
    assert "which no picture takes" in capsys.readouterr().err


def test_a_card_of_a_run_whose_record_is_damaged_is_refused_in_one_line(weights, monkeypatch, capsys):
    (weights.parents[1] / "result.json").write_text("{")
    assert call(monkeypatch, "export", "--checkpoint", weights, "--formats", "card") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind, needs", [("torch", "torch"), ("safetensors", "safetensors")])
def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(
    weights, tmp_path, monkeypatch, kind, needs
):
    pytest.importorskip(needs)
    network, out = trained.load(weights), tmp_path / "export"
    path = FORMATS[kind](network, out, "nhwc")
    before = path.read_bytes()
    monkeypatch.setattr(files.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        FORMATS[kind](network, out, "nhwc")
    assert path.read_bytes() == before and [file.name for file in out.iterdir()] == [path.name]
