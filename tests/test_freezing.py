"""Blocks of a network, and what of it is frozen when: on small nets by hand, captured, scaled, resumed."""

import copy

import observed
import pytest
import torch
from drawn import splits
from model_settings import section
from test_trainer import batches, make, net, sgd, weights
from torch import nn

from fastresnet import models, optim
from fastresnet.machine import precision
from fastresnet.models.flops import flops_per_image
from fastresnet.optim import freezing
from fastresnet.optim.blocks import blocks, depths, roots_of
from fastresnet.optim.freezing import Freeze
from fastresnet.settings import config
from fastresnet.training.arithmetic import work
from fastresnet.training.experiment import Experiment
from fastresnet.training.step import StepOptions
from fastresnet.training.trainer import Trainer


class Own(nn.Module):
    """A network as somebody else writes it: a container, a lone norm, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3, 1, 1))
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.Flatten()
        self.classifier = nn.Linear(4 * 16, 10)

    def forward(self, images):
        return self.classifier(self.pool(self.norm(self.features(images + self.shift))))


def built(**changes):
    return models.build(section("model", width=0.125, **changes), 10)


RESNET = [["conv1", "bn1"], *([f"layer{stage}.{i}"] for stage in range(1, 5) for i in range(2)), ["fc"]]
BLOCKS = {
    "resnet": (lambda: built(depth=18), RESNET),
    "preactivation": (
        lambda: built(depth=18, block="preactivation"),
        [["conv1"], *RESNET[1:-2], ["layer4.1", "norm"], ["fc"]],
    ),
    "resnet9": (lambda: built(arch="resnet9"), [[f"body.{i}"] for i in (0, 1, 3, 4, 6, 8)] + [["head"]]),
    "speednet": (
        lambda: built(arch="speednet"),
        [["whiten"], ["groups.0"], ["groups.1"], ["groups.2"], ["head"]],
    ),
    "one's own": (Own, [["shift", "features.0", "features.1"], ["features.3", "norm"], ["classifier"]]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_of_every_family_come_in_the_order_of_the_forward_pass(name):
    make_model, expected = BLOCKS[name]
    model = make_model()
    assert blocks(model) == expected
    above = depths(model)
    assert set(above) == {id(p) for p in model.parameters()}
    assert {above[id(p)] for p in model.get_submodule(expected[-1][0]).parameters()} == {0}
    assert max(above.values()) == len(expected) - 1


def test_a_container_of_the_users_own_kind_is_one_block_and_a_net_without_modules_too():
    class Stack(nn.Sequential):
        pass

    assert blocks(nn.Sequential(Stack(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))) == [["0"], ["1"]]
    bare = nn.Module()
    bare.weight = nn.Parameter(torch.zeros(2))
    assert blocks(bare) == [["weight"]] and depths(bare) == {id(bare.weight): 0}


def test_the_trunk_is_all_but_the_last_block_and_a_name_means_all_inside_it():
    model = Own()
    assert roots_of(model, ["trunk"]) == ["shift", "features.0", "features.1", "features.3", "norm"]
    frozen = freezing.of_parts(model, ["features"], 5)
    assert frozen.names == ("features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias",
                            "features.3.weight", "features.3.bias")  # fmt: skip
    assert frozen.norms == ("features.1",)
    assert [frozen.holds(step) for step in (0, 4, 5)] == [True, True, False]
    assert "layer1.1.bn1" not in freezing.of_parts(built(depth=18), ["layer1.0", "conv1"], None).norms


@pytest.mark.parametrize(("wanted", "says"), [
    (["layer9"], "model.freeze=layer9: this network has no such part; its blocks are shift, "),
    (["feat"], "no such part"),
    (["trunk", "classifier"], "model.freeze=trunk,classifier leaves nothing of this network to learn"),
])  # fmt: skip
def test_a_part_that_isnt_there_and_a_net_that_learns_nothing_are_refused(wanted, says):
    with pytest.raises(ValueError, match=says):
        freezing.of_parts(Own(), wanted, None)


FIRST_LAYERS = freezing.of_parts(net(), ["0", "1"], 2)


def moves(trainer, count=4):
    """In which of the steps the frozen convolution, its norm, the norm's statistics and the head changed."""
    model = trainer.model
    watched = (model[0].weight, model[1].weight, model[1].running_mean, model[4].weight)

    def copies():
        return [one.detach().clone() for one in watched]

    seen = [copies()]
    trainer.fit_epoch(batches(count), 0, on_step=lambda t: bool(seen.append(copies())))
    return [[not torch.equal(a, b) for a, b in zip(old, new)] for old, new in zip(seen, seen[1:])]


