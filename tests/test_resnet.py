"""ResNets: published sizes, shapes, torchvision's names, options, foreign weights, memory layout."""

import pickle

import pytest
import torch
from drawn import splits
from layout import count_layout_changes
from model_settings import section
from torch.utils.flop_counter import FlopCounterMode

from fastresnet import models
from fastresnet.settings import config
from fastresnet.settings.conflicts import SMALLEST
from fastresnet.training.experiment import Experiment


def build(classes=10, size=32, **changes):
    return models.build(section("model", **changes), classes, size)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "depth, parameters",
    [(18, 11_173_962), (34, 21_282_122), (50, 23_520_842), (101, 42_512_970), (152, 58_156_618)],
)
def test_the_imagenet_family_has_the_published_parameter_counts(depth, parameters):
    with torch.device("meta"):
        assert count(build(depth=depth)) == parameters


@pytest.mark.parametrize(
    "depth, published", [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")]
)
def test_the_cifar_family_has_the_published_parameter_counts(depth, published):
    assert f"{count(build(depth=depth)) / 1e6:.2f}" == published


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_the_imagenet_stem_gives_torchvisions_network(depth, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = build(depth=depth, stem="imagenet", pretrained=str(tmp_path / "weights.pt")).eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_the_cifar_stem_takes_what_fits_of_torchvisions_weights_and_says_what_does_not(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.items()}}, tmp_path / "weights.pt")
    ours = build(pretrained=str(tmp_path / "weights.pt"))
    torch.testing.assert_close(ours.layer4[1].conv2.weight, theirs["layer4.1.conv2.weight"])
    assert "3 left fresh, their shape differs (conv1.weight, fc.weight, fc.bias)" in ours.pretrained_report


def test_a_runs_folder_gives_its_last_averaged_weights(tmp_path):
    theirs, averaged = build(depth=20), build(depth=20)
    with torch.no_grad():
        averaged.fc.bias.fill_(7.0)
    (tmp_path / "checkpoints").mkdir()
    saved = {"model": theirs.state_dict(), "averaged": averaged.state_dict(), "step": 3}
    torch.save(saved, tmp_path / "checkpoints" / "last.pt")
    ours = build(depth=20, pretrained=str(tmp_path))
    assert ours.fc.bias.eq(7.0).all() and ours.conv1.weight.equal(averaged.conv1.weight)
    assert "checkpoints/last.pt: " in ours.pretrained_report
    torch.save({**saved, "averaged": None}, tmp_path / "checkpoints" / "last.pt")
    assert build(depth=20, pretrained=str(tmp_path)).fc.bias.equal(theirs.fc.bias)
    with pytest.raises(ValueError, match="a folder without checkpoints/last.pt"):
        build(depth=20, pretrained=str(tmp_path.parent))


def test_a_run_says_what_it_began_from(tmp_path):
    torch.save(build(depth=20, width=0.5).state_dict(), tmp_path / "weights.pt")
    said = []
    changes = {"model.depth": 20, "model.width": 0.5, "model.pretrained": str(tmp_path / "weights.pt")}
    changes |= {"train.batch_size": 8, "run.device": "cpu"}
    Experiment(config.load(None, changes), splits=splits(16, 8), notes=said.append).close()
    assert any(line.startswith("weights from ") and "tensors loaded" in line for line in said)


def test_the_usual_cifar_names_are_understood(tmp_path):
    source = build(depth=20, shortcut="projection")
    state = {
        k.replace("downsample", "shortcut").replace("fc.", "linear."): v
        for k, v in source.state_dict().items()
    }
    torch.save({"net": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "weights.pth")
    ours = build(depth=20, shortcut="projection", pretrained=str(tmp_path / "weights.pth"))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])


