"""Max-pool, batch norm and activation as one operation, held to PyTorch's own in fp64."""

import copy
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("numba")

from fastresnet.cpu import norms
from fastresnet.models.speednet import FrozenScaleNorm, SpeedNet

SLOW = [pytest.param(act, marks=pytest.mark.slow) for act in (nn.GELU(), nn.ReLU())]  # each is compiled


def batch(channels: int, px: int, dtype: torch.dtype, images: int = 6) -> Tensor:
    values = torch.randn(images, channels, px, px, generator=torch.Generator().manual_seed(0)) * 3 + 1
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def trained(
    x: Tensor, norm: nn.Module, act: nn.Module, pooled: bool, fused: bool, skip: Tensor | None = None
) -> list[Tensor]:
    """What a forward and a backward pass give: result, gradients of images and bias, running statistics."""
    x, norm = x.detach().requires_grad_(), copy.deepcopy(norm)
    more = None if skip is None else skip.detach().requires_grad_()
    if fused:
        y = norms.norm_act(x, norm, act, pooled=pooled, skip=more)
    else:
        y = norm(F.max_pool2d(x, 2) if pooled else x)
        y = act(y if more is None else y + more)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    moved = [norm.running_mean, norm.running_var, norm.num_batches_tracked]
    return [y.detach(), x.grad, norm.bias.grad, *moved, *([] if more is None else [more.grad])]


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("act", [nn.SiLU(), *SLOW], ids=lambda act: type(act).__name__)
@pytest.mark.parametrize("pooled, px", [(True, 7), (True, 6), (False, 5)])
def test_it_is_what_the_modules_are(dtype, allowed, act, pooled, px):
    norm = FrozenScaleNorm(20, 0.44)
    nn.init.normal_(norm.bias)
    x = batch(20, px, dtype)
    exact = trained(x.double(), norm.double(), act, pooled, fused=False)
    found = trained(x, norm.float(), act, pooled, fused=True)
    for one, other in zip(found, exact):
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= allowed * other.double().norm() + 1e-9


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("pooled, px", [(True, 7), (False, 5)])
def test_what_is_added_before_the_activation_learns_too(dtype, allowed, pooled, px):
    norm, x = FrozenScaleNorm(20, 0.44), batch(20, px, dtype)
    skip = batch(20, px // 2 if pooled else px, dtype).flip(0) - 2
    exact = trained(x.double(), norm.double(), nn.SiLU(), pooled, False, skip.double())
    found = trained(x, norm.float(), nn.SiLU(), pooled, True, skip)
    assert len(found) == 7
    for one, other in zip(found, exact):
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= allowed * other.double().norm() + 1e-9


def test_it_rounds_no_more_than_the_modules_do():
    norm, act, x = FrozenScaleNorm(32, 0.44), nn.SiLU(), batch(32, 9, torch.bfloat16)
    exact = trained(x.double(), norm.double(), act, True, fused=False)
    fused, plain = (trained(x, norm.float(), act, True, fused=one) for one in (True, False))
    for i in range(3):
        errors = [(one[i].double() - exact[i]).norm() for one in (fused, plain)]
        assert errors[0] <= errors[1]


def test_a_far_mean_costs_no_digits():
    norm = FrozenScaleNorm(8, 1.0)
    x = batch(8, 8, torch.float32) + 1000
    variance = trained(x, norm, nn.SiLU(), False, fused=True)[4]
    assert torch.allclose(variance, x.double().var((0, 2, 3)).float(), rtol=1e-5)


def test_of_equal_pixels_the_first_gets_the_gradient():
    values = torch.tensor([0.0, 1, 4, 9, 16]).view(5, 1, 1, 1)
    x = values.expand(5, 8, 2, 2).contiguous(memory_format=torch.channels_last)
    gx = trained(x, FrozenScaleNorm(8, 0.44), nn.SiLU(), True, fused=True)[1]
    assert gx[:, :, 0, 0].abs().min() > 0
    assert not gx.flatten(2)[:, :, 1:].any()


def test_pixels_beyond_the_windows_get_no_gradient():
    gx = trained(batch(8, 7, torch.bfloat16), FrozenScaleNorm(8, 0.44), nn.SiLU(), True, fused=True)[1]
    assert not gx[:, :, 6].any() and not gx[:, :, :, 6].any() and gx[:, :, :6, :6].any()


@pytest.mark.parametrize("pixel", range(4))
@pytest.mark.parametrize("value, pooled", [(torch.nan, True), (torch.nan, False), (torch.inf, True)])
def test_what_is_not_finite_stays_so_without_a_word(value, pooled, pixel):
    x = batch(8, 4, torch.float32)
    x[0, 3, pixel // 2, pixel % 2] = value
    y, gx, *_ = trained(x, FrozenScaleNorm(8, 0.44), nn.SiLU(), pooled, fused=True)
    assert y[:, 3].isnan().all() and not y[:, 4].isnan().any()
    assert gx[:, 3].isnan().any() and gx[:, 4].isfinite().all()


def test_a_channel_that_never_changes_has_pytorch_s_result():
    x, norm = (
        torch.full((4, 8, 4, 4), 2.5).contiguous(memory_format=torch.channels_last),
        FrozenScaleNorm(8, 0.44),
    )
    nn.init.constant_(norm.bias, 0.3)
    found, plain = (trained(x, norm, nn.SiLU(), True, fused=one)[0] for one in (True, False))
    assert torch.allclose(found, plain, atol=1e-3)


@contextmanager
def threads(count: int, levels: int) -> Iterator[None]:
    """So many threads asked for, and one had where OpenMP may not nest any `levels` of them."""
    openmp, before = ctypes.CDLL(None), torch.get_num_threads()
    allowed = openmp.omp_get_max_active_levels()
    try:
        torch.set_num_threads(count)
        openmp.omp_set_max_active_levels(levels)
        yield
    finally:
        openmp.omp_set_max_active_levels(allowed)
        torch.set_num_threads(before)


@pytest.mark.parametrize("count, levels", [(2, 1), (3, 1), (3, 0)])
def test_any_number_of_threads_gives_the_same(count, levels):
    x, norm = batch(16, 34, torch.bfloat16, images=7), FrozenScaleNorm(16, 0.44)
    with threads(1, 1):
        alone = trained(x, norm, nn.SiLU(), True, fused=True)
    with threads(count, levels):
        shared = trained(x, norm, nn.SiLU(), True, fused=True)
    assert all(torch.equal(one, other) for one, other in zip(alone, shared))


def net(fused: bool, residual: bool = False) -> SpeedNet:
    torch.manual_seed(0)
    model = SpeedNet(widths=(16, 16, 16), activation="silu", residual=residual)
    model = model.to(memory_format=torch.channels_last)
    for group in model.groups:
        group.own_kernels = fused
    return model


@pytest.mark.parametrize("residual", [False, True])
def test_a_network_learns_the_same_with_it(residual):
    found = []
    for fused in (True, False):
        model, images = net(fused, residual), batch(3, 20, torch.float32)
        model(images).square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None] + list(model.buffers()))
    for one, other in zip(*found):
        assert torch.allclose(one.float(), other.float(), rtol=1e-4, atol=1e-5)


