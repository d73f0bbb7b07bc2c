"""SpeedNet: its size, whitening, first weights, frozen parts, image sizes, memory layout."""

import pytest
import torch
from layout import count_layout_changes
from model_settings import section

from fastresnet import models
from fastresnet.models.flops import flops_per_image
from fastresnet.models.speednet import SpeedNet
from fastresnet.settings import config
from fastresnet.training import assembly
from fastresnet.training.own import NOTHING


def smooth_images(count=600, size=16):
    """Images whose neighbouring pixels resemble each other, as photographs' do."""
    noise = torch.randn(count, 3, size + 4, size + 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 5, 1) * 4


def patches_of(images):
    return torch.nn.functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)


def test_the_published_net_has_two_million_parameters():
    assert round(sum(p.numel() for p in SpeedNet().parameters()) / 1e6, 2) == 1.97


def test_whitened_patches_have_unit_covariance_and_come_with_their_negatives():
    images, net = smooth_images(), SpeedNet()
    net.init_whitening(images, eps=0.0)
    weight = net.whiten.weight.flatten(1).detach()
    torch.testing.assert_close(weight[:12], -weight[12:])
    out = patches_of(images) @ weight[:12].T
    torch.testing.assert_close(out.T @ out / len(out), torch.eye(12), rtol=1e-3, atol=1e-3)


def test_eps_damps_the_directions_that_hold_little():
    images, net = smooth_images() * 1e-3, SpeedNet()
    net.init_whitening(images, eps=5e-4)
    weight = net.whiten.weight.flatten(1).detach()
    out = patches_of(images) @ weight[:12].T
    assert out.square().mean(0).max() < 1.0 and weight.abs().max() <= (1 / 5e-4) ** 0.5


def test_whitening_frozen_bias_learning_and_scales_of_norms_frozen():
    net = SpeedNet()
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"whiten.weight"} | {f"groups.{g}.norms.{n}.weight" for g in range(3) for n in range(2)}


def test_a_net_without_whitening_learns_its_first_convolution():
    net = SpeedNet(whiten=False)
    before = net.whiten.weight.detach().clone()
    net.init_whitening(smooth_images(10))
    assert net.whiten.weight.requires_grad and net.whiten.weight.equal(before)


def test_convolutions_start_as_the_identity_on_their_first_inputs():
    conv = SpeedNet().groups[0].convs[0]
    x = torch.randn(1, 24, 6, 6)
    torch.testing.assert_close(conv(x)[:, :24], x)
    assert not torch.allclose(SpeedNet(dirac_init=False).groups[0].convs[0](x)[:, :24], x)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_whitened_channels_padded_with_zeros_learn_the_same_at_the_same_cost(activation):
    nets = []
    for channels in (24, 32):
        torch.manual_seed(0)
        nets.append(SpeedNet(10, (16, 16, 16), whiten_channels=channels, activation=activation))
    images, labels = smooth_images(64), torch.arange(64) % 10
    for net in nets:
        net.init_whitening(images)
        learned = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learned, lr=0.05, momentum=0.9)
        for _ in range(3):
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    plain, padded = nets
    assert padded.act(padded.whiten(images))[:, 24:].eq(0).all() and padded.whiten(images).shape[1] == 32
    torch.manual_seed(0)
    assert not plain.whiten.bias.equal(SpeedNet(10, (16, 16, 16)).whiten.bias), "the bias learned"
    assert flops_per_image(plain) == flops_per_image(padded)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_the_head_is_scaled_and_starts_with_the_spread_asked_for():
    net = SpeedNet(head_std=1.0, head_scale=0.5).eval()
    assert net.head.weight.std().item() == pytest.approx(1.0, abs=1e-5) and net.head.bias is None
    images = torch.randn(2, 3, 32, 32)
    logits = net(images)
    net.head_scale = 1.0
    torch.testing.assert_close(net(images), 2 * logits)


@pytest.mark.parametrize("size", [24, 28, 32, 48])
def test_the_net_takes_lower_and_higher_resolutions(size):
    assert SpeedNet(5, (16, 24, 32))(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_a_resolution_too_low_for_the_net_is_refused_before_any_data_is_read():
    cfg = config.load(None, {"model.arch": "speednet", "train.resolutions": [[0.5, 8], [1.0, 32]]})
    with pytest.raises(ValueError, match="speednet takes images of 9 px or more, these have 8"):
        assembly.check_network(cfg, NOTHING)


def test_settings_reach_the_net():
    net = models.build(
        section("model", arch="speednet", width=0.5, convs_per_block=3, residual=True, activation="silu"), 10
    )
    assert [group.convs[0].out_channels for group in net.groups] == [32, 128, 128]
    assert len(net.groups[0].convs) == 3 and net.groups[0].residual
    assert net.groups[0].norms[0].eps == 1e-12 and net.groups[0].norms[0].momentum == 0.4
    assert net.head_scale == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    "changes",
    [dict(), dict(whiten_channels=32), dict(residual=True, convs_per_group=3, activation="silu")],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [24, 32])
def test_forward_and_backward_stay_channels_last(changes, dtype, size):
    assert count_layout_changes(SpeedNet(10, (32, 64, 64), **changes), dtype, size) == []


def test_a_layout_change_is_noticed():
    class Careless(SpeedNet):
        def forward(self, images):
            return super().forward(images.contiguous(memory_format=torch.contiguous_format))

    assert count_layout_changes(Careless(10, (8, 8, 8)), torch.float32)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"whitening needs floating-point images"):
        SpeedNet().init_whitening(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))


def test_the_forward_pass_compiles_without_graph_breaks():
    net = SpeedNet(10, (8, 8, 8)).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(images), net(images))
