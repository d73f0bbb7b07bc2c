"""The training step and the loop, on a model small enough to follow by hand."""

import copy
import math

import pytest
import torch
from drawn import splits
from model_settings import section
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fastresnet import optim
from fastresnet.machine import precision
from fastresnet.optim import Average, Optimizers, freezing
from fastresnet.optim.freezing import Freeze
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.selection import HardExamples
from fastresnet.training.step import StepOptions
from fastresnet.training.trainer import Diverged, Trainer

CPU = torch.device("cpu")


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    )


def sgd(model: nn.Module, lr: float = 0.1, momentum: float = 0.9) -> Optimizers:
    plain = section("optim", lr=lr, momentum=momentum, nesterov=False, weight_decay=0.0)
    return optim.build(model, plain, device="cpu")


def batches(count: int, size: int = 8, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(count)
    ]


def make(model: nn.Module, steps: int, factor: float = 1.0, **more) -> Trainer:
    return Trainer(
        model,
        more.pop("optimizer", None) or sgd(model),
        [factor] * steps,
        device=CPU,
        precision=more.pop("precision", precision.resolve("fp32", CPU)),
        **more,
    )


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_equals_the_textbook_step():
    model, same = net(), net()
    images, labels = batches(1)[0]
    make(model, 1).step(images, labels)
    optimizer = torch.optim.SGD(same.parameters(), lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(same(images), labels).backward()
    optimizer.step()
    assert torch.equal(weights(model), weights(same))


def test_the_rate_of_each_step_is_its_entry_in_the_table():
    model, seen = net(), []
    fp32 = precision.resolve("fp32", CPU)
    trainer = Trainer(model, sgd(model, lr=2.0), [0.0, 0.25, 1.0], device=CPU, precision=fp32)
    trainer.fit_epoch(batches(3), 0, on_step=lambda t: bool(seen.append(t.optimizer.param_groups[0]["lr"])))
    assert seen == [0.0, 0.5, 2.0]


def test_momentum_follows_its_table_too():
    model, seen = net(), []
    trainer = make(model, 2, momentum=[0.95, 0.85])
    trainer.fit_epoch(batches(2), 0, on_step=lambda t: seen.append(t.optimizer.param_groups[0]["momentum"]))
    assert seen == [0.95, 0.85]


@pytest.mark.parametrize("size, parts", [(12, 3), (6, 4), (7, 3), (5, 5), (3, 8)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_micro_batches_give_the_gradient_of_the_whole_batch_even_where_uneven(size, parts, reduction):
    images, labels = batches(1, size=size)[0]
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    cut = copy.deepcopy(plain)
    for model, accumulate in ((plain, 1), (cut, parts)):
        options = StepOptions(accumulate=accumulate, loss_reduction=reduction)
        make(model, 1, optimizer=sgd(model, momentum=0.0), options=options).step(images, labels)
    torch.testing.assert_close(weights(cut), weights(plain), rtol=1e-6, atol=1e-7)


def test_no_part_of_a_batch_is_a_single_image_that_a_norm_would_refuse():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    make(model, 1, options=StepOptions(accumulate=3)).step(
        *batches(1, size=7)[0]
    )  # of 1 the norm would raise


def test_summed_loss_is_the_mean_loss_times_the_batch():
    images, labels = batches(1, size=8)[0]
    mean, total = net(), net()
    make(mean, 1, optimizer=sgd(mean, lr=0.8, momentum=0.0)).step(images, labels)
    sums = StepOptions(loss_reduction="sum")
    make(total, 1, optimizer=sgd(total, lr=0.1, momentum=0.0), options=sums).step(images, labels)
    torch.testing.assert_close(weights(total), weights(mean), rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_whole_gradient():
    model, clipped = net(), StepOptions(clip_norm=0.01)
    before = weights(model)
    make(model, 1, optimizer=sgd(model, lr=1.0, momentum=0.0), options=clipped).step(*batches(1)[0])
    assert (weights(model) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_changes_the_gradient_and_the_reported_loss():
    images, labels = batches(1)[0]
    sharp, smooth = make(net(), 1), make(net(), 1, options=StepOptions(label_smoothing=0.2))
    first, second = sharp.fit_epoch([(images, labels)], 0), smooth.fit_epoch([(images, labels)], 0)
    assert first.loss != second.loss
    assert first.accuracy == second.accuracy


def test_the_epoch_reports_the_mean_over_its_images():
    model = net()
    data = batches(3, size=8) + batches(1, size=4, seed=2)
    frozen = copy.deepcopy(model)
    result = make(model, 4, factor=0.0).fit_epoch(data, 0)
    frozen.train()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(frozen(x), y, reduction="sum").item() for x, y in data]
        hits = [(frozen(x).argmax(1) == y).sum().item() for x, y in data]
    assert result.images == 28 and result.step == 4
    assert result.loss == pytest.approx(sum(losses) / 28, rel=1e-6)
    assert result.accuracy == pytest.approx(sum(hits) / 28)


def test_a_limit_stops_inside_an_epoch_and_leaves_the_schedule():
    trainer = make(net(), 8)
    assert trainer.fit_epoch(batches(4), 0, limit=3).step == 3
    assert trainer.total_steps == 8


def test_continuing_in_the_middle_of_an_epoch_equals_the_uninterrupted_run_bit_for_bit():
    data = batches(5)
    whole = make(net(), 5)
    expected = whole.fit_epoch(data, 0)
    first = make(net(), 5)
    first.fit_epoch(data, 0, limit=2)
    saved = copy.deepcopy((first.model.state_dict(), first.state_dict()))
    second = make(net(seed=7), 5)
    second.model.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    result = second.fit_epoch(data, 0, skip=2)
    assert torch.equal(weights(second.model), weights(whole.model))
    for name in ("loss", "accuracy", "images"):
        assert getattr(result, name) == getattr(expected, name)


def test_a_run_goes_on_in_fp16_that_began_on_a_device_without():
    fp16 = precision.Precision("fp16", torch.float32, scales_loss=True, reason="")
    first, second = make(net(), 4), make(net(), 4, precision=fp16)
    first.fit_epoch(batches(2), 0)
    second.load_state_dict(first.state_dict())
    assert second.steps_done == 2 and second.update.scaler.get_scale() > 1


def test_a_loss_that_is_no_number_ends_the_run_with_advice():
    trainer = make(net(), 2)
    images, labels = batches(1)[0]
    with pytest.raises(Diverged, match=r"epoch 1 .*optim\.lr"):
        trainer.fit_epoch([(images * math.inf, labels)], 0)


def test_warming_up_changes_nothing():
    trainer = make(net(), 6)
    before = copy.deepcopy(trainer.model.state_dict())
    random_state = torch.get_rng_state()
    trainer.warm_up(batches(1)[0][0])
    assert all(torch.equal(before[key], value) for key, value in trainer.model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    fresh = make(net(), 6)
    for one in (trainer, fresh):
        one.fit_epoch(batches(6), 0)
    assert torch.equal(weights(trainer.model), weights(fresh.model))


def learned(trainer: Trainer, watched: torch.Tensor, steps: int) -> list[bool]:
    """Did `watched` change in each of the steps?"""
    seen = [watched.detach().clone()]
    trainer.fit_epoch(batches(steps), 0, on_step=lambda t: bool(seen.append(watched.detach().clone())))
    return [not torch.equal(a, b) for a, b in zip(seen, seen[1:])]


def test_frozen_parameters_stay_from_their_step_on():
    model = net()
    trainer = make(model, 4, freeze=[Freeze(("4.bias",), 2)])
    assert learned(trainer, model[4].bias, 4) == [True, True, False, False]
    assert model[4].bias.requires_grad


def test_where_nothing_freezes_all_steps_are_of_one_kind():
    assert not Freeze((), 2).holds(2) and not Freeze().holds(0)
    assert [Freeze(("4.bias",), 2).holds(step) for step in range(4)] == [False, False, True, True]


def test_a_frozen_first_layer_costs_no_backward_pass():
    def backward_flops(frozen_from):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
        model[0].weight.requires_grad_(False)
        trainer = make(model, 1, freeze=[Freeze(("0.bias",), frozen_from)])
        with FlopCounterMode(display=False) as counter:
            trainer.step(*batches(1)[0])
        return counter.get_total_flops()

    first_layer = 2 * 8 * 144 * 10  # the gradient of the linear layer's input: 2 · images · inputs · outputs
    assert backward_flops(1) - backward_flops(0) == first_layer


@pytest.fixture
def graphs(monkeypatch):
    """torch.compile with a backend that runs what dynamo and autograd traced; and its graphs."""
    made = []
    plain = torch.compile

    def backend(graph, inputs):
        made.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: plain(f, backend=backend, dynamic=dynamic))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


@pytest.mark.parametrize("first", [0, 2])
def test_compiled_a_parameter_learns_before_it_freezes_and_not_after_whatever_was_traced_first(graphs, first):
    model = net()
    trainer = make(model, 4, freeze=[Freeze(("4.bias",), 2)], options=StepOptions(compile="default"))
    for start in (first, 2 - first):
        trainer.warm_up(batches(1)[0][0], start)
    assert len(graphs) == 2
    assert learned(trainer, model[4].bias, 4) == [True, True, False, False]
    assert len(graphs) == 2


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("name", ["0.weight", "1.running_mean"])
def test_compiled_layers_and_their_statistics_learn_from_the_thaw_on_whatever_was_traced_first(
    graphs, first, name
):
    model = net()
    layers = freezing.of_parts(model, ["0", "1"], 2)
    trainer = make(model, 4, freeze=[layers], options=StepOptions(compile="default"))
    for start in (first, 2 - first):
        trainer.warm_up(batches(1)[0][0], start)
    assert len(graphs) == 2
    assert learned(trainer, model.state_dict()[name], 4) == [False, False, True, True]
    assert len(graphs) == 2


def test_compiled_steps_without_freezing_are_one_graph(graphs):
    model, eager = net(), net()
    trainer = make(model, 3, options=StepOptions(compile="default", label_smoothing=0.1))
    trainer.fit_epoch(batches(3), 0)
    make(eager, 3, options=StepOptions(label_smoothing=0.1)).fit_epoch(batches(3), 0)
    assert len(graphs) == 1
    torch.testing.assert_close(weights(model), weights(eager))


def test_averages_hear_of_every_step():
    class Counter(Average):
        def __init__(self):
            self.steps = []

        def update(self, step):
            self.steps.append(step)

    counter = Counter()
    make(net(), 3, averages=[counter]).fit_epoch(batches(3), 0)
    assert counter.steps == [1, 2, 3]


def test_the_selected_batch_is_what_is_trained_on():
    model = net()
    quarter = HardExamples(model, 0.25, precision=precision.resolve("fp32", CPU), device=CPU)
    trainer = make(model, 1, select=quarter)
    assert trainer.fit_epoch(batches(1, size=8), 0).images == 2


def test_a_captured_graph_is_refused_without_a_gpu():
    with pytest.raises(ValueError, match="cuda_graph"):
        make(net(), 1, options=StepOptions(cuda_graph=True))


class _Reads(TorchDispatchMode):
    """Counts the calls that make the host wait for a device: reading a value out of a tensor."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
        ):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options", [StepOptions(), StepOptions(label_smoothing=0.1, accumulate=2, loss_reduction="sum")]
)
def test_a_step_never_reads_a_value_back(options):
    trainer = make(net(), 3, options=options)
    data = batches(3)
    trainer.step(*data[0])
    with _Reads() as reads:
        trainer.step(*data[1])
    assert reads.names == []


def test_the_counter_of_reads_would_see_one():
    with _Reads() as reads:
        torch.ones(1).item()
    assert reads.names


def test_bf16_trains_and_keeps_weights_in_fp32():
    model = net()
    trainer = make(model, 20, precision=precision.resolve("bf16", CPU))
    data = [(images.bfloat16(), labels) for images, labels in batches(2, size=16)]
    losses = [trainer.fit_epoch(data, epoch).loss for epoch in range(10)]
    assert losses[-1] < losses[0]
    assert all(p.dtype is torch.float32 for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("frozen_from", [100, 3])
def test_captured_steps_equal_eager_steps_on_the_gpu(frozen_from):
    device = torch.device("cuda")
    data = [(images.to(device), labels.to(device)) for images, labels in batches(6)]
    results = []
    for graph in (False, True):
        model = net().to(device)
        plain = section("optim", lr=0.1, nesterov=False, weight_decay=0.0)
        optimizer = optim.build(model, plain, device=device, capturable=graph)
        trainer = Trainer(
            model, optimizer, [0.1 * step for step in range(6)], device=device,
            precision=precision.resolve("fp32", device), options=StepOptions(cuda_graph=graph),
            freeze=[Freeze(("4.bias",), frozen_from)],
        )  # fmt: skip
        result = trainer.fit_epoch(data, 0)
        results.append((weights(model), result.loss))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


def test_a_mask_of_minus_infinity_is_no_sick_buffer_and_a_spoilt_weight_is():
    model = net()
    model.register_buffer("mask", torch.full((3,), -math.inf))
    trainer = make(model, 2)
    trainer.check(0)
    model[1].running_var.fill_(math.inf)
    with pytest.raises(Diverged, match=r"finite weights in 1\.running_var: "):
        trainer.check(0)


@pytest.mark.parametrize("changes", [
    {"train.drop_last": False}, {"train.hard_fraction": 0.1},
    {"train.hard_fraction": 0.5, "train.accumulate": 4},
], ids=str)  # fmt: skip
def test_a_part_of_one_image_is_refused_before_the_first_step_where_a_norm_would_see_one_value(changes):
    small = {"train.batch_size": 10, "run.device": "cpu", "train.precision": "fp32"} | changes
    speednet = {"model.arch": "speednet", "model.stage_widths": [8, 8, 8]}
    with pytest.raises(
        ValueError, match="has a part of one image, 16 px, and batch norm would see one value"
    ):
        Experiment(config.load(None, small | speednet), splits=splits(41, 10, size=16))
    resnet = {"model.stage_blocks": [1, 1], "model.stage_widths": [8, 16]}
    Experiment(config.load(None, small | resnet), splits=splits(41, 10, size=16)).fit_epoch(0)
