"""The 3x3 convolution by Winograd's method, held to exact sums, and where it is taken."""

import copy

import pytest
import torch
from drawn import splits
from torch import Tensor

pytest.importorskip("numba")

from fastresnet import cpu
from fastresnet.bench.measuring.operators import Operations
from fastresnet.cpu import convolution, winograd
from fastresnet.models.flops import flops_per_image
from fastresnet.models.layers import Conv2d, conv3x3
from fastresnet.models.speednet import SpeedNet
from fastresnet.settings import config
from fastresnet.settings.sections import Train
from fastresnet.training import arithmetic
from fastresnet.training.experiment import Experiment, compile_kernels

CPU, LAST = torch.device("cpu"), torch.channels_last
# Dtype, and what a result and both gradients may be off by, for tiles of 2, 3 and 4 px
EXACT = {torch.float32: {2: 1e-6, 3: 2e-6, 4: 3e-6}}
DIGITS = EXACT if convolution.obstacle() else EXACT | {torch.bfloat16: {2: 0.006, 3: 0.02, 4: 0.025}}
CASES = [(dtype, size) for dtype, sizes in DIGITS.items() for size in sizes]


def made(dtype: torch.dtype, height: int, width: int, images: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N,32,h,w), filters (16,32,3,3) and a gradient (N,16,h,w), numbers that the dtype has."""
    chance = torch.Generator().manual_seed(height + width)
    x = torch.randn(images, 32, height, width, generator=chance).relu()
    weight = torch.randn(16, 32, 3, 3, generator=chance) / 17
    gy = torch.randn(images, 16, height, width, generator=chance)
    x, gy = (one.to(dtype).contiguous(memory_format=LAST) for one in (x, gy))
    return x, weight.to(dtype).float().contiguous(memory_format=LAST), gy


def through(x: Tensor, weight: Tensor, gy: Tensor, size: int) -> list[Tensor]:
    """The result, and gradients of images and filters; PyTorch's where size is 0."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = winograd.by_tiles(x, weight, size) if size else torch.conv2d(x, weight, padding=1)
    y.backward(gy)
    return [y.detach(), x.grad, weight.grad]


@pytest.mark.parametrize("dtype, size", CASES)
@pytest.mark.parametrize("height, width", [(1, 1), (3, 2), (7, 9), (12, 8)])
def test_result_and_gradients_are_those_of_exact_sums(dtype, size, height, width):
    given = made(dtype, height, width)
    found, exact = through(*given, size), through(*(one.double() for one in given), 0)
    for ours, right in zip(found, exact):
        assert (ours.double() - right).norm() <= DIGITS[dtype][size] * right.norm()
    assert [one.dtype for one in found] == [dtype, dtype, torch.float32]
    assert all(one.is_contiguous(memory_format=LAST) for one in found)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_share_the_tiles_and_change_no_digit(threads):
    before, given = torch.get_num_threads(), made(torch.float32, 5, 6, images=4)
    alone = through(*given, 4)
    try:
        torch.set_num_threads(threads)
        found = through(*given, 4)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found, alone):
        assert (one - other).norm() <= 1e-6 * other.norm()