def test_no_norm_of_a_residual_network_is_left_to_pytorch():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        net(True, residual=True)(batch(3, 20, torch.float32)).sum().backward()
    counts = {row.key: row.count for row in profile.key_averages()}
    assert (
        counts["fastresnet::pool_act_batch_norm"] == counts["fastresnet::pool_act_batch_norm_backward"] == 6
    )
    assert "aten::native_batch_norm" not in counts


def test_a_network_that_judges_takes_the_modules():
    model, x = net(True), batch(16, 8, torch.float32)
    group = model.groups[0]
    assert norms.fits(x, group.norms[0], group.act)
    assert not norms.fits(x.contiguous(), group.norms[0], group.act)
    assert not norms.fits(x.double(), group.norms[0], group.act)
    assert norms.fits(x, group.norms[0], group.act, x)
    assert not norms.fits(x, group.norms[0], group.act, x.bfloat16())
    assert not norms.fits(x, group.norms[0], group.act, x.contiguous())
    assert not norms.fits(x[:1], group.norms[0], group.act)
    assert not norms.fits(x, nn.BatchNorm2d(16), group.act)
    assert not norms.fits(x, group.norms[0], nn.GELU("tanh"))
    with torch.no_grad():
        assert norms.fits(x, group.norms[0], group.act)  # a proxy between its lessons
    model.eval()
    assert not norms.fits(x, group.norms[0], group.act)
