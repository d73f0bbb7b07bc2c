"""What can be seen of a run: the observations by which tests tell whether a setting or a promise acts.

Each takes a Config and gives plain numbers, texts and tensors that `same` compares. Nothing here judges.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from drawn import splits

from fastresnet import data
from fastresnet.bench.commands import reproduce
from fastresnet.runs import checkpoint, start
from fastresnet.settings.config import Config
from fastresnet.training.experiment import Experiment
from fastresnet.watching.hang import Watchdog

STEPS = 4  # that an observation of weights trains
SPLITS = splits(train=40, test=200, size=16)


def same(left: Any, right: Any) -> bool:
    """Whether two observations are equal to the last bit, in values, shapes and kinds."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@contextlib.contextmanager
def experiment(cfg: Config):
    """The experiment on the small drawn set; process-wide switches are put back, loaders are closed."""
    threads = torch.get_num_threads()
    one = Experiment(cfg, splits=SPLITS)
    try:
        yield one
    finally:
        one.close()
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def trained(one: Experiment) -> Experiment:
    """The same after its first steps."""
    one.initialise()
    one.fit_epoch(0, limit=STEPS)
    return one


@contextlib.contextmanager
def everywhere(**stand_ins: Any):
    """Functions of the package by name, replaced in every module that has them."""
    with contextlib.ExitStack() as stack:
        for module in [one for name, one in sys.modules.items() if name.startswith("fastresnet.")]:
            for name in set(stand_ins) & set(vars(module)):
                stack.enter_context(mock.patch.object(module, name, stand_ins[name]))
        yield


@contextlib.contextmanager
def on_the_small_set():
    """Whole runs get the small drawn set, a clean commit and a stated ceiling of the hardware."""
    clean = {"commit": "c" * 40, "dirty": False}
    with (
        everywhere(git_state=lambda *given: dict(clean), matmul_ceiling=lambda *given, **more: 1e12),
        mock.patch.object(data, "prepare", lambda *given: SPLITS),
    ):
        yield


# ---- of the training --------------------------------------------------------------------------------------


def weights(cfg: Config) -> Any:
    """Every parameter and buffer after the first steps."""
    with experiment(cfg) as one:
        return {key: value.clone() for key, value in trained(one).model.state_dict().items()}


def averaged(cfg: Config) -> Any:
    """The averaged weights after the first steps; None where nothing is averaged."""
    with experiment(cfg) as one:
        model = trained(one).averaged_model
        return None if model is None else {key: value.clone() for key, value in model.state_dict().items()}


def batches(cfg: Config) -> Any:
    """Images and labels of the first two epochs, batch by batch."""
    with experiment(cfg) as one:
        return [list(one.train_loader.epoch(epoch)) for epoch in (0, 1)]


def rates(cfg: Config) -> Any:
    """Learning rate and momentum of each group in each step of the whole run."""
    seen: list[Any] = []

    def look(trainer: Any) -> bool:
        for group in trainer.optimizer.param_groups:
            seen.append([float(group["lr"]), group.get("momentum", group.get("betas"))])
        return False

    with experiment(cfg) as one:
        for epoch in range(one.num_epochs):
            one.fit_epoch(epoch, on_step=look)
    return seen


def layout(cfg: Config) -> Any:
    """Strides of the batches and of the weights."""
    with experiment(cfg) as one:
        images, _ = next(one.train_loader.epoch(0))
        return [images.stride(), *(value.stride() for value in one.model.state_dict().values())]


def kinds(cfg: Config) -> Any:
    """The kinds of the network's modules by name."""
    with experiment(cfg) as one:
        return {name: type(module).__name__ for name, module in one.model.named_modules()}


def own_kernels(cfg: Config) -> Any:
    """The parts of the network that take our operations where these fit."""
    with experiment(cfg) as one:
        return [name for name, part in one.model.named_modules() if getattr(part, "own_kernels", False)]


def shapes(cfg: Config) -> Any:
    """Of what each layer gives for the first batch."""
    seen: list[Any] = []
    with experiment(cfg) as one:
        for layer in one.model.modules():
            layer.register_forward_hook(lambda layer, given, output: seen.append(list(output.shape)))
        one.model(next(one.train_loader.epoch(0))[0])
    return seen


def tta_logits(cfg: Config) -> Any:
    """Logits of the test set after the first steps, with test-time augmentation by mirroring."""
    with experiment(cfg) as one:
        return trained(one).predict("test", tta="flip")


# ---- of how it is carried out -----------------------------------------------------------------------------


def machinery(cfg: Config) -> Any:
    """Who makes the batches and with what, on four cores; the test batches; switches of the process."""
    with mock.patch("os.cpu_count", lambda: 4), mock.patch("os.sched_getaffinity", lambda pid: set(range(4))):
        with experiment(cfg) as one:
            return {
                "loader": one.loaders.name,
                "kernel": one.train_loader.kernel,
                "workers": getattr(one.train_loader, "workers", None),
                "test batches": len(one.eval_loaders["test"]),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "threads": torch.get_num_threads(),
                "device": one.device.type,
            }


def compiled(cfg: Config) -> Any:
    """What torch.compile is asked for; nothing is compiled."""
    asked: list[Any] = []

    def stand_in(function: Any, **how: Any) -> Any:
        asked.append(sorted(how.items(), key=str))
        return function

    with mock.patch("torch.compile", stand_in), experiment(cfg) as one:
        trained(one)
    return asked