@pytest.mark.parametrize("inputs, outputs", [(16, 64), (64, 16)])
def test_gradients_of_filters_are_right_whichever_side_is_the_wider(inputs, outputs):
    chance = torch.Generator().manual_seed(0)
    x, gy = (
        torch.randn(5, channels, 7, 7, generator=chance).contiguous(memory_format=LAST)
        for channels in (inputs, outputs)
    )
    weight = torch.randn(outputs, inputs, 3, 3, generator=chance).contiguous(memory_format=LAST)
    found, exact = (through(x, weight, gy, size)[2] for size in (4, 0))
    assert (found - exact).norm() <= 1e-5 * exact.norm()
    assert found.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    "tiles, inputs, outputs", [(6144, 64, 256), (1536, 256, 256), (3456, 64, 64), (7, 16, 16)]
)
def test_planes_spread_over_a_cache(tiles, inputs, outputs):
    rows = winograd.rows_of(tiles, inputs, outputs, 4, 2)
    assert tiles <= rows < tiles + 16
    for channels in (inputs, outputs):
        first_lines = [plane * rows * channels * 2 % 4096 // 64 for plane in range(36)]
        assert max(map(first_lines.count, first_lines)) <= 12  # a first-level cache's ways


def test_nothing_is_made_for_what_does_not_learn():
    x, weight, gy = made(torch.float32, 4, 4)
    winograd.by_tiles(x, weight.requires_grad_(), 4).backward(gy)
    assert x.grad is None and weight.grad is not None
    winograd.by_tiles(x.requires_grad_(), weight.detach(), 4).backward(gy)
    assert x.grad is not None


def test_it_is_taken_where_it_saves_enough_products():
    """With few channels the transforms would eat up what products save."""
    assert [winograd.tile_of(256, 256, side, side) for side in (2, 3, 6, 7, 15, 32)] == [2, 3, 3, 4, 4, 4]
    assert winograd.tile_of(32, 32, 15, 15) == 0 == winograd.tile_of(256, 256, 1, 1)
    assert winograd.tile_of(24, 64, 31, 31) == 0  # not sixteen by sixteen
    assert winograd.places(4, 7, 15) == 2 * 4 * 36


def net(kernels: str) -> SpeedNet:
    torch.manual_seed(0)
    model = SpeedNet(widths=(64, 64, 64), activation="silu").to(memory_format=LAST)
    cpu.choose(model, Train(cpu_kernels=kernels, precision="fp32"), CPU, "off")
    return model


def test_a_network_learns_the_same_with_it_in_fp32():
    found, images = [], made(torch.float32, 32, 32)[0][:, :3].contiguous(memory_format=LAST)
    for kernels in ("on", "exact", "off"):
        model = net(kernels)
        with Operations() as seen:
            model(images).square().mean().backward()
        assert ("winograd_convolution_by_weight" in seen.kinds) == (kernels == "on")
        found.append([conv.weight.grad for group in model.groups for conv in group.convs])
    for one, exact, other in zip(*found):
        assert (one - other).norm() <= 1e-4 * other.norm() and (exact - other).norm() <= 1e-4 * other.norm()


def test_what_learns_with_it_is_charged_with_the_products_that_it_makes():
    plain, taken = conv3x3(64, 128), conv3x3(64, 128)
    cpu.choose(taken, Train(precision="fp32"), CPU, "off")
    assert (convolution.products(plain, 8, 8), convolution.products(taken, 8, 8)) == (0, 64 * 128 * 4 * 36)
    assert not convolution.products(Conv2d(64, 128, 3, stride=2, padding=1, bias=False), 8, 8)
    fewer, usual = (flops_per_image(net(kernels), 32, learning=True) for kernels in ("on", "exact"))
    assert fewer < 0.6 * usual and usual == flops_per_image(net("on"), 32)


def test_a_run_counts_them_and_compiles_them_for_all_its_sizes(monkeypatch):
    changes = {"model.arch": "speednet", "model.stage_widths": [64, 64, 64], "run.device": "cpu"}
    changes |= {"train.precision": "fp32", "train.batch_size": 8, "train.resolutions": [[0.5, 20], [1.0, 32]]}
    runs = [
        Experiment(config.load(None, changes | {"train.cpu_kernels": kernels}), splits=splits(16, 8))
        for kernels in ("on", "exact")
    ]
    fewer, usual = (arithmetic.work(one).flops for one in runs)
    assert fewer < 0.7 * usual
    met, tile_of = set(), winograd.tile_of
    monkeypatch.setattr(convolution, "tile_of", lambda *asked: met.add(asked[2]) or tile_of(*asked))
    compile_kernels(runs[0])
    assert met == {31, 15, 7, 3, 19, 9, 4, 2}


def test_a_copy_keeps_it_and_other_devices_and_modes_take_none():
    assert copy.deepcopy(net("on")).groups[0].convs[1].tiles
    assert not net("exact").groups[0].convs[1].tiles and net("exact").groups[0].convs[1].own_kernels
    x, model = made(torch.float32, 15, 15)[0], conv3x3(32, 128)
    cpu.choose(model, Train(), torch.device("cuda"), "off")
    assert not model.tiles
    cpu.choose(model, Train(precision="fp32"), CPU, "off")
    assert model.tiles and convolution.own(x, model.weight, model, True) is not None
    assert convolution.own(x, model.weight.detach(), model, True) is not None
    assert convolution.own(x, model.weight, model, False) is None
    assert convolution.own(x, model.weight.double(), model, True) is None