STILL, MOVING = [False, False, False, True], [True] * 4


def test_frozen_layers_and_their_statistics_stay_until_their_step_and_learn_from_it_on():
    trainer = make(net(), 4, freeze=[FIRST_LAYERS])
    assert moves(trainer) == [STILL, STILL, MOVING, MOVING]


def test_captured_each_kind_of_step_has_its_own_graph(monkeypatch):
    monkeypatch.setattr("fastresnet.training.capture.recorded", lambda body, device: (body, None))
    trainer, plain = (make(net(), 4, freeze=[FIRST_LAYERS, Freeze(("4.bias",), 3)]) for _ in range(2))
    trainer.options = StepOptions(cuda_graph=True)
    monkeypatch.setattr(trainer, "whole_step", lambda x, y, kind: trainer.update(x, y, kind))
    trainer.rates.set(0)
    assert moves(trainer) == [STILL, STILL, MOVING, MOVING]
    assert [kind.frozen for _, kind in trainer._graphs] == [(True, False), (False, False), (False, True)]
    moves(plain)
    assert torch.equal(weights(trainer.model), weights(plain.model))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_captured_on_the_gpu_they_equal_eager_steps(name):
    results = []
    for graph in (False, True):
        model = net().cuda()
        kind = section("optim", name=name, lr=0.01, layer_decay=0.5)
        optimizer = optim.build(model, kind, device="cuda", capturable=graph)
        trainer = Trainer(
            model, optimizer, [1.0] * 6, device=torch.device("cuda"),
            precision=precision.resolve("fp32", torch.device("cuda")),
            options=StepOptions(cuda_graph=graph), freeze=[FIRST_LAYERS],
        )  # fmt: skip
        trainer.fit_epoch([(x.cuda(), y.cuda()) for x, y in batches(6)], 0)
        results.append(weights(model))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_the_first_step_after_the_thaw_finds_a_fresh_optimizer_state():
    thawed, fresh = net(), net()
    trainer = make(thawed, 3, freeze=[FIRST_LAYERS])
    trainer.fit_epoch(batches(2), 0)
    fresh.load_state_dict(copy.deepcopy(thawed.state_dict()))
    other = make(fresh, 1, optimizer=sgd(fresh))
    for one in (trainer, other):
        one.model.train()
        one.step(*batches(1, seed=9)[0])
    assert torch.equal(thawed[0].weight, fresh[0].weight)


def test_a_loss_scaler_steps_what_learns_alone():
    """Muon holds the filters alone: while they are frozen it has no gradient, which a scaler won't have."""
    model = net()
    muon = optim.build(model, section("optim", name="muon", lr=0.05), device="cpu")
    trainer = make(model, 4, optimizer=muon, freeze=[FIRST_LAYERS])
    trainer.update.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert moves(trainer) == [STILL, STILL, MOVING, MOVING]


def test_gradients_that_several_processes_need_are_dropped_before_they_act():
    alone, among = (
        make(net(), 4, freeze=[FIRST_LAYERS], options=StepOptions(processes=count, clip_norm=0.05))
        for count in (1, 2)
    )
    assert moves(alone) == moves(among) == [STILL, STILL, MOVING, MOVING]
    assert torch.equal(weights(alone.model), weights(among.model))


