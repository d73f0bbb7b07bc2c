"""fitting: a batch too large for the memory is cut into as few parts as fit; a run that ran out says so."""

import weakref

import observed
import pytest
import torch
from drawn import splits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fastresnet.base.exits import exit_code
from fastresnet.machine import memory
from fastresnet.machine.distributed import World
from fastresnet.models import summary
from fastresnet.runs import checkpoint, start
from fastresnet.runs.progress import Progress
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.step import Step
from fastresnet.watching import fitting

SMALL = {
    "model.arch": "speednet", "model.stage_widths": [8, 8, 8], "train.batch_size": 40, "train.epochs": 2,
    "train.precision": "fp32", "run.device": "cpu", "run.threads": 1, "run.progress": "off",
    "run.report": False,
}  # fmt: skip


def settings(**changes):
    return config.load(None, SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture
def little_memory(monkeypatch):
    """A device on which a forward pass of more than ten images runs out of memory."""
    whole = Step._loss_and_hits

    def limited(self, images, *rest):
        if len(images) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(self, images, *rest)

    monkeypatch.setattr(Step, "_loss_and_hits", limited)


def test_as_few_parts_are_taken_as_fit(little_memory):
    assert fitting.parts_that_fit(settings(), observed.SPLITS) == 4
    assert fitting.parts_that_fit(settings(train__batch_size=8), observed.SPLITS) == 1
    assert fitting.parts_that_fit(settings(train__batch_size=20, train__accumulate=0), observed.SPLITS) == 2


def test_what_no_cutting_helps_is_told(monkeypatch):
    def none(*given):
        raise MemoryError

    monkeypatch.setattr(Step, "_loss_and_hits", none)
    assert fitting.parts_that_fit(settings(), observed.SPLITS) is None  # already the steps that are measured
    monkeypatch.setattr(fitting, "_predicted", lambda *given: 1)
    assert fitting.parts_that_fit(settings(), observed.SPLITS) is None
    assert "not even parts of 2 images fit" in fitting.advice(settings(), None)


def test_other_errors_are_no_lack_of_memory(monkeypatch):
    def broken(*given):
        raise RuntimeError("shapes don't match")

    monkeypatch.setattr(Step, "_loss_and_hits", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        fitting._trains(settings(), 1, observed.SPLITS, fitting.NOTHING, torch.device("cpu"))


@pytest.mark.parametrize("share, parts", [(4.0, 1), (0.4, 4)])
def test_on_a_cpu_small_steps_are_measured_before_large_ones_are_done(monkeypatch, share, parts):
    """`share` of what a step on the whole batch keeps is free."""
    cfg = settings(model__stage_widths=[64, 64, 64], train__batch_size=64)
    images = splits(train=64, test=10, size=32)
    one = Experiment(cfg, splits=images)
    kept = [fitting._taken(one, 0, count).kept for count in (8, 16)]
    one.close()
    monkeypatch.setattr(memory, "free_bytes", lambda *device: int(share * 8 * (kept[1] - kept[0])))
    assert fitting._predicted(cfg, images, fitting.NOTHING) in (parts, 2 * parts)


def test_the_heaviest_step_has_the_largest_images():
    cfg = settings(train__resolutions=[[0.5, 12], [1, 16]], train__batch_size=8)
    with observed.experiment(cfg) as one:
        assert one.batch_of(fitting.heaviest_step(one)) == (8, 16)


def test_a_step_larger_than_what_is_free_is_told_before_the_system_kills_it(monkeypatch):
    with observed.experiment(settings()) as whole, observed.experiment(settings(train__accumulate=4)) as cut:
        assert fitting.warning(whole) == ""
        monkeypatch.setattr(memory, "free_bytes", lambda *device: 1000)
        assert "a step on 40 images of 16 px needs about" in fitting.warning(whole)
        assert "a step on 10 images" in fitting.warning(cut)
        cut.place = World(size=2, local_size=2)
        assert "a step in 2 processes, each on 10 images" in fitting.warning(cut)
        enough_for_one = summary.memory_of_step(cut.model, 16, 10).total
        monkeypatch.setattr(memory, "free_bytes", lambda *device: enough_for_one)
        assert fitting.warning(cut)
        cut.place = World()
        assert not fitting.warning(cut)


def run(folder, changes):
    """A run on the small drawn set, quiet."""
    with observed.on_the_small_set():
        return start.train(settings(run__dir=str(folder), **changes), progress=Progress("off"))


def test_a_run_finds_its_parts_and_keeps_them_when_it_goes_on(tmp_path, little_memory, monkeypatch):
    found = {"train__accumulate": 0}
    done = run(tmp_path / "whole", found)
    assert done.record["config"]["train"]["accumulate"] == 4
    assert "accumulate: 4" in (tmp_path / "whole" / "config.yaml").read_text()
    run(tmp_path / "part", {**found, "train__max_steps": 1})
    (tmp_path / "part" / "result.json").unlink()  # as if it had been killed
    monkeypatch.setattr(fitting, "parts_that_fit", None)  # nobody looks again
    again = run(tmp_path / "part", found)
    assert again.record["config"]["train"]["accumulate"] == 4 and again.record["steps"] == 2
    weights = [checkpoint.load(tmp_path / name)["model"] for name in ("whole", "part")]
    assert observed.same(*weights)


def test_a_run_that_ran_out_of_memory_says_in_one_line_what_fits(tmp_path, little_memory, capsys):
    assert exit_code(lambda: run(tmp_path / "run", {}) and None) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: out of memory on cpu with train.batch_size=40, train.accumulate=1")
    assert "2.00 GiB more were asked for; --train.accumulate=4 fits: the same batch in 4 parts" in said[0]


def test_where_a_training_step_fits_the_evaluation_is_what_does_not():
    assert "eval.batch_size" in fitting.advice(settings(train__accumulate=4), 4)
    assert "--train.accumulate=8 fits" in fitting.advice(settings(train__accumulate=4), 8)


def test_what_a_failed_run_left_behind_is_given_back_before_anything_is_tried(monkeypatch):
    left = torch.zeros(3)
    left.itself = left  # as a run's frames and objects hold each other
    gone = weakref.ref(left)
    del left
    monkeypatch.setattr(fitting, "_predicted", lambda *given: 1 if gone() is None else 8)
    monkeypatch.setattr(fitting, "_trains", lambda *given: True)
    assert fitting.parts_that_fit(settings(), observed.SPLITS) == 1


class Room(TorchDispatchMode):
    """A device with so many bytes for tensors: more is refused in the words of CUDA's allocator."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.held, self.peak, self.known = limit, 0, 0, {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._hold, result)
        return result

    def _hold(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or tensor.is_meta:
            return
        if self.held + size > self.limit:
            raise torch.OutOfMemoryError(f"Tried to allocate {size} bytes.")
        self.known[key] = weakref.ref(storage, lambda gone: self._free(key, size))
        self.held += size
        self.peak = max(self.peak, self.held)

    def _free(self, key, size):
        self.held -= size
        del self.known[key]


def test_what_a_run_says_that_fits_does_fit_and_half_as_many_parts_do_not(tmp_path, capsys):
    """Room for half of what the whole batch takes, counted tensor by tensor."""
    large = {"model__stage_widths": [32, 32, 32], "train__max_steps": 1, "eval__batch_size": 4}
    large |= {"train__cpu_kernels": "off"}  # what they allocate inside is no tensor that can be counted
    with Room(2**40) as unlimited:
        run(tmp_path / "whole", large)

    def told(folder, **more):
        with Room(unlimited.peak // 2):
            code = exit_code(lambda: run(tmp_path / folder, large | more) and None)
        return code, capsys.readouterr().err.strip()

    code, said = told("a")
    parts = int(said.partition("--train.accumulate=")[2].split()[0])
    assert code == 1 and parts > 2, said
    assert told("b", train__accumulate=parts) == (0, "")
    code, said = told("c", train__accumulate=parts // 2)
    assert code == 1 and f"--train.accumulate={parts} fits" in said


@pytest.mark.gpu
def test_a_gpu_is_tried_and_its_memory_given_back(tmp_path):
    device = torch.device("cuda")
    total = memory.total_bytes(device)
    cfg = settings(model__stage_widths=[512, 512, 512], train__batch_size=2048, run__device="cuda")
    images = splits(train=2048, test=20, size=32)
    torch.cuda.set_per_process_memory_fraction(12 * 2**30 / total)
    try:
        parts = fitting.parts_that_fit(cfg, images)
        assert parts is not None and parts > 1
        assert not fitting._trains(cfg, parts // 2, images, fitting.NOTHING, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        memory.give_back(device)
    assert torch.cuda.memory_reserved() < 2**30
