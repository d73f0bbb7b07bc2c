"""The 3x3 convolution whose weights learn by our kernel, held to exact sums of the same numbers."""

import copy

import pytest
import torch
from drawn import splits
from torch import Tensor

pytest.importorskip("numba")

from fastresnet import cpu
from fastresnet.bench.measuring.operators import Operations
from fastresnet.cpu import choice, convolution
from fastresnet.models.layers import Conv2d, conv3x3
from fastresnet.models.speednet import SpeedNet
from fastresnet.settings import config
from fastresnet.settings.sections import Train
from fastresnet.training.experiment import Experiment, compile_kernels

HERE = convolution.obstacle()
needs_it = pytest.mark.skipif(bool(HERE), reason=f"the kernel: {HERE}")
CPU = torch.device("cpu")


def batch(images: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    values = torch.randn(images, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return values.bfloat16().contiguous(memory_format=torch.channels_last)


def filters(outputs: int, inputs: int) -> Tensor:
    values = torch.randn(outputs, inputs, 3, 3, generator=torch.Generator().manual_seed(2)) / 9
    return values.to(memory_format=torch.channels_last)


def gradients(x: Tensor, weight: Tensor, gy: Tensor, own: bool) -> list[Tensor]:
    """What a forward and a backward pass give: result, gradients of images and of weights."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = convolution.convolve(x, weight) if own else torch.conv2d(x, weight, padding=1)
    y.backward(gy.to(y.dtype))
    return [y.detach(), x.grad, weight.grad]


@needs_it
@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (3, 2), (7, 7), (15, 16)])
@pytest.mark.parametrize("inputs, outputs", [(8, 32), (24, 64)])
def test_the_weights_gradient_is_the_exact_sum_to_the_digits_of_fp32(images, height, width, inputs, outputs):
    x, gy, weight = (
        batch(images, inputs, height, width),
        batch(images, outputs, height, width, 1),
        filters(outputs, inputs),
    )
    exact = gradients(x.double(), weight.double(), gy.double(), own=False)[2]
    found = gradients(x, weight, gy, own=True)[2]
    assert found.dtype == torch.float32 and found.stride() == weight.stride()
    assert (found.double() - exact).norm() <= 2e-6 * exact.norm()


@needs_it
def test_all_else_is_what_pytorch_gives():
    x, gy, weight = batch(5, 16, 6, 6), batch(5, 32, 6, 6, 1), filters(32, 16)
    own, theirs = gradients(x, weight, gy, True), gradients(x, weight.bfloat16(), gy, False)
    assert torch.equal(own[0], theirs[0]) and torch.equal(own[1], theirs[1])
    assert torch.allclose(own[2], theirs[2].float(), rtol=0.02, atol=0.02)


@needs_it
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_share_the_images_and_leave_none_out(threads):
    before = torch.get_num_threads()
    x, gy, weight = batch(9, 8, 4, 4), batch(9, 32, 4, 4, 1), filters(32, 8)
    exact = gradients(x.double(), weight.double(), gy.double(), own=False)[2]
    try:
        torch.set_num_threads(threads)
        found = gradients(x, weight, gy, own=True)[2]
    finally:
        torch.set_num_threads(before)
    assert (found.double() - exact).norm() <= 2e-6 * exact.norm()


@needs_it
def test_what_is_not_finite_reaches_its_own_filters_alone():
    x, gy = batch(3, 8, 5, 5), batch(3, 32, 5, 5, 1)
    gy[1, 4, 2, 2] = torch.nan
    found = gradients(x, filters(32, 8), gy, own=True)[2]
    assert found[4].isnan().all() and found[:4].isfinite().all() and found[5:].isfinite().all()


@needs_it
def test_images_that_learn_nothing_cost_no_gradient():
    x, weight = batch(2, 8, 4, 4), filters(32, 8).requires_grad_()
    convolution.convolve(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None


def layer(**changes) -> Conv2d:
    kept = {"in_channels": 8, "out_channels": 32, "kernel_size": 3, "padding": 1, "bias": False} | changes
    return Conv2d(**kept).bfloat16()


def takes(x: Tensor, one: Conv2d) -> bool:
    return convolution.own(x, one.weight, one, tiles=False) is not None


@needs_it
@pytest.mark.parametrize(
    "changes",
    [{"stride": 2}, {"padding": 0}, {"bias": True}, {"kernel_size": 1}, {"out_channels": 24}, {"groups": 2},
     {"dilation": 2}, {"padding_mode": "circular"}],
)  # fmt: skip
def test_another_convolution_is_left_to_pytorch(changes):
    x, usual, other = batch(2, 8, 6, 6), layer(), layer(**changes)
    assert takes(x, usual)
    assert not takes(x, other)


@needs_it
def test_other_images_and_filters_that_rest_are_left_to_pytorch():
    x, one = batch(2, 8, 6, 6), layer()
    assert not takes(x.float(), one) and not takes(x.contiguous(), one) and not takes(x.half(), one)
    with torch.no_grad():
        assert takes(x, one)  # a proxy between its lessons
        assert not takes(x, layer().eval())
    with torch.autocast("cpu", torch.float16):
        assert not takes(x, one)
    one.weight.requires_grad_(False)
    assert not takes(x, one)


def net(kernels: str) -> SpeedNet:
    torch.manual_seed(0)
    model = SpeedNet(widths=(32, 32, 32), activation="silu").to(memory_format=torch.channels_last)
    cpu.choose(model, Train(cpu_kernels=kernels), CPU, "off")
    return model


@needs_it
def test_a_network_learns_the_same_with_it():
    found, images = [], batch(8, 3, 20, 20)
    for kernels in ("on", "off"):
        model = net(kernels)
        with Operations() as seen, torch.autocast("cpu", torch.bfloat16):
            model(images).float().square().mean().backward()
        assert ("convolution_by_weight" in seen.kinds) == (kernels == "on")
        found.append([conv.weight.grad for group in model.groups for conv in group.convs])
    for one, other in zip(*found):
        assert (one - other).norm() <= 0.05 * other.norm()


@needs_it
def test_a_copy_of_a_network_keeps_its_kernels():
    assert copy.deepcopy(net("on")).groups[0].convs[0].own_kernels


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"train.compile": "default"}, "train.compile=default makes its own"),
        ({"train.channels_last": False}, "train.channels_last=true"),
    ],
)
def test_asked_for_where_they_cannot_be_it_says_why(settings, words):
    base = {"model.arch": "speednet", "run.device": "cpu", "train.batch_size": 8, "train.cpu_kernels": "on"}
    with pytest.raises(ValueError, match=f"train.cpu_kernels=on: .*{words}"):
        Experiment(config.load(None, base | settings), splits=splits())


def test_a_network_without_a_place_for_them_is_told_so():
    bare = torch.nn.Linear(2, 2)
    cpu.choose(bare, Train(), CPU, "off")
    with pytest.raises(ValueError, match="no place"):
        cpu.choose(bare, Train(cpu_kernels="on"), CPU, "off")


def test_a_run_says_that_it_does_without_where_numba_is_missing(monkeypatch):
    cfg = config.load(None, {"model.arch": "speednet", "run.device": "cpu", "train.batch_size": 8})
    said = []
    Experiment(cfg, splits=splits(), notes=said.append)
    assert not [line for line in said if "cpu_kernels" in line]
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    one = Experiment(cfg, splits=splits(), notes=said.append)
    assert [line for line in said if line.endswith("ours need numba, which isn't installed")]
    assert not one.model.groups[0].convs[0].own_kernels


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_they_are_compiled_before_a_run_begins_and_nothing_else_changes(kernels):
    changes = {"model.arch": "speednet", "run.device": "cpu", "train.batch_size": 8, "train.accumulate": 2}
    changes |= {"optim.name": "muon", "train.precision": "fp32", "train.cpu_kernels": kernels}
    one = Experiment(config.load(None, changes | {"model.stage_widths": [8, 8, 8]}), splits=splits(16, 8))
    before = copy.deepcopy(one.model.state_dict())
    with Operations() as seen:
        compile_kernels(one)
    assert ("pool_act_batch_norm_backward" in seen.kinds) == (kernels == "on")
    assert all(value.equal(before[name]) for name, value in one.model.state_dict().items())
    assert not one.trainer.steps_done and not any(state.any() for state in one.optimizer.states())


def test_a_gpu_takes_none():
    layer = conv3x3(8, 32)
    cpu.choose(layer, Train(), torch.device("cuda"), "off")
    assert not layer.own_kernels
    with pytest.raises(ValueError, match="this run is on cuda, and they are for a CPU"):
        cpu.choose(layer, Train(cpu_kernels="on"), torch.device("cuda"), "off")