def test_a_state_saved_before_the_thaw_leaves_later_states_in_place():
    """A captured graph made them in its warm-up; eager steps before a checkpoint had not."""
    kind = section("optim", name="adam", lr=0.01)
    early, late = (optim.build(net(), kind, device="cpu") for _ in range(2))
    for optimizer, groups in ((early, early.param_groups[:1]), (late, late.param_groups)):
        for p in (p for group in groups for p in group["params"]):
            p.grad = torch.ones_like(p)
        optimizer.step()
    before = late.states()
    late.load_state_dict(early.state_dict())
    assert all(a is b for a, b in zip(before, late.states(), strict=True))
    assert sum(bool(value.any()) for value in late.states()) == len(early.states()) < len(before)


# ---- put together from settings ----------------------------------------------------------------------------

SMALL = {
    "model.arch": "resnet", "model.stage_blocks": [1, 1], "model.stage_widths": [8, 16],
    "train.batch_size": 10, "train.precision": "fp32", "train.epochs": 2, "run.device": "cpu",
    "schedule.name": "constant",
}  # fmt: skip


@pytest.fixture
def started(tmp_path):
    """started(changes, notes) -> an Experiment on a net whose weights come from a file."""
    torch.save(models.build(config.load(None, SMALL).model, 10).state_dict(), tmp_path / "weights.pt")

    def call(changes, **more):
        given = {**SMALL, "model.pretrained": str(tmp_path / "weights.pt"), **changes}
        return Experiment(config.load(None, given), splits=splits(40, 20, size=16), **more)

    return call


def test_a_run_tells_its_blocks_and_what_is_frozen_how_long(started):
    said = []
    one = started({"model.freeze": "trunk".split(), "train.freeze_epochs": 0.5, "optim.layer_decay": 0.5},
                  notes=said.append)  # fmt: skip
    assert "rates fall by 0.5 a block towards the input: fc, layer2.0, layer1.0, conv1" in said
    (told,) = [line for line in said if line.startswith("frozen for 0.5 epochs")]
    assert told.endswith(": trunk (5,096 of 5,266 parameters)")
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.fit_epoch(0, limit=2)
    after = one.model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"fc.weight", "fc.bias"}
    one.fit_epoch(0)
    assert all(not torch.equal(after[name], before[name]) for name in after if name.endswith("weight"))


def test_a_frozen_trunk_costs_its_forward_pass_alone(started):
    whole, frozen = started({}), started({"model.freeze": ["trunk"], "train.freeze_epochs": 1.0})
    forward = flops_per_image(whole.model, 16)
    head = 2 * 16 * 10
    assert work(whole).flops == pytest.approx(3 * 80 * forward)
    assert work(frozen, 0, 4).flops == pytest.approx(40 * (forward + 2 * head))
    assert work(frozen, 4).flops == pytest.approx(3 * 40 * forward)
    middle = started({"model.freeze": ["layer1"]})
    inside = 2 * (2 * 8 * 8 * 9 * 256)  # two 3x3 convolutions, 8 to 8 channels, on 16x16 px
    assert work(middle).flops == pytest.approx(80 * (3 * forward - inside))


def test_random_weights_are_not_frozen():
    with pytest.raises(ValueError, match="model.freeze=trunk keeps what was learned before, and nothing was"):
        Experiment(config.load(None, {**SMALL, "model.freeze": ["trunk"]}), splits=splits(40, 20, size=16))
    with pytest.raises(ValueError, match="train.freeze_epochs says how long model.freeze holds"):
        config.load(None, {"train.freeze_epochs": 1.0})


def test_a_frozen_run_goes_on_to_the_same_bits_from_before_and_after_the_thaw(started):
    changes = {"model.freeze": ["layer1", "conv1", "bn1"], "train.freeze_epochs": 1.5, "optim.name": "adamw"}
    whole = started(changes)
    saved = {}

    def keep(trainer: Trainer) -> bool:
        state = copy.deepcopy((whole.model.state_dict(), trainer.state_dict()))
        saved[trainer.steps_done] = state
        return False

    for epoch in (0, 1):
        whole.fit_epoch(epoch, on_step=keep)
    for step in (3, 5, 7):
        again = started(changes)
        again.model.load_state_dict(saved[step][0])
        again.trainer.load_state_dict(saved[step][1])
        for epoch in range(step // 4, 2):
            again.fit_epoch(epoch)
        assert observed.same(dict(again.model.state_dict()), dict(whole.model.state_dict())), step