def test_safetensors_load(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    source = build(depth=20)
    safetensors.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    ours = build(depth=20, pretrained=str(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(ours.fc.weight, source.fc.weight)


class Trap:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"conv1.weight": Trap()}))
    with pytest.raises(ValueError, match="evil.pt: refused, it holds more than tensors"):
        build(pretrained=str(tmp_path / "evil.pt"))
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, message",
    [(None, "no such file"), ({"epoch": 1}, "no state dict"), ({"a.weight": torch.zeros(2)}, "nothing fits")],
)
def test_useless_weights_are_refused_with_a_reason(tmp_path, content, message):
    if content is not None:
        torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message):
        build(pretrained=str(tmp_path / "weights.pt"))


SHAPES = [
    dict(depth=18, width=0.25),
    dict(depth=50, width=0.125),
    dict(depth=20),
    dict(depth=20, shortcut="projection"),
    dict(depth=18, width=0.25, block="preactivation", activation="silu"),
    dict(depth=50, width=0.125, block="preactivation_bottleneck", activation="gelu"),
    dict(stage_blocks=[1, 2], stage_widths=[16, 24], convs_per_block=3),
    dict(arch="resnet9", width=0.25),
    dict(arch="resnet9_ffcv", width=0.25),
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("size", [24, 28, 32])
def test_every_kind_of_network_takes_the_usual_image_sizes(changes, size):
    assert build(7, **changes)(torch.randn(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("changes, smallest", [
    (dict(depth=20), 8), (dict(arch="resnet9"), 8), (dict(arch="resnet9_ffcv"), 11),
    (dict(arch="speednet"), 9),
    (dict(arch="speednet", stage_widths=[8] * 4), 17),
])  # fmt: skip
def test_the_smallest_images_that_a_network_takes_are_taken_and_smaller_ones_refused(changes, smallest):
    net = build(7, smallest, width=0.125, **changes).eval()
    assert net(torch.randn(2, 3, smallest, smallest)).shape == (2, 7)
    if smallest > SMALLEST:
        with pytest.raises(ValueError, match=f"takes images of {smallest} px or more, these have"):
            build(7, smallest - 1, **changes)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_stay_channels_last(changes, dtype):
    assert count_layout_changes(build(**changes), dtype) == []


def test_residual_branches_start_at_zero_unless_asked_otherwise():
    zeroed = build(depth=20).layer2[1]
    x = torch.randn(2, 32, 8, 8).relu()
    torch.testing.assert_close(zeroed(x), x)
    assert build(depth=20, zero_init_last_norm=False).layer2[1].bn2.weight.eq(1).all()
    before_norm = build(depth=18, width=0.25, block="preactivation").layer1[1]
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(before_norm(x), x)


def test_the_padding_shortcut_picks_pixels_and_adds_zero_channels():
    shortcut = build(depth=20).layer2[0].downsample
    x = torch.randn(2, 16, 8, 8)
    out = shortcut(x)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].eq(0).all() and out[:, 24:].eq(0).all()


def test_width_multiplies_channels_and_rounds_to_multiples_of_8():
    assert build(width=0.3).conv1.out_channels == 16
    assert build(depth=20, width=0.25).conv1.out_channels == 8
    assert build(width=2.0).fc.in_features == 1024


def test_the_stem_follows_the_image_size():
    assert build(size=64).conv1.kernel_size == (3, 3)
    assert build(size=96).conv1.kernel_size == (7, 7)


@pytest.mark.parametrize("changes, message", [
    (dict(depth=19), "model.depth must be one of 18, 34"),
    (dict(depth=32, block="bottleneck"), "20, 56, 110 with bottlenecks"),
    (dict(stage_blocks=[2, 2], stage_widths=[16]), "one number a stage"),
    (dict(block="shuffle"), "model.block must be one of"),
    (dict(arch="vgg"), "model.arch must be one of"),
])  # fmt: skip
def test_impossible_networks_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    "changes", [dict(), dict(depth=20), dict(arch="resnet9"), dict(arch="speednet")], ids=str
)
def test_flops_agree_with_pytorchs_own_counter(changes):
    model = build(**changes).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert models.flops_per_image(model, 32) == counter.get_total_flops()


def test_resnet18_costs_1_11_gflop():
    assert round(models.flops_per_image(build(), 32) / 1e9, 2) == 1.11
