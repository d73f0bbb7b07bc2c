"""One run under the protocol: warm before, where it ends, last weights. test_promises holds the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawn import splits

from fastresnet.bench.protocol import protocol
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.step import Step
from fastresnet.training.trainer import Diverged, Trainer

SMALL = {
    "train.batch_size": 20, "train.epochs": 2, "model.stage_widths": [8, 8, 8], "eval.batch_size": 300,
    "run.device": "cpu", "train.precision": "fp32", "eval.tta": "crops", "eval.tta_share": 1.0,
    "train.resolutions": None, "train.epoch_share": 1.0,
}  # fmt: skip
STEPS = 6


def settings(**changes):
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return config.load("speed90-cpu.yaml", SMALL | named)


@pytest.fixture
def prepared(monkeypatch):
    """A recipe ready to run on 60 images, of 16 px, judged by 120."""
    made = []

    def make(**changes):
        monkeypatch.setattr(protocol, "matmul_ceiling", lambda *args, **kwargs: 1e12)
        made.append(protocol.prepare(settings(**changes), splits(60, 120, 16)))
        return made[-1]

    yield make
    for one in made:
        one.experiment.close()


def trained_by_hand(seed, **changes):
    """The same run without the protocol: an experiment of that seed, trained to its end."""
    other = Experiment(settings(run__seed=seed, **changes), splits=splits(60, 120, 16))
    other.initialise()
    for epoch in range(other.num_epochs):
        other.trainer.fit_epoch(other.train_loader.epoch(epoch), epoch)
    return other


@torch.no_grad()
def accuracy_by_hand(experiment, tta):
    """Accuracy on the test set by an own reading of what eval.tta means."""
    network = experiment.model.eval()

    def model(images):
        return network(images.contiguous(memory_format=torch.channels_last))

    images, labels = next(iter(experiment.eval_loaders["test"].epoch(0)))
    logits = model(images)
    if tta != "none":
        logits = 0.5 * logits + 0.5 * model(images.flip(-1))
    if tta == "crops":
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        views = [padded[..., k : k + 16, k : k + 16] for k in (0, 2)]
        logits = 0.5 * logits + sum(0.125 * (model(view) + model(view.flip(-1))) for view in views)
    return float((logits.argmax(1) == labels).double().mean())


def weights(experiment):
    return torch.cat([value.double().flatten() for value in experiment.model.state_dict().values()])


def test_the_last_weights_count_even_where_an_earlier_epoch_was_better(prepared, monkeypatch):
    ready = prepared(schedule__name="constant", train__epochs=6)
    experiment, between = ready.experiment, []
    plain, fit = experiment.train_loader.epoch, experiment.trainer.fit_epoch

    def batches(epoch, buffers):  # the last epoch teaches that every image is of class 0
        return ((images, labels * (epoch < 5)) for images, labels in plain(epoch, buffers))

    def watched(*args, **kwargs):
        result = fit(*args, **kwargs)
        between.append(accuracy_by_hand(experiment, "crops"))
        return result

    monkeypatch.setattr(experiment.train_loader, "epoch", batches)
    monkeypatch.setattr(experiment.trainer, "fit_epoch", watched)
    row = protocol.run_once(ready, 0)
    assert row["accuracy_tta"] == between[-1] < max(between)


def test_a_run_stops_where_max_steps_says_and_counts_the_arithmetic_of_these_steps(prepared, monkeypatch):
    ready, taken = prepared(train__max_steps=4), []
    step = ready.experiment.trainer.step
    monkeypatch.setattr(ready.experiment.trainer, "step", lambda *batch: (taken.append(1), step(*batch)))
    protocol.run_once(ready, 0)
    assert len(taken) == 4
    assert ready.flops["train"] == pytest.approx(4 / 6 * prepared().flops["train"])


def test_the_peak_of_memory_is_that_of_the_runs_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(protocol.memory, "reset_peak", lambda device: seen.append("begun"))
    monkeypatch.setattr(protocol, "matmul_ceiling", lambda *given, **more: seen.append("ceiling") or 1e12)
    protocol.prepare(settings(), splits(60, 120, 16)).experiment.close()
    assert seen == ["ceiling", "begun"]


def test_a_diverged_run_claims_no_share_of_the_machine(prepared, monkeypatch):
    def diverges(*given, **more):
        raise Diverged("not finite")

    ready = prepared()
    assert protocol.run_once(ready, 0)["mfu"] > 0
    monkeypatch.setattr(ready.experiment.trainer, "fit_epoch", diverges)
    row = protocol.run_once(ready, 1)
    assert row["status"] == "failed" and row.get("mfu") is None


def test_a_discarded_run_shows_each_kind_of_step_and_leaves_no_trace(prepared, monkeypatch):
    changes = {
        "train__resolutions": [[0.5, 12], [1.0, 16]],
        "train__drop_last": False,
        "train__batch_size": 25,
    }
    changes |= {"train__freeze_whiten_after": 1.5}
    seen = set()
    plain = Trainer.step

    def step(self, images, labels):
        seen.add((len(images), images.shape[-1], self.kind_at(self.steps_done)))
        plain(self, images, labels)

    monkeypatch.setattr(Trainer, "step", step)
    ready = prepared(**changes)
    warm = set(seen)
    row = protocol.run_once(ready, 1)
    assert warm == seen and len(warm) == 5, "batches of 25 and 10, at 12 and 16 px, once frozen"
    monkeypatch.undo()
    assert row["accuracy_tta"] == accuracy_by_hand(trained_by_hand(1, **changes), "crops")


COMPILED = """
import sys, torch
plain = torch.compile
torch.compile = lambda f, mode=None, **how: plain(f, backend="eager", **how)
from torch._dynamo.utils import counters
sys.path.insert(0, "tests")
from drawn import splits
from fastresnet.bench.protocol import protocol
from fastresnet.settings import config
protocol.matmul_ceiling = lambda *args, **kwargs: 1e12
cfg = config.load("speed90-cpu.yaml", {
    "train.batch_size": 25, "train.epochs": 2, "model.stage_widths": [8, 8, 8], "eval.batch_size": 30,
    "run.device": "cpu", "train.precision": "fp32", "train.compile": "default", "train.drop_last": False,
    "train.resolutions": [[0.5, 12], [1.0, 16]], "train.freeze_whiten_after": 0.5, "data.kernel": "compiled",
})
graphs = lambda: counters["stats"]["unique_graphs"]
ready = protocol.prepare(cfg, splits(60, 70, 16))
before = graphs()
protocol.run_once(ready, 0)
print(before, graphs())
"""


def test_nothing_is_compiled_on_the_clock():
    """Augmentation, step and evaluation, in a fresh process where no earlier test has compiled anything."""
    root, command = Path(__file__).parents[1], [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    before, after = map(int, done.stdout.split())
    assert before == after > 4, "two sizes, two batches, and the augmentation's own graphs"


def test_batches_are_written_where_the_trainer_wants_them(prepared, monkeypatch):
    """As in any training: a captured step reads its own buffers, without a copy."""
    ready, asked = prepared(), []
    plain = ready.experiment.train_loader.epoch
    monkeypatch.setattr(
        ready.experiment.train_loader, "epoch", lambda k, out: (asked.append(out), plain(k, out))[1]
    )
    protocol.run_once(ready, 0)
    assert asked == [ready.experiment.trainer.buffers] * 2


def test_a_gpu_is_read_from_once_a_run_and_elsewhere_each_epoch_ends_with_a_look(prepared, monkeypatch):
    ready, asked = prepared(), []
    experiment = ready.experiment
    result, drawn = experiment.trainer._result, experiment.train_loader.plan
    monkeypatch.setattr(experiment.trainer, "_result", lambda *given: asked.append("read") or result(*given))
    monkeypatch.setattr(experiment.train_loader, "plan", lambda epoch: asked.append(epoch) or drawn(epoch))
    found = []
    for kind, order in (("cpu", [0, "read", 1, "read"]), ("cuda", [0, 1, "read"])):
        monkeypatch.setattr(experiment, "device", torch.device(kind))
        experiment.reset(2)
        experiment.initialise()
        protocol._train(experiment, ready.last_step)
        assert asked == order
        asked.clear()
        found.append(weights(experiment))
    assert torch.equal(*found)


def test_a_run_that_diverges_ends_as_a_failed_row(prepared, monkeypatch):
    ready = prepared()

    def diverged(*args, **kwargs):
        raise protocol.trainer.Diverged("the loss became nan")

    monkeypatch.setattr(ready.experiment.trainer, "fit_epoch", diverged)
    found = protocol.run_once(ready, 3)
    assert found["status"] == "failed" and found["seed"] == 3 and "nan" in found["message"]
    assert found["accuracy"] is None and found["accuracy_tta"] is None and found["seconds"]["total"] > 0


def test_out_of_memory_names_the_parts_that_would_fit(monkeypatch):
    whole = Step._loss_and_hits

    def hungry(self, images, *rest):
        if len(images) > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(self, images, *rest)

    monkeypatch.setattr(Step, "_loss_and_hits", hungry)
    with pytest.raises(ValueError, match="speed90-cpu: out of memory on cpu .*; --train.accumulate=4 fits"):
        protocol.prepare(settings(train__batch_size=60), splits(60, 30, 16))
