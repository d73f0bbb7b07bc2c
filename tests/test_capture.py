"""What a captured step may not do, shown without a GPU; and Snapshots, which let it run without a trace."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import tape
import torch
from drawn import splits
from model_settings import section
from test_loader import no_waiting
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastresnet import models, optim
from fastresnet.machine import precision
from fastresnet.optim import Optimizers
from fastresnet.optim.rates import Rates
from fastresnet.settings import config
from fastresnet.settings.reading import recipes
from fastresnet.training.assembly import Course, new_optimizer, new_selection, new_trainer
from fastresnet.training.capture import Snapshot, compiled
from fastresnet.training.evaluation import Evaluator, Tta, score
from fastresnet.training.experiment import Experiment
from fastresnet.training.step import Kind


def trained(optimizer_class=torch.optim.SGD, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return model, Optimizers([optimizer_class(model.parameters(), lr=0.1, **settings)])


def step(model, optimizer):
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_restoring_puts_weights_and_buffers_back_in_place():
    model, optimizer = trained(momentum=0.9)
    addresses = [p.data_ptr() for p in model.parameters()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    snapshot.restore()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert addresses == [p.data_ptr() for p in model.parameters()]


def test_optimizer_states_made_afterwards_become_zero():
    model, optimizer = trained(torch.optim.Adam)
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    assert any(value.any() for state in optimizer.parts[0].state.values() for value in state.values())
    snapshot.restore()
    assert not any(value.any() for state in optimizer.parts[0].state.values() for value in state.values())


def test_optimizer_states_from_before_come_back():
    model, optimizer = trained(momentum=0.9)
    step(model, optimizer)
    kept = [state["momentum_buffer"].clone() for state in optimizer.parts[0].state.values()]
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    snapshot.restore()
    for old, state in zip(kept, optimizer.parts[0].state.values()):
        assert torch.equal(old, state["momentum_buffer"])


# ---- nothing in a step waits for the device, or uploads to it ----------------------------------------------

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero)
UPLOADS = (aten.lift_fresh,)  # torch.tensor(numbers): a copy from pageable memory where the device is a GPU


class Forbidden(AssertionError):
    pass


class NoHost(TorchDispatchMode):
    """Raises at what a CUDA graph can't contain: values read by the host, constants sent by it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (*WAITS, *UPLOADS):
            raise Forbidden(str(func))
        return func(*args, **(kwargs or {}))


class FusedKernels(TorchDispatchMode):
    """A fused optimizer's step is one kernel that fake tensors know nothing of: here it does nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return None if "::_fused_" in func.name() else func(*args, **(kwargs or {}))


def course(device):
    return Course(20, 5, device, precision.Precision("fp32", torch.float32, False, ""))


FALLING = [1.0 - 0.05 * step for step in range(20)]


def racer(recipe):
    """A captured racer's trainer, narrow and on the CPU: rates in tensors, as its graph has them."""
    changes = {"train.compile": "off", "model.width": 0.125, "train.precision": "fp32"}
    cfg = config.load(recipe, changes)
    torch.manual_seed(0)
    model = models.build(cfg.model, 10, 32).train()
    proxy = (
        models.build(cfg.replace({"model.width": 0.0625}).model, 10, 32) if cfg.train.proxy_width else None
    )
    eager = cfg.replace({"train.cuda_graph": False})
    trainer = new_trainer(eager, model, None, course(CPU))
    trainer.optimizer = trainer.update.optimizer = new_optimizer(cfg, model, course(CPU))
    trainer.rates = Rates(trainer.optimizer, FALLING, None, {}, CPU)
    if proxy is not None:
        trainer.select = trainer.update.select = new_selection(cfg, model, proxy, FALLING, course(CPU))
    return trainer


CAPTURED = [name for name in recipes() if config.load(name).train.cuda_graph]


@pytest.mark.parametrize("recipe", CAPTURED)
@pytest.mark.parametrize("kind", [Kind((False,), True), Kind((True,), False)])
def test_a_racers_whole_step_asks_the_host_for_nothing(recipe, kind):
    trainer = racer(recipe)
    images, labels = torch.randn(16, 3, 24, 24), torch.arange(16) % 10
    trainer.whole_step(images, labels, kind)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with NoHost():
        trainer.whole_step(images, labels, kind)
    changed = [not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters())]
    assert any(changed)