def beginning(cfg: Config) -> Any:
    """The device of a run that can begin here and whether its step is captured, else the complaint."""
    try:
        with experiment(cfg) as one:
            return [one.device.type, one.trainer.options.cuda_graph]
    except ValueError as error:
        return str(error)


# ---- of the data ------------------------------------------------------------------------------------------


def prepared(cfg: Config) -> Any:
    """The data as it is read, without FFCV and offline: what is known of it, training labels and pixels; or
    the complaint."""
    quiet = contextlib.redirect_stderr(io.StringIO())
    offline = mock.patch("torchvision.datasets.CIFAR10", side_effect=OSError("offline"))
    try:
        with (
            quiet,
            offline,
            mock.patch("time.sleep"),
            mock.patch("fastresnet.beton.can_write", lambda: False),
        ):
            found = data.prepare(cfg)
    except ValueError as error:
        return str(error)
    held = found.val.labels if found.val is not None else None
    return [found.info, found.class_names, found.train.labels, found.train.images, held]


def streamed(cfg: Config) -> Any:
    """The samples in the order in which they are streamed in the first epoch."""
    with contextlib.redirect_stderr(io.StringIO()):
        found = data.prepare(cfg)
        one = Experiment(cfg, splits=found)
    try:
        return one.train_loader.plan(0).samples
    finally:
        one.close()


class _Asked(Exception):
    """Ends a conversion where the writer has been told what to write."""


def stored(cfg: Config) -> Any:
    """How the writer of betons is told to store the images; nothing is written."""
    writer = mock.MagicMock()
    writer.return_value.__enter__.return_value.write.side_effect = _Asked
    with (
        mock.patch("fastresnet.beton.Writer", writer),
        mock.patch("fastresnet.beton.can_write", lambda: True),
    ):
        with contextlib.suppress(_Asked):
            data.prepare(cfg)
    told = writer.return_value.__enter__.return_value.write.call_args.kwargs
    return {key: told[key] for key in ("mode", "quality", "workers")}


# ---- of a whole run ---------------------------------------------------------------------------------------

WITH_A_CLOCK = re.compile(r"[\d.:,]+ (?:min|ms|s|h|images/s)\b|\d{8}-\d{6}\S*|time\s+\S+|mfu\s+\S+")


def run(cfg: Config) -> Any:
    """A whole run: its record without what clocks and folders say, its files, its words, its process."""
    out, err = io.StringIO(), io.StringIO()
    epochs: list[Any] = []
    fit = Experiment.fit_epoch

    def watched(self: Experiment, *given: Any, **more: Any) -> Any:
        epochs.append([self.trainer.steps_done, torch.are_deterministic_algorithms_enabled()])
        return fit(self, *given, **more)

    saved: list[Any] = []
    save = checkpoint.save

    def kept(path: Any, payload: Any) -> Any:
        saved.append([Path(path).name, payload["step"]])
        return save(path, payload)

    threads = torch.get_num_threads()
    watching = (
        mock.patch.object(Experiment, "fit_epoch", watched),
        mock.patch.object(checkpoint, "save", kept),
    )
    with watching[0], watching[1], on_the_small_set():
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            done = start.train(cfg)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    files = sorted(str(path.relative_to(done.dir)) for path in done.dir.rglob("*") if path.is_file())
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in done.history]
    return {
        "folder": done.dir.name,
        "files": [re.sub(r"events\.out\S+", "events", name) for name in files],
        "rows": rows,
        "checkpoints": saved,
        "accuracy": done.record["accuracy"],
        "seed": done.record["seed"],
        "steps": done.record["steps"],
        "first step and determinism of each epoch": epochs,
        "words": [WITH_A_CLOCK.sub("", text.getvalue()).replace(str(done.dir), "") for text in (out, err)],
        "weights": {k: v.clone() for k, v in done.model.state_dict().items()},
    }


TIMED = ("seconds", "images_per_second")


def watched(cfg: Config) -> Any:
    """How long a run lets pass between two steps, by itself after the first one; None: it isn't watched."""
    seen: list[Any] = []

    class Seen(Watchdog):
        def __exit__(self, *given: Any) -> None:
            seen.append(self.limit if self._thread.is_alive() else None)
            super().__exit__(*given)

    with everywhere(Watchdog=Seen):
        run(cfg)
    return seen


# ---- of a record ------------------------------------------------------------------------------------------


def reproduced(folder: Path, *words: str) -> dict[str, Any]:
    """The record of `benchmarks/reproduce.py` with these words on the small drawn set, in `folder`."""
    out = io.StringIO()
    with on_the_small_set(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        reproduce.main([*words, "--start-up=skipped", f"--out={folder}"])
    return dict(json.loads(out.getvalue().splitlines()[-1]))


def judged(cfg: Config) -> Any:
    """The target of a record of one run, and whether it was met."""
    folder = Path(cfg.run.dir)
    folder.mkdir(exist_ok=True)
    cfg.dump(folder / "config.yaml")
    made = reproduced(folder, "--runs=1", f"--config={folder / 'config.yaml'}")
    return made["target"], made["summary"]["target_met"]
