"""Several processes on one machine, started by torchrun as users start them."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import observed
import pytest
import torch
from launched import ROOT, alone, begun, torchrun, with_betons

from fastresnet import __main__ as command
from fastresnet.base import exits
from fastresnet.loading.interface import Batching
from fastresnet.machine import distributed, precision
from fastresnet.machine.distributed import World
from fastresnet.ranks import collectives
from fastresnet.ranks.joining import join
from fastresnet.runs import checkpoint, start
from fastresnet.settings import config
from fastresnet.settings.reading import recipes
from fastresnet.sources import synthetic
from fastresnet.training import assembly, experiment
from fastresnet.training.trainer import Diverged

OTHERS = {"LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
SETTINGS = [
    "--data.train=train.beton", "--data.test=test.beton", "--train.batch_size=50", "--train.epochs=2",
    "--run.dir=run", "--run.report=false", "--run.threads=1", "--train.checkpoint_every=1 steps",
    "--train.precision=fp32",
]  # fmt: skip

# What each process says and learns, in one start of torchrun; alone, what one process learns.
TOGETHER = """
import json
import pathlib
import time
from dataclasses import asdict
import torch
import torch.distributed as dist
from brittle import net
from drawn import splits
from torch import nn
from fastresnet import optim
from fastresnet.base.exits import StopRequest
from fastresnet.machine import precision
from fastresnet.models import Ensemble, members
from fastresnet.optim.freezing import Freeze
from fastresnet.optim.sharing import Share
from fastresnet.ranks import agreement, collectives, norms
from fastresnet.ranks.joining import join
from fastresnet.runs.keeping import Keeper
from fastresnet.runs.ledger import Ledger
from fastresnet.settings import config
from fastresnet.training.experiment import Experiment
from fastresnet.training.own import Own
from fastresnet.training.step import StepOptions
from fastresnet.training.trainer import Diverged, Trainer
from fastresnet.watching import divergence

cpu = torch.device("cpu")

def raised(call, *arguments):
    try:
        call(*arguments)
    except (ValueError, RuntimeError) as error:
        return str(error)

def say(place):
    groups = dist.group.WORLD, collectives.Vote(place)._group
    rows = torch.full((place.rank + 1, 2), float(place.rank))
    net = nn.Linear(2, 2)
    torch.manual_seed(0)
    net.reset_parameters()
    x = torch.ones(2, requires_grad=True)
    (collectives.Summed.apply(x) * (place.rank + 1.0)).sum().backward()
    said = {
        "main": place.is_main,
        "on this host": place.local_size,
        "days of patience": [group._get_backend(cpu).options._timeout.days for group in groups],
        "gathered": collectives.gather_rows(rows, place)[:, 0].tolist(),
        "total": collectives.sum_over(torch.tensor([1.0 + place.rank]), place).item(),
        "gradient": x.grad.tolist(),
        "alike": raised(agreement.agree, {"torch": "2.12.0"}, place),
        "unlike": raised(agreement.agree, {"torch": "2.12.0" if place.rank != 1 else "2.11.0"}, place),
        "same": raised(agreement.same_weights, net, place, 3),
    }
    with torch.no_grad():
        if place.rank == 1:
            net.weight[0, 1] = net.weight[0, 1].nextafter(torch.tensor(9.0))
    said["parted"] = raised(agreement.same_weights, net, place, 3)
    collectives.barrier(place)
    pathlib.Path(f"rank{place.rank}.json").write_text(json.dumps(said))

def remember(place):
    changes = {"train.batch_size": 8, "train.epochs": 3, "train.precision": "fp32", "run.device": "cpu",
               "train.epoch_share": 0.5, "optim.lr": 0.01, "schedule.name": "constant"}
    own = Own(net(0, ""))
    one = Experiment(config.load(None, changes), place, splits(train=32, test=8, size=16), own=own)
    one.initialise()
    shown = []
    for epoch in range(3):
        shown.append([row for _ in one.batches(epoch) for row in one.train_loader.rows.tolist()])
        one.fit_epoch(epoch)
    one.close()
    return {"shown": shown, "losses": one.trainer.select.losses.tolist()}

