"""Optimizers: every trainable parameter in one group, the right rates and decay, state kept exactly."""

import copy

import pytest
import torch
import torch.nn.functional as F
from model_settings import section

from fastresnet import models, optim

NETS = [
    dict(depth=20),
    dict(depth=18, width=0.125),
    dict(depth=18, width=0.125, block="preactivation"),
    dict(arch="speednet", width=0.125),
    dict(arch="speednet", width=0.125, whiten=False),
    dict(arch="resnet9", width=0.125),
]
KINDS = [
    dict(),
    dict(nesterov=False, momentum=0.0),
    dict(decoupled=True),
    dict(name="adam", lr=1e-3),
    dict(name="adamw", lr=1e-3),
    dict(name="muon", lr=0.05, lr_bias=0.01, lr_head=0.02, renormalize_every=2),
    dict(layer_decay=0.7),
    dict(name="muon", lr=0.05, layer_decay=0.5),
]


def net(**changes):
    torch.manual_seed(0)
    return models.build(section("model", **(changes or dict(arch="speednet", width=0.125))), 10)


def make(model, capturable=False, **changes):
    return optim.build(model, section("optim", **changes), device="cpu", capturable=capturable)


def train(model, optimizer, steps, seed=0):
    losses = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step)
        images = torch.randn(16, 3, 24, 24, generator=generator)
        loss = F.cross_entropy(model(images), torch.arange(16) % 10)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("changes", NETS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_trainable_parameter_is_in_exactly_one_group(changes, kind):
    model = net(**changes)
    grouped = [id(p) for group in make(model, **kind).param_groups for p in group["params"]]
    wanted = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(wanted)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_parameter_may_get_its_first_gradient_later_than_others(kind):
    model = net()
    optimizer = make(model, **kind)
    for late in (True, False):
        for p in model.parameters():
            p.grad = None if late and p is model.whiten.bias else torch.ones_like(p)
        before = model.whiten.bias.detach().clone()
        optimizer.step()
        assert torch.equal(before, model.whiten.bias) == late


def test_speednets_groups_have_their_names_and_rates():
    optimizer = make(net(), name="muon", lr=0.24, lr_bias=0.053, lr_head=0.67)
    assert {group["name"]: group["base_lr"] for group in optimizer.param_groups} == {
        "filters": 0.24, "head": 0.67, "biases": 0.053, "whiten_bias": 0.053,
    }  # fmt: skip
    assert [type(part).__name__ for part in optimizer.parts] == ["Muon", "SGD"]
    momenta = {group["name"]: group["momentum"] for group in optimizer.param_groups}
    assert momenta["filters"] == 0.9 and momenta["head"] == 0.85


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_rate_and_shrinking_of_a_block_are_a_share_of_those_of_the_block_after_it(name):
    model, rates = net(), dict(lr=0.2, lr_head=0.4, weight_decay=0.01, filter_decay=0.01)
    optimizer = make(model, name=name, layer_decay=0.5, **rates)
    order = ("head", "groups.2", "groups.1", "groups.0", "whiten")
    depths = {
        id(p): depth
        for name, p in model.named_parameters()
        for depth, one in enumerate(order)
        if name.startswith(one)
    }
    for group in optimizer.param_groups:
        (depth,) = {depths[id(p)] for p in group["params"]}
        assert group["base_lr"] == (0.4 if group["name"] == "head" else 0.2) * 0.5**depth
        shrink = 0.01 * (1.0 if name == "muon" else 0.2) * 0.5**depth if group["weight_decay"] else 0.0
        assert group["base_lr"] * group["weight_decay"] == pytest.approx(shrink)


def test_muons_filters_decay_by_their_own_share_where_one_is_given():
    def shrink(**changes):
        groups = make(net(), name="muon", lr=0.2, weight_decay=0.004, **changes).param_groups
        return {g["name"]: round(g["base_lr"] * g["weight_decay"], 9) for g in groups}["filters"]

    assert shrink() == 0.0 and shrink(renormalize_every=0) == 0.004
    assert shrink(filter_decay=0.001) == shrink(filter_decay=0.001, renormalize_every=0) == 0.001


def test_norms_and_biases_do_not_decay_unless_asked():
    def decays(**changes):
        return {
            g["name"]: g["weight_decay"]
            for g in make(net(depth=20), weight_decay=0.01, **changes).param_groups
        }

    assert decays() == {"filters": 0.01, "head": 0.01, "biases": 0.0}
    assert decays(decay_norms_and_biases=True)["biases"] == 0.01


def test_every_group_shrinks_alike_at_the_peak_whatever_its_rate():
    groups = make(net(), lr=0.2, lr_bias=6.4, weight_decay=0.01, decay_norms_and_biases=True).param_groups
    assert {round(group["base_lr"] * group["weight_decay"], 9) for group in groups} == {0.002}
    groups = make(net(), name="muon", lr=0.24, lr_bias=0.053, lr_head=0.67, weight_decay=0.004,
                  decay_norms_and_biases=True).param_groups  # fmt: skip
    shrink = {group["name"]: round(group["base_lr"] * group["weight_decay"], 9) for group in groups}
    assert shrink == {"filters": 0.0, "head": 0.004, "biases": 0.004, "whiten_bias": 0.004}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rates_in_tensors_give_the_same_training(kind):
    results = []
    for capturable in (False, True):
        model = net()
        optimizer = make(model, capturable=capturable, **kind)
        assert all(isinstance(g["lr"], torch.Tensor) == capturable for g in optimizer.param_groups)
        results.append(train(model, optimizer, 3))
    assert results[0] == pytest.approx(results[1], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("capturable", [False, True])
def test_a_stored_optimizer_goes_on_bit_for_bit(kind, capturable, tmp_path):
    model = net()
    optimizer = make(model, capturable=capturable, **kind)
    train(model, optimizer, 3)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    expected = train(model, optimizer, 3, seed=50)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = net()
    again.load_state_dict(weights)
    resumed = make(again, capturable=capturable, **kind)
    groups = list(resumed.param_groups)
    rates = [group["lr"] for group in groups]
    resumed.load_state_dict(state)
    parts_groups = [group for part in resumed.parts for group in part.param_groups]
    assert all(a is b for a, b in zip(groups, parts_groups)), "a trainer keeps these very groups"
    assert not capturable or all(a is g["lr"] for a, g in zip(rates, groups)), "a graph reads these"
    kept = resumed.states()
    resumed.load_state_dict(state)
    assert all(a is b for a, b in zip(kept, resumed.states(), strict=True)), "a graph reads these very states"
    assert train(again, resumed, 3, seed=50) == expected


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("before", [False, True])
def test_a_stored_optimizer_goes_on_captured_or_not_whichever_it_was(kind, before):
    model = net()
    stored = make(model, capturable=before, **kind)
    train(model, stored, 2)
    again = copy.deepcopy(model)
    resumed = make(again, capturable=not before, **kind)
    groups = [dict(group) for group in resumed.param_groups]
    resumed.load_state_dict(stored.state_dict())
    for group, own in zip(resumed.param_groups, groups):
        assert all(group[key] is own[key] for key in own)
    losses = train(again, resumed, 2, seed=50)
    assert losses == pytest.approx(train(model, stored, 2, seed=50), rel=1e-3), "two sets of states, not one"


def test_another_optimizers_state_is_refused():
    with pytest.raises(ValueError, match="resume with the settings that the run was started with"):
        make(net()).load_state_dict(make(net(), name="muon").state_dict())


def test_frozen_models_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no trainable parameters"):
        make(net().requires_grad_(False))
    with pytest.raises(ValueError, match="optim.name must be one of"):
        make(net(), name="lion")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_captured_step_equals_an_eager_one(kind):
    results = []
    for captured in (False, True):
        parameters = copy.deepcopy(net()).cuda()
        optimizer = optim.build(parameters, section("optim", **kind), device="cuda", capturable=True)
        torch.manual_seed(1)
        gradients = [torch.randn_like(p) for p in parameters.parameters()]
        for p, gradient in zip(parameters.parameters(), gradients):
            p.grad = gradient if p.requires_grad else None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            optimizer.step()
        torch.cuda.synchronize()
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
            graph.replay()
        else:
            optimizer.step()
        torch.cuda.synchronize()
        results.append([p.detach().clone() for p in parameters.parameters()])
    for eager, replayed in zip(*results):
        torch.testing.assert_close(eager, replayed, rtol=1e-3, atol=1e-4)


def test_matrices_before_the_head_are_filters():
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 3))
    groups = optim.grouped(model)
    assert [id(p) for p in groups["filters"]] == [id(model[0].weight)]
    assert [id(p) for p in groups["head"]] == [id(model[1].weight)] and len(groups["biases"]) == 2


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_optimizer_that_forgets_is_a_fresh_one(kind):
    used, fresh = net(), net()
    optimizer = make(used, **kind)
    train(used, optimizer, 3)
    optimizer.forget()
    used.load_state_dict(fresh.state_dict())
    assert train(used, optimizer, 3) == train(fresh, make(fresh, **kind), 3)
