"""First weights: those of splitmix64, spread as PyTorch's own, the same on every device, drawn in place."""

import zlib

import numpy as np
import observed
import pytest
import torch
from drawn import splits
from model_settings import section
from test_capture import NoHost
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastresnet import models
from fastresnet.augment.counter import FIRST, GOLDEN, SECOND
from fastresnet.models.speednet import SpeedNet
from fastresnet.models.weights import undrawn
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import Own

NETS = {
    "speednet": dict(arch="speednet", head_std=1.0, width=0.5),
    "resnet": dict(depth=20),
    "resnet9": dict(arch="resnet9", width=0.25),
}


def drawn(seed, **changes):
    return models.build(section("model", **changes), 10, seed=seed)


def by_numpy(seed: int, name: str, count: int) -> np.ndarray:
    """Numbers 0 … count-1 of splitmix64 from the key of that name, as 24 bits in [-0.5, 0.5)."""
    words = [seed, 0, zlib.crc32(name.encode())]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0] + np.arange(
        count, dtype=np.uint64
    ) * np.uint64(GOLDEN)
    for shift, factor in ((30, FIRST), (27, SECOND)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5)


def test_first_weights_are_those_that_numpy_counts():
    net = SpeedNet(dirac_init=False)
    net.reset_parameters(5)
    for name in ("whiten.bias", "groups.1.convs.0.weight", "head.weight"):
        weight = net.get_parameter(name).detach()
        fan_in = 12 if name == "whiten.bias" else weight[0].numel()
        wanted = by_numpy(5, name, weight.numel()) * np.float32(2 * fan_in**-0.5)
        assert np.array_equal(weight.flatten().numpy(), wanted)


def layers(net, kinds):
    """The weights of all layers of these kinds that are large enough to be judged."""
    return [module for module in net.modules() if isinstance(module, kinds) and module.weight.numel() > 500]


def test_they_are_uniform_within_the_bounds_of_pytorchs_own():
    for layer in layers(SpeedNet(dirac_init=False), (nn.Conv2d, nn.Linear)):
        weight, count = layer.weight.detach().clone(), layer.weight.numel()
        layer.reset_parameters()  # PyTorch's
        bound = float(layer.weight.detach().abs().max())
        assert float(weight.abs().max()) == pytest.approx(bound, rel=0.02)
        assert abs(float(weight.mean())) < 5 * bound / (3 * count) ** 0.5
        assert float(weight.square().mean()) == pytest.approx(bound**2 / 3, rel=0.02 + 5 * count**-0.5)


def test_a_resnets_filters_are_normal_with_hes_variance():
    together = []
    for layer in layers(drawn(0, depth=20), nn.Conv2d):
        weight, fan_out = layer.weight.detach(), 9 * layer.out_channels
        unit = weight.flatten() / (2 / fan_out) ** 0.5
        assert abs(float(unit.mean())) < 5 * len(unit) ** -0.5
        assert float(unit.var()) == pytest.approx(1, abs=5 * (2 / len(unit)) ** 0.5)
        together.append(unit)
    unit = torch.cat(together)  # some 270,000
    assert float(unit.pow(4).mean()) == pytest.approx(3, abs=0.06) and 4 < float(unit.abs().max()) < 4.4
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        below = float((unit < torch.distributions.Normal(0, 1).icdf(torch.tensor(share))).float().mean())
        assert below == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("changes", NETS.values(), ids=NETS)
def test_they_depend_on_the_seed_and_their_name_alone_whatever_the_layout(changes):
    net = drawn(3, **changes)
    other, again = drawn(4, **changes).state_dict(), drawn(3, **changes)
    again = again.to(memory_format=torch.channels_last)
    places = [parameter.data_ptr() for parameter in again.parameters()]
    again.reset_parameters(4)
    assert observed.same(again.state_dict(), other)
    again.reset_parameters(3)
    assert observed.same(again.state_dict(), net.state_dict())
    assert places == [parameter.data_ptr() for parameter in again.parameters()]
    assert not observed.same(net.state_dict(), other)
    last = [p[-1].detach() for p in net.parameters() if p.ndim == 4 and p[-1].count_nonzero() > 9]
    assert len({float(one.sum()) for one in last}) == len(last) >= 3, "no two layers begin alike"


OTHERS = {
    "bottlenecks": dict(depth=50, width=0.125),
    "norms first": dict(block="preactivation", stem="imagenet", width=0.125),
    "the ffcv example's": dict(arch="resnet9_ffcv", width=0.25),
    "nothing set by hand": dict(arch="speednet", whiten=False, dirac_init=False, residual=True, width=0.25),
}