def broken(place, way):
    changes = {"train.batch_size": 8, "train.epochs": 2, "train.precision": "fp32", "run.device": "cpu",
               "run.save_checkpoints": False, "optim.lr": 0.01, "schedule.name": "constant"}
    own = Own(net(6 if place.rank == 1 else 0, way))
    one = Experiment(config.load(None, changes), place, splits(train=40, test=8, size=16), own=own)
    keeper = Keeper(one, Ledger(one), None, print)
    one.initialise()
    try:
        for epoch in range(2):
            one.fit_epoch(epoch)
            one.trainer.check(epoch)
    except Diverged as error:
        return str(divergence.traced(error, one, keeper.rewind, StopRequest()))
    finally:
        keeper.close()
        one.close()

def learn(place, name, reduction, norm=False, shared=False, several=False):
    torch.manual_seed(0)
    nets = [nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.GELU(), nn.Conv2d(8, 6, 3),
        nn.Flatten(), nn.Linear(6 * 16, 5),
    ) for _ in range(1 + several)]
    net, first, second = Ensemble(nets) if several else nets[0], nets[0][0], nets[0][3]
    norms.synchronise(net.double(), cpu)
    images, labels = torch.randn(4, 16, 3, 8, 8).double() + 1, torch.randint(0, 5, (4, 16))
    mine = slice(place.rank * 16 // place.size, (place.rank + 1) * 16 // place.size)
    batches = [(x[mine], y[mine]) for x, y in zip(images, labels)]
    cfg = config.load(None, {"optim.name": name, "optim.lr": 0.01, "optim.momentum": 0.8})
    optimizer = optim.build(net, cfg.optim, device=cpu, place=place)
    if shared and place.size > 1:
        optimizer.parts[0].share = Share([first.weight.shape, second.weight.shape], 3, place)
    options = StepOptions(
        loss_reduction=reduction, accumulate=1 if norm else 2, label_smoothing=0.1, processes=place.size,
        clip_norm=3.0 * (reduction == "mean"),  # clipped sums look alike however they are scaled
    )
    trainer = Trainer(
        collectives.wrap(net, place, cpu), optimizer, [1.0] * 4, device=cpu,
        precision=precision.resolve("fp32", cpu), options=options, place=place,
        freeze=[Freeze(tuple(f"{part}0.{one}" for part in members(net) for one in ("weight", "bias")), 0, 1)],
    )
    result = asdict(trainer.fit_epoch(batches, 0))
    return net.state_dict(), {key: result[key] for key in ("loss", "accuracy", "images", "step")}

with join("cpu") as place:
    if place.size > 1:
        say(place)
        told = [broken(place, way) for way in ("forward", "backward")]
        pathlib.Path(f"broken{place.rank}.json").write_text(json.dumps(told))
        pathlib.Path(f"remembered{place.rank}.json").write_text(json.dumps(remember(place)))
    learned = {}
    for name in ("sgd", "muon", "adam", "adamw"):
        for reduction in ("mean", "sum"):
            learned[f"{name} {reduction}"] = learn(place, name, reduction)
    learned["batch norm"] = learn(place, "sgd", "mean", norm=True)
    learned["ensemble"] = learn(place, "muon", "mean", several=True)
    learned["shared"] = learn(place, "muon", "sum", shared=True)
    if place.is_main:
        time.sleep(0.3)
        torch.save(learned, f"{place.size}.pt")
assert pathlib.Path(f"{place.size}.pt").exists(), "one has left before the first was done"
with join("cpu") as place:
    assert collectives.sum_over(torch.ones(1), place).item() == place.size
"""

# Rank 1 is killed in the seventh step, once.
KILLED = """
import os
import pathlib
import signal
import sys
from fastresnet.base import exits
from fastresnet.runs import start
from fastresnet.runs.callbacks import Callback

class Kill(Callback):
    def on_step_end(self, trainer):
        mark = pathlib.Path("killed")
        if trainer.steps_done == 7 and os.environ["RANK"] == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

def main():
    start.train("smoke.yaml", sys.argv[1:], callbacks=[Kill()])

sys.exit(exits.exit_code(main))
"""


# Rank 1 is killed when it is to evaluate the first epoch.
KILLED_EVALUATING = KILLED.replace(
    "import sys\n",
    """import sys
from fastresnet.training.experiment import Experiment
if os.environ["RANK"] == "1":
    Experiment.predict = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
""",
)

# Rank 1 gets broken images in the second step of the second epoch, whenever it does that step.
BROKEN_IMAGES = """
import os
import sys
from fastresnet.base import exits
from fastresnet.loading.resident import ResidentLoader
from fastresnet.runs import start

whole = ResidentLoader.epoch

def epoch(self, number, *more):
    for place, (images, labels) in enumerate(whole(self, number, *more)):
        broken = self.asked.shuffle and (number, place, os.environ["RANK"]) == (1, 1, "1")
        yield images * float("nan") if broken else images, labels

ResidentLoader.epoch = epoch
sys.exit(exits.exit_code(lambda: start.train("smoke.yaml", sys.argv[1:]) and None))
"""


TRAIN = [ROOT / "scripts" / "train.py", "--config=smoke.yaml", *SETTINGS]


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


# ---- one process, and what is refused ----------------------------------------------------------------------


def test_one_process_is_a_world_of_its_own():
    with join("cpu") as place:
        assert place == World() and place.is_main
    rows = torch.ones(2, 3)
    assert collectives.gather_rows(rows, place) is rows
    model = torch.nn.Linear(2, 2)
    assert collectives.wrap(model, place, torch.device("cpu")) is model


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 stands in the environment without RANK, LOCAL_RANK, MASTER_ADDR"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two stands in the environment without LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2", **OTHERS}, "RANK the lesser: "),
        ({"WORLD_SIZE": "2", "RANK": "x", **OTHERS}, "must be whole numbers"),
    ],
)
def test_half_of_torchrun_s_environment_is_refused_by_its_names(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), join("cpu"):
        pass


def test_several_processes_find_only_one_apple_gpu(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", **OTHERS}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="run.device=mps is one GPU"), join("mps"):
        pass


@pytest.mark.parametrize("name", ["evaluate", "find-lr", "convert", "bench"])
def test_what_several_processes_would_do_as_often_is_refused_in_one_line(monkeypatch, capsys, name):
    for key, value in {"WORLD_SIZE": "2", "RANK": "1", **OTHERS}.items():
        monkeypatch.setenv(key, value)
    assert command.main([name]) == 2
    err = capsys.readouterr().err
    assert "share one run of `train`, or the runs of `reproduce` and `search`" in err
    assert err.count("\n") == 1


def test_what_befalls_all_alike_is_said_by_the_first(monkeypatch, capsys):
    def end():
        raise Diverged("the loss became nan")

    for size, rank, said in (("2", "0", 1), ("2", "1", 0), ("1", "1", 1)):
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.setenv("RANK", rank)
        assert exits.exit_code(end) == exits.FAILED
        assert capsys.readouterr().err == "error: the loss became nan\n" * said


def test_a_batch_divides_evenly_or_is_refused():
    assert distributed.local_batch_size(512, World(size=4)) == 128
    with pytest.raises(ValueError, match="train.batch_size=10 doesn't divide over 3 processes"):
        distributed.local_batch_size(10, World(size=3))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_sample_is_seen_once_an_epoch_in_the_same_batches_however_many_processes(processes):
    parts = [
        Batching(16 // processes, (0.5,) * 3, (0.5,) * 3, rank=rank, world_size=processes).positions(100)
        for rank in range(processes)
    ]
    steps = [torch.cat(some).tolist() for some in zip(*(part.split(16 // processes) for part in parts))]
    assert [sorted(step) for step in steps] == [list(range(i, min(i + 16, 100))) for i in range(0, 100, 16)]


def test_a_last_batch_that_does_not_divide_is_refused_not_cut():
    asked = Batching(8, (0.5,) * 3, (0.5,) * 3, rank=1, world_size=2)
    asked.check(100)
    with pytest.raises(ValueError, match="leaves 5 images in an epoch's last batch"):
        asked.check(101)
    replace(asked, drop_last=True).check(101)


def test_the_hardest_images_of_a_batch_that_is_shared_out_are_refused():
    cfg = config.load(None, {"train.hard_fraction": 0.5})
    cpu = torch.device("cpu")
    course = assembly.Course(1, 1, cpu, precision.resolve("fp32", cpu), World(size=2))
    with pytest.raises(ValueError, match="each of 2 processes sees a part: train in one"):
        assembly.new_selection(cfg, torch.nn.Linear(2, 2), None, [1.0], course)


def test_a_step_of_several_processes_is_not_captured_and_that_is_said():
    cfg = config.load(None, {"train.cuda_graph": True})
    assert not assembly.step_options(cfg, torch.device("cuda"), 2).cuda_graph
    assert list(assembly.choices(cfg, World())) == []
    (line,) = assembly.choices(cfg, World(size=2))
    assert line.startswith("train.cuda_graph is left out: 2 processes exchange gradients")
    (line,) = assembly.choices(config.load(None, {"train.epoch_share": 0.5}), World())
    assert line.startswith("an epoch shows 50 % of the images, the hardest")


def test_versions_code_settings_data_and_the_checkpoint_are_compared(monkeypatch):
    told: dict[str, object] = {}
    keep = lambda facts, place, hint="": told.update(facts)  # noqa: E731
    monkeypatch.setattr(start, "agree", keep)
    monkeypatch.setattr(experiment.agreement, "agree", keep)
    start._check_together(config.load(None, {"optim.lr": 0.25}), {"step": 7}, World(size=2))
    with observed.experiment(config.load(None, {"run.device": "cpu", "train.batch_size": 8})):
        pass
    assert told["optim.lr"] == 0.25 and told["checkpoint's step"] == 7 and "data.root" not in told
    assert told["torch"] == importlib.metadata.version("torch") and len(str(told["code"])) == 12
    assert told["training images"] == 40 and "the training data's digest" in told


def test_restarts_without_a_folder_to_go_on_from_are_refused(monkeypatch):
    monkeypatch.setattr(start, "agree", lambda *given: None)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    start._check_together(config.load(None, {"run.dir": "here"}), None, World(size=2))
    for settings in ({}, {"run.dir": "here", "run.save_checkpoints": False}):
        with pytest.raises(ValueError, match="--max-restarts=3 begins again .* name its folder, run.dir"):
            start._check_together(config.load(None, settings), None, World(size=2))


# ---- two processes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{} of them".format)
def together(request, tmp_path_factory):
    """(number of processes, the folder where they said and learned)."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "together.py").write_text(TOGETHER)
    done = torchrun("together.py", cwd=folder, processes=request.param)
    assert done.returncode == 0, done.stderr
    return request.param, folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one process learns, this one."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(TOGETHER, {"__name__": "together"})
    return torch.load(folder / "1.pt", weights_only=True)


def test_what_processes_send_arrives_and_what_differs_is_named_on_all_of_them(together):
    count, folder = together
    said = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(count)]
    assert [told.pop("main") for told in said] == [True] + [False] * (count - 1)
    assert all(told == said[0] for told in said)
    assert said[0] == {
        "on this host": count,
        "days of patience": [7, 7],
        "gathered": [float(rank) for rank in range(count) for _ in range(rank + 1)],
        "total": sum(range(1, count + 1)),
        "gradient": [sum(range(1, count + 1))] * 2,
        "alike": None,
        "unlike": "rank 1 differs from rank 0: torch 2.11.0 against 2.12.0",
        "same": None,
        "parted": said[0]["parted"],
    }
    assert said[0]["parted"].startswith("rank 1 holds other weights than rank 0 after step 3")


