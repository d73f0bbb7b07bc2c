"""Summaries and diagrams: totals are the network's, blocks and residuals are found, pictures open."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from model_settings import section
from torch import nn

from fastresnet import models
from fastresnet.models import diagram
from fastresnet.models.summary import format_table, summarize


def build(**changes):
    return models.build(section("model", **changes), 10)


NETS = [dict(), dict(depth=20), dict(arch="speednet"), dict(arch="resnet9"), dict(block="preactivation")]


@pytest.mark.parametrize("changes", NETS, ids=str)
def test_totals_are_the_networks(changes):
    model = build(**changes)
    summary = summarize(model)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert summary.flops == models.flops_per_image(model, 32)
    assert sum(len(block.layers) for block in summary.blocks) == len(summary.layers)


def test_summarizing_leaves_the_network_as_it_was():
    model = build(depth=20).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summarize(model, 32, batch_size=64)
    assert model.training and not model.conv1._forward_hooks and model.conv1.weight.device.type == "cpu"
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_layers_have_their_shapes_and_kinds_in_order():
    layers = {layer.name: layer for layer in summarize(build()).layers}
    assert list(layers)[:3] == ["conv1", "bn1", "layer1.0.conv1"] and list(layers)[-1] == "fc"
    conv = layers["layer2.0.conv1"]
    assert (conv.kind, conv.output, conv.parameters) == ("conv 3x3 /2", (128, 16, 16), 128 * 64 * 9)
    assert conv.flops == 2 * 128 * 64 * 9 * 16 * 16
    assert layers["layer4.1.conv2"].field.size == 109


def test_blocks_know_whether_their_input_is_added():
    blocks = {block.name: block.residual for block in summarize(build()).blocks}
    assert list(blocks) == ["stem", *(f"layer{i}.{j}" for i in range(1, 5) for j in range(2)), "head"]
    assert [name for name, residual in blocks.items() if not residual] == ["stem", "head"]
    speednet = summarize(build(arch="speednet", residual=True)).blocks
    assert [block.residual for block in speednet] == [False, True, True, True, False]
    assert not any(block.residual for block in summarize(build(arch="speednet")).blocks)


def test_memory_counts_what_the_backward_pass_keeps():
    layers = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False)
    model = nn.Sequential(*layers)
    memory = summarize(model, 8, batch_size=5).memory
    assert memory.weights == memory.gradients == memory.momentum == 4 * (4 * 3 * 9 + 8)
    assert memory.activations == 4 * 5 * 64 * (3 + 4)  # the image, and the activation that both others share
    small, large = (summarize(build(), 32, batch_size=b).memory for b in (8, 16))
    assert large.activations == pytest.approx(2 * small.activations, rel=1e-3)


def test_the_table_is_aligned_and_ends_with_totals():
    text = format_table(summarize(build(arch="speednet"), 32, 100))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MFLOP", "field", "stride", "centre"]
    ends = {len(line) for line in lines[2 : lines.index("")]} | {len(lines[0])}
    assert len(ends) == 1 and "1,972,792 parameters (1,440 frozen), 0.236 GFLOP" in text
    assert "with 100 images in fp32" in text


def test_the_diagram_is_well_formed_and_folds_equal_blocks(tmp_path):
    diagram.draw(summarize(build(depth=56)), tmp_path / "net.svg")
    root = ElementTree.fromstring((tmp_path / "net.svg").read_text("utf-8"))
    words = " ".join(node.text or "" for node in root.iter() if node.tag.endswith("text"))
    assert "layer1.0 … layer1.8 (×9)" in words and "853,018 parameters" in words
    assert len(diagram.boxes(summarize(build(depth=56)))) == 7


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_diagrams_are_written_as_their_ending_says(tmp_path, ending):
    path = tmp_path / f"net.{ending}"
    diagram.draw(summarize(build(arch="speednet")), path)
    assert path.read_bytes().startswith(b"<?xml" if ending == "svg" else b"\x89PNG")


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match="an .svg or a .png file, got '.gif'"):
        diagram.draw(summarize(build(depth=20)), tmp_path / "net.gif")


def test_a_network_in_half_precision_can_be_summarized():
    assert summarize(build(arch="speednet").to(torch.bfloat16)).parameters == 1_972_792


def test_on_a_narrow_terminal_the_table_of_layers_leaves_out_centres():
    made = summarize(build(arch="resnet", depth=18), 32, 512)
    rows = format_table(made, 80).partition("\n\n")[0].splitlines()
    assert max(map(len, rows)) <= 80 and "stride" in rows[0] and "centre" not in rows[0]
    assert "centre" in format_table(made, 200).splitlines()[0]
