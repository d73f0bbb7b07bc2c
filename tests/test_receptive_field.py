"""Receptive fields: as measured by gradients, for every network and every layer."""

import pytest
import torch
from model_settings import section
from torch import nn

from fastresnet import models
from fastresnet.models.layers import GlobalAvgPool, GlobalMaxPool
from fastresnet.models.receptive_field import Field, Tracker
from fastresnet.models.summary import summarize

NETS = [
    dict(depth=20, width=0.5),
    dict(depth=18, width=0.125),
    dict(depth=18, width=0.125, stem="imagenet"),
    dict(stage_blocks=[1, 1], stage_widths=[8, 8], block="preactivation_bottleneck"),
    dict(arch="speednet", width=0.125),
    dict(arch="speednet", width=0.125, convs_per_block=3, residual=True),
    dict(arch="resnet9", width=0.125),
    dict(arch="resnet9_ffcv", width=0.125),
]


def made_linear(model):
    """The same geometry, positive weights, no nonlinearity: gradients fill the whole field and no more."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.ReLU, nn.GELU, nn.SiLU)):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, GlobalMaxPool):
                setattr(module, name, GlobalAvgPool())
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    return model.double().eval()


def measured(model, layer_name, size):
    """First and last row of the image with a gradient from the middle of a layer's output; that middle."""
    kept = {}
    model.get_submodule(layer_name).register_forward_hook(lambda *given: kept.update(out=given[2]))
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    model(image)
    middle = kept["out"].shape[-1] // 2
    (gradient,) = torch.autograd.grad(kept["out"][0, :, middle, middle].sum(), image)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
    return rows[0].item(), rows[-1].item(), middle


@pytest.mark.parametrize("changes", NETS, ids=str)
def test_fields_equal_those_measured_by_gradients(changes):
    size = 96
    model = made_linear(models.build(section("model", **changes), 10))
    maps = [layer for layer in summarize(model, size).layers if len(layer.output) == 3]
    layers = [layer for layer in maps if layer.output[1] > 1]
    checked = 0
    for layer in layers[:: max(1, len(layers) // 6)]:
        low, high, middle = measured(model, layer.name, size)
        expected_low = layer.field.low + middle * layer.field.stride
        expected_high = layer.field.high + middle * layer.field.stride
        assert (low, high) == (max(0, expected_low), min(size - 1, expected_high)), layer.name
        checked += high - low + 1 == layer.field.size
    assert checked >= 2


def test_geometry_by_hand():
    field = Field(0, 0, 1).through(7, stride=2, padding=3).through(3, stride=2, padding=1)
    assert (field.size, field.stride, field.centre) == (11, 4, 0.0)
    assert Field(0, 0, 1).through(3, dilation=2).size == 5
    assert (Field(-1, 3, 2) | Field(-4, 0, 2)) == Field(-4, 3, 2)


def test_padding_of_the_image_shifts_the_field():
    image = torch.empty(1, 1, 8, 8, device="meta")
    tracker = Tracker(image)
    with tracker:
        out = nn.functional.pad(image, (2, 2, 2, 2))
    assert tracker.field_of(out) == Field(-2, -2, 1)


def test_kernels_that_are_not_square_are_refused():
    image = torch.empty(1, 1, 8, 8, device="meta")
    with pytest.raises(ValueError, match="square kernels"), Tracker(image):
        nn.functional.conv2d(image, torch.empty(1, 1, 3, 1, device="meta"))