def test_what_is_not_finite_on_one_rank_is_named_by_all_with_rank_step_and_layer(together):
    count, folder = together
    texts = [json.loads((folder / f"broken{rank}.json").read_text()) for rank in range(count)]
    assert all(told == texts[0] for told in texts)
    began = "it began in step 6 (batch 1 of epoch 2, seed 0, learning rate 0.01): on rank 1 the "
    images = 8 // count
    assert f"{began}output of 3 ({images} of {images} images) is not finite" in texts[0][0]
    assert f"{began}gradient at the output of 2 is not finite, though all outputs and the " in texts[0][1]
    assert all(told.endswith(f"it comes again with the same call in {count} processes") for told in texts[0])


def test_what_one_has_seen_all_remember_and_the_next_epoch_shows_the_rest(together):
    count, folder = together
    told = [json.loads((folder / f"remembered{rank}.json").read_text()) for rank in range(count)]
    assert all(one["losses"] == told[0]["losses"] for one in told)
    first, second, third = (sum((one["shown"][epoch] for one in told), []) for epoch in range(3))
    assert sorted(first + second) == list(range(32)) and len(set(third)) == 16


def test_several_processes_learn_what_one_learns(together, one):
    """By each recipe's optimizer and reduction, Muon's products shared, through synchronised batch norm.

    And as an ensemble, whose members one process asks one after the other.
    In fp64 but for the loss and Muon's products, which are fp32.
    """
    count, folder = together
    several = torch.load(folder / f"{count}.pt", weights_only=True)
    shipped = [config.load(name) for name in recipes()]
    of_recipes = {f"{cfg.optim.name} {cfg.train.loss_reduction}" for cfg in shipped}
    assert several.keys() == one.keys() >= of_recipes | {"batch norm", "ensemble", "shared"}
    for name, (learned, facts) in one.items():
        theirs, told = several[name]
        assert told == pytest.approx(facts, rel=1e-5), name
        for key, value in learned.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-5, atol=1e-7, msg=f"{name}: {key}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the folder, what was said) of two processes that nothing disturbed."""
    folder = with_betons(tmp_path_factory.mktemp("trained"))
    done = torchrun(*TRAIN, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_two_processes_train_one_model_and_write_one_record(trained):
    folder, done = trained
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1, done.stdout
    result = json.loads(lines[0])
    assert result["world_size"] == 2 and result["steps"] == 12
    assert result["data"]["test_size"] == 61
    kept = weights(folder / "run")
    assert not any(key.startswith("module.") for key in kept["model"]) and kept["processes"] == 2
    assert result["per_epoch"][-1]["train_loss"] < result["per_epoch"][0]["train_loss"]


@pytest.mark.slow(30)
def test_a_compiled_step_of_two_processes_learns_what_an_eager_one_does(trained, tmp_path):
    done = torchrun(*TRAIN, "--train.compile=default", cwd=with_betons(tmp_path))
    assert done.returncode == 0, done.stderr
    both = [json.loads((folder / "run" / "result.json").read_text()) for folder in (trained[0], tmp_path)]
    eager, compiled = (result["per_epoch"][0]["train_loss"] for result in both)
    assert compiled == pytest.approx(eager, rel=0.01), "rounding grows from step to step"


def test_all_processes_evaluate_with_the_statistics_that_are_kept(trained):
    run = trained[0] / "run"
    model, facts = checkpoint.load_model(run)
    images, _ = synthetic.draw("test", 61, 16)
    mean, std = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    with np.load(run / "predictions.npz") as kept, torch.no_grad():
        theirs = model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
        assert np.allclose(kept["logits"], theirs, atol=1e-3)


# ---- what befalls them -------------------------------------------------------------------------------------


def killed(script, folder):
    """Has two processes train in a folder until the script kills rank 1; the last step that was kept."""
    (with_betons(folder) / "killed.py").write_text(script)
    began = time.monotonic()
    done = torchrun("killed.py", *SETTINGS, cwd=folder)
    assert done.returncode == 1 and time.monotonic() - began < 60, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == [line for line in lines if "rank 1 shows no sign of life" in line] and len(lines) == 1
    assert "fastresnet/runs/" not in done.stderr, done.stderr  # no traceback of ours
    return weights(folder / "run")["step"]


@pytest.mark.slow(25)
def test_a_process_that_is_killed_while_it_evaluates_ends_the_job_in_one_line(tmp_path):
    assert 0 < killed(KILLED_EVALUATING, tmp_path) <= 6


@pytest.mark.slow(25)
def test_a_killed_process_ends_the_job_in_one_line_and_one_process_goes_on(tmp_path):
    step = killed(KILLED, tmp_path)
    assert 0 < step <= 7
    again = alone(*TRAIN, cwd=tmp_path)
    said = again.stderr + again.stdout
    assert again.returncode == 0 and f"at step {step} of 12" in said, said
    assert "with 1 in place of 2 processes: the same batches, not the same bits" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 12 and result["world_size"] == 1


@pytest.mark.slow(25)
def test_broken_images_of_one_rank_end_the_job_in_one_line_that_names_them(tmp_path):
    """Through a synchronised norm, which breaks all ranks' outputs in the same step."""
    (with_betons(tmp_path) / "broken.py").write_text(BROKEN_IMAGES)
    done = torchrun("broken.py", *SETTINGS, "--train.sync_batch_norm=true", cwd=tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and "fastresnet/runs/" not in done.stderr, done.stderr
    assert line.startswith("error: the loss became nan in epoch 2 ")
    assert "it began in step 8 (batch 2 of epoch 2, " in line
    told = ": on rank 1 the images of its batch are not finite; it comes again with "
    assert line.endswith(f"{told}fastresnet train --run.resume=run in 2 processes")


@pytest.mark.slow(25)
def test_what_one_process_began_goes_on_with_two(tmp_path):
    (with_betons(tmp_path) / "killed.py").write_text(KILLED)
    assert alone("killed.py", *SETTINGS, cwd=tmp_path, RANK="1").returncode == -signal.SIGKILL
    done = torchrun(*TRAIN, cwd=tmp_path)
    said = done.stderr + done.stdout
    assert done.returncode == 0 and "with 2 in place of 1 processes: the same batches" in said, said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 12 and result["world_size"] == 2


@pytest.mark.slow(25)
def test_torchrun_restarts_after_a_kill_and_ends_with_the_same_bits(trained, tmp_path):
    folder = with_betons(tmp_path)
    (folder / "killed.py").write_text(KILLED)
    done = torchrun("killed.py", *SETTINGS, cwd=folder, options=["--max-restarts=1"])
    assert done.returncode == 0 and (folder / "killed").exists(), done.stderr
    assert "continuing run at step" in done.stderr + done.stdout
    whole, mended = weights(trained[0] / "run")["model"], weights(folder / "run")["model"]
    assert all(torch.equal(mended[key], value) for key, value in whole.items())


@pytest.mark.slow(25)
def test_one_process_s_callback_ends_the_run_in_all(tmp_path):
    folder = with_betons(tmp_path)
    (folder / "ending.py").write_text(KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "return True"))
    done = torchrun("ending.py", *SETTINGS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "run" / "result.json").read_text())["steps"] == 9