class NoDraws(TorchDispatchMode):
    """Raises where one of PyTorch's generators is asked."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} draws"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def new_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("changes", (NETS | OTHERS).values(), ids=NETS | OTHERS)
def test_a_network_is_drawn_once_and_no_number_is_forgotten(changes, new_memory_is_nan):
    with NoDraws():
        state = drawn(3, **changes).state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())
    again = models.build(section("model", **changes), 10)
    again.reset_parameters(3)
    assert observed.same(again.state_dict(), state)


def test_a_layer_that_nobody_draws_would_be_seen(new_memory_is_nan):
    with undrawn():
        layers = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
    assert all(parameter.isnan().all() for layer in layers for parameter in layer.parameters())
    with pytest.raises(AssertionError, match="uniform_.* draws"), NoDraws():
        nn.Linear(4, 5)


def test_networks_without_a_seed_differ_and_follow_pytorchs_generator():
    def two():
        torch.manual_seed(3)
        return [models.build(section("model", **NETS["speednet"]), 10).head.weight for _ in range(2)]

    first, second = two()
    assert not torch.equal(first, second)
    assert all(map(torch.equal, two(), (first, second)))


def test_a_reset_forgets_the_statistics_of_norms():
    net = drawn(0, **NETS["resnet"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()(torch.randn(8, 3, 32, 32))
    assert not observed.same(net.state_dict(), before)
    net.reset_parameters(0)
    assert observed.same(net.state_dict(), before)


def test_drawing_them_on_a_gpu_would_neither_wait_nor_upload():
    with FakeTensorMode(), torch.device("cuda"):
        net = models.build(section("model", **NETS["speednet"]), 10, seed=0)
        with NoHost():
            net.reset_parameters(3)
    assert {parameter.device.type for parameter in net.parameters()} == {"cuda"}


@pytest.mark.gpu
@pytest.mark.parametrize("changes", NETS.values(), ids=NETS)
def test_a_gpu_draws_the_weights_that_a_cpu_draws(changes):
    here = drawn(7, **changes)
    there = drawn(0, **changes).cuda().to(memory_format=torch.channels_last)
    there.reset_parameters(7)
    assert observed.same(here.state_dict(), {name: value.cpu() for name, value in there.state_dict().items()})


# ---- another run in the same experiment --------------------------------------------------------------------

SMALL = {"train.epochs": 1, "train.batch_size": 20, "run.device": "cpu", "run.threads": 1,
         "train.precision": "fp32", "train.compile": "off", "train.cuda_graph": False}  # fmt: skip
HARD = {"train.hard_fraction": 0.5, "train.proxy_width": 0.125}
RESETS = {
    "e1-94": ("e1-94.yaml", {"model.width": 0.125}, None),
    "a memory": ("speed94.yaml", {"model.width": 0.125, "train.epochs": 3}, None),
    "speed96 with its proxy": ("speed96.yaml", {"model.width": 0.25} | HARD, None),
    "a resnet": ("rn18.yaml", {"model.width": 0.125}, None),
    "one's own": ("rn18.yaml", {}, lambda classes, size: doubled(SpeedNet(classes, (8, 8, 8)))),
}


@torch.no_grad()
def doubled(net):
    """What a function of a user's own may do to a network of ours."""
    net.head.weight.mul_(2)
    return net


def states(one):
    nets = [one.model, one.trainer.select.model or one.model]
    return [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]


@pytest.mark.parametrize("recipe, changes, own", RESETS.values(), ids=RESETS)
def test_a_reset_gives_the_weights_of_an_experiment_of_that_seed(recipe, changes, own, monkeypatch):
    found = []
    for seed in (0, 5):
        cfg = config.load(recipe, SMALL | changes | {"run.seed": seed})
        found.append(Experiment(cfg, splits=splits(40, 20), own=Own(own)))
    one, fresh = found
    made = []
    build = Experiment._new_model
    monkeypatch.setattr(Experiment, "_new_model", lambda *given: made.append(1) or build(*given))
    one.reset(5)
    assert observed.same(states(one), states(fresh)) and bool(made) == (own is not None)
    one.fit_epoch(0)
    assert not observed.same(states(one), states(fresh))
    one.reset(5)
    assert observed.same(states(one), states(fresh))
    for each in found:
        each.close()