@pytest.mark.parametrize("recipe", CAPTURED)
def test_a_racers_step_that_is_only_played_back_trains_as_the_step_itself(recipe, monkeypatch):
    """Rates, momenta, renormalising and the proxy's choice all move on without Python."""
    monkeypatch.setattr("fastresnet.training.capture.recorded", tape.recorded)
    plain, played = racer(recipe), racer(recipe)
    played.options = replace(played.options, cuda_graph=True)
    kinds = [plain.kind_at(number) for number in range(6)]
    for done, kind in enumerate(kinds, 1):
        images, labels = torch.randn(16, 3, 24, 24), torch.arange(16) % 10
        plain.whole_step(images, labels, kind)
        for average in plain.averages:
            average.update(done)
        played.step(images, labels)
    assert len(played._graphs) == len(set(kinds))
    for one, other in zip(plain.model.state_dict().values(), played.model.state_dict().values()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_evaluation_on_a_gpu_would_wait_for_nothing_until_it_is_scored():
    with FakeTensorMode(), CUDA:
        model = models.build(section("model", arch="speednet", width=0.125), 10, seed=0)
        evaluator = Evaluator(model, precision=course(CUDA).precision, device=CUDA)
        batches = [(torch.randn(n, 3, 24, 24), torch.zeros(n, dtype=torch.int64)) for n in (8, 3)]
        with NoHost():
            logits, labels = evaluator(batches, Tta("crops", 0.25))
        assert logits.shape == (11, 10) and logits.device == labels.device == CUDA
        with pytest.raises(DataDependentOutputException):
            score(logits, labels)


OPTIMIZERS = [
    dict(),
    dict(decoupled=True),
    dict(name="adam"),
    dict(name="adamw"),
    dict(name="muon"),
    dict(name="muon", renormalize_every=2, renormalize_slower=3.0, decoupled=True),
]


@pytest.mark.parametrize("changes", OPTIMIZERS, ids=str)
def test_no_capturable_optimizer_asks_the_host_for_anything_on_a_gpu(changes):
    """On tensors that say they are on a GPU: PyTorch takes the paths that it takes there."""
    with FakeTensorMode(), FusedKernels(), CUDA:
        model = models.build(section("model", arch="speednet", width=0.125), 10, seed=0)
        made = optim.build(model, section("optim", **changes), device=CUDA, capturable=True, total_steps=20)
        rates = Rates(made, [0.5] * 20, None, {}, CUDA)
        for step in range(2):
            for p in model.parameters():
                p.grad = torch.ones_like(p) if p.requires_grad else None
            with NoHost() if step else nullcontext():
                rates.set_on_device()
                made.step()
        assert all(value.device == CUDA for value in made.states() if value.ndim)


def test_a_read_and_an_upload_would_be_seen():
    with NoHost(), pytest.raises(Forbidden):
        torch.ones(1).item()
    with NoHost(), pytest.raises(Forbidden):
        torch.tensor([1.0])
    one = torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=torch.tensor(0.1), foreach=True)
    plain = Optimizers([one])
    plain.parts[0].param_groups[0]["params"][0].grad = torch.ones(2)
    with NoHost(), pytest.raises(Forbidden):
        plain.step()


@pytest.mark.gpu
@pytest.mark.parametrize("compile", ["off", "default"])
def test_a_captured_evaluation_on_a_gpu_equals_the_eager_one_and_never_waits(compile):
    device = torch.device("cuda")
    model = models.build(section("model", arch="speednet", width=0.25), 10).to(device)
    plain = Evaluator(model, precision=course(device).precision, device=device)
    captured = Evaluator(
        model, precision=course(device).precision, device=device, compile=compile, cuda_graph=True
    )
    images = torch.randn(100, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    batches = list(zip(images.split(40), torch.zeros(100, dtype=torch.int64, device=device).split(40)))
    captured(batches, Tta("crops", 0.25))
    with torch.no_grad():
        model.head.weight.mul_(-1.5)
    with no_waiting():
        found, _ = captured(batches, Tta("crops", 0.25))
    torch.testing.assert_close(found, plain(batches, Tta("crops", 0.25))[0], rtol=1e-3, atol=1e-3)


# ---- compiling ---------------------------------------------------------------------------------------------


def test_every_kind_of_batch_is_compiled_however_many_there_are(monkeypatch):
    """PyTorch gives up after eight of one function and runs it as it is, with a line in a log."""
    torch._dynamo.reset()
    made, plain = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode, **how: plain(function, backend=made, **how))
    with torch._dynamo.config.patch(recompile_limit=8):
        double = compiled(lambda x: 2 * x, "default")
        for count in range(2, 14):
            double(torch.ones(count))
    assert made.frame_count == 12
    torch._dynamo.reset()


def test_a_compiled_evaluation_is_one_graph_for_all_views_and_one_for_the_doubtful_images(monkeypatch):
    torch._dynamo.reset()
    made, plain = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode, **how: plain(function, backend=made, **how))
    model = models.build(section("model", arch="speednet", width=0.125), 10)
    settings = dict(precision=course(CPU).precision, device=CPU)
    batches = [(torch.randn(8, 3, 24, 24), torch.zeros(8, dtype=torch.int64)) for _ in range(2)]
    wanted, _ = Evaluator(model, **settings)(batches, Tta("crops", 0.25))
    found, _ = Evaluator(model, compile="default", **settings)(batches, Tta("crops", 0.25))
    assert made.frame_count == 2
    torch.testing.assert_close(found, wanted)
    torch._dynamo.reset()


@pytest.mark.slow(15)
@pytest.mark.parametrize("recipe", CAPTURED)
def test_a_racer_compiles_a_graph_for_each_kind_of_step_and_in_its_run_none(recipe, monkeypatch):
    """Each in one piece: what dynamo can't follow would be a launch of its own, in a capture or out of it."""
    torch._dynamo.reset()
    made, plain = CompileCounter(), torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, mode, **how: plain(function, backend=made, fullgraph=True, **how)
    )
    small = {"model.width": 0.125, "train.precision": "fp32", "train.batch_size": 8, "train.epochs": 4}
    cfg = config.load(recipe, small | {"train.cuda_graph": False, "run.device": "cpu"})
    experiment = Experiment(cfg, splits=splits(64, 32))
    steps = range(experiment.total_steps)
    every = [(experiment.batch_of(step), *experiment.trainer.kind_at(step)) for step in steps]
    kinds = {(batch, frozen) for batch, frozen, _ in every}
    judging = {(batch, learns) for batch, _, learns in every} if cfg.train.proxy_width else set()
    by_muon = (1 + bool(judging)) * (cfg.optim.name == "muon")
    experiment.warm_up()
    assert made.frame_count == len(kinds) + len(judging) + by_muon
    assert len(kinds) >= 2 + bool(cfg.train.resolutions)
    for epoch in range(experiment.num_epochs):
        experiment.fit_epoch(epoch)
    assert experiment.trainer.steps_done == len(steps) == 32 * cfg.train.epoch_share
    assert made.frame_count == len(kinds) + len(judging) + by_muon
    experiment.close()
    torch._dynamo.reset()