@pytest.mark.slow(25)
def test_ctrl_c_with_two_processes_saves_at_once_and_says_so_in_one_line(tmp_path):
    longer = [word.replace("epochs=2", "epochs=5000") for word in map(str, TRAIN)]
    child = begun(*longer, cwd=with_betons(tmp_path))
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the launcher and to both processes
    said = child.communicate(timeout=100)[1]
    lines = [line for line in said.splitlines() if "interrupted at step" in line]
    assert len(lines) == 1 and "--run.resume=run" in lines[0], said
    assert "fastresnet/runs/" not in said, said  # no traceback of ours
    assert torch.load(last, weights_only=True)["step"] == int(lines[0].split("step ")[1].split(";")[0])


# ---- two hosts ---------------------------------------------------------------------------------------------


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2."""
    names = [f"fastresnet-{os.getpid()}-{i}" for i in (1, 2)]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)

    if shutil.which("ip") is None:
        pytest.skip("needs the command ip")
    try:
        for name in names:
            ip("netns", "add", name)
        end, peer = (("cable", "netns", name) for name in names)
        ip("link", "add", *end, "type", "veth", "peer", "name", *peer)
        for i, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{i}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces aren't allowed here: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.slow(25)
def test_two_hosts_train_one_job(hosts, trained, tmp_path):
    folder = with_betons(tmp_path)
    options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29577"]
    jobs = []
    for i, name in enumerate(hosts, 1):
        own = [f"--local-addr=10.77.0.{i}", f"--rdzv-conf=is_host={i == 1},join_timeout=60"]
        inside = {"before": ["ip", "netns", "exec", name], "GLOO_SOCKET_IFNAME": "cable"}
        jobs.append(begun(*TRAIN, cwd=folder, options=[*options, *own], **inside))
    said = [job.communicate(timeout=200) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["world_size"] == 2 and result["steps"] == 12
    whole, theirs = weights(trained[0] / "run")["model"], weights(folder / "run")["model"]
    assert all(torch.equal(theirs[key], value) for key, value in whole.items())
