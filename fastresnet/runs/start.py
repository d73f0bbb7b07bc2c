"""Train from settings, or go on from a checkpoint: what scripts, notebooks and `fastresnet.train` call."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

import fastresnet.data as datasets
from fastresnet.base.exits import Interrupted
from fastresnet.data import Splits
from fastresnet.data.own import splits_of
from fastresnet.machine import memory, software, timing
from fastresnet.machine.devices import choose_device
from fastresnet.machine.distributed import World
from fastresnet.models import pretrained
from fastresnet.ranks.agreement import agree
from fastresnet.ranks.joining import join
from fastresnet.runs import checkpoint, folder, loggers
from fastresnet.runs.callbacks import Callback, Callbacks, EarlyStopping
from fastresnet.runs.folder import State
from fastresnet.runs.progress import Progress
from fastresnet.runs.session import Handed, Run, Session
from fastresnet.settings import config
from fastresnet.settings.config import Config
from fastresnet.settings.keys import COMMAND_LINE
from fastresnet.training.own import Own, place
from fastresnet.training.trainer import Diverged
from fastresnet.watching import fitting

__all__ = ["Interrupted", "Run", "train"]

DEFAULT_RECIPE = "rn18.yaml"
CALLER = "the caller"  # who set what `train` was handed beside its settings
AUTO = "auto"  # run.resume: go on with what run.dir holds, or begin anew
# What may differ between a checkpoint and the run that continues it: nothing here changes what is learned.
FREE_ON_RESUME = (
    "run.dir", "run.resume", "run.device", "run.threads", "run.hang_after", "run.progress", "run.loggers",
    "run.report", "run.save_checkpoints", "eval.", "train.max_steps", "train.compile", "train.cuda_graph",
    "train.checkpoint_every", "data.source", "data.root", "data.train", "data.test", "data.betons",
    "data.workers", "data.kernel", "data.allow_synthetic",
)  # fmt: skip

# What may differ between the hosts of one run.
OF_A_HOST = ("data.root", "data.train", "data.test", "data.betons", "data.workers", "run.threads")


def train(
    settings: str | Path | Config = DEFAULT_RECIPE,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    model: nn.Module | Callable[[int, int], nn.Module] | None = None,
    data: object = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
) -> Run:
    """Train as `settings` say and return the finished Run.

    settings:   name of a recipe, path of a YAML file, or a Config
    overrides:  {"train.epochs": 1}, stands above the recipe; beside a name or path also ["--train.epochs=1"]
    model, loss, augment:  the caller's own, see training.own.Own
    data:       a folder or a pair (training set, test set): tensors, arrays or Datasets (see data.own), or
                the paths of two betons; or Splits
    callbacks:  see runs.callbacks.Callback
    A run that was killed goes on where its folder holds a checkpoint, and begins anew where it doesn't.
    Raises ValueError for input that can't work, trainer.Diverged when the loss stops being a number,
    fitting.OutOfMemory, and Interrupted on Ctrl-C. A run that hangs ends its process: see run.hang_after.
    """
    began = timing.now(torch.device("cpu"))
    cfg = settled(settings, overrides)
    loggers.check(cfg.run.loggers)
    own = Own(model, loss, augment)
    own.check(cfg.model.members)
    if model is not None and cfg.model.pretrained:
        raise ValueError("model.pretrained is for networks of the settings: load its weights into model=")
    cfg, splits = with_data(cfg, data)
    if model is not None:
        cfg = cfg.replace({"model.arch": place(model)}, origin=CALLER)
    _check_stopping(callbacks, cfg, splits)
    handed = Handed(splits, own, callbacks)
    going_on = _going_on(cfg)
    payload = checkpoint.load(going_on) if going_on else None
    where = None
    if going_on is not None and payload is not None:
        cfg = _agreed(cfg, payload, going_on)
        where = _folder_of(cfg, going_on)
    device_type = choose_device(cfg.run.device).type
    with join(device_type) as world:
        _check_together(cfg, payload, world)
        progress = progress or Progress(
            cfg.run.progress if world.is_main else "off", peek=device_type == "cpu"
        )
        if cfg.train.accumulate == fitting.FITTED:
            cfg, handed = _fitted(cfg, world, handed, progress)
        memory.reset_peak(choose_device(cfg.run.device, world))  # what came before is not this run's
        try:
            return Session(cfg, world, progress, payload, where, began, handed).run()
        except Diverged:
            raise
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            told = fitting.tried(cfg, error)
        raise fitting.OutOfMemory(f"{told}; {_what_fits(cfg, world, handed, progress)}")


def _check_together(cfg: Config, payload: Mapping[str, Any] | None, world: World) -> None:
    """Raises ValueError where several processes wouldn't train one model, or couldn't go on as asked."""
    if world.size == 1:
        return
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and not (cfg.run.dir and cfg.run.save_checkpoints):
        raise ValueError(
            f"torchrun --max-restarts={restarts} begins again from the last checkpoint: name its folder, "
            "run.dir, and leave run.save_checkpoints=true"
        )
    agree(alike(cfg), world)
    step = None if payload is None else payload["step"]
    agree({"checkpoint's step": step}, world, ": run.dir must lie where all hosts see it")


def alike(cfg: Config) -> dict[str, object]:
    """What must be the same in all processes of a job: versions, code, all settings that no host owns."""
    settings = {key: value for key, value in cfg.flat().items() if key not in OF_A_HOST}
    return {**software.versions(), "code": software.source_digest(), **settings}


def settled(settings: str | Path | Config, overrides: Mapping[str, Any] | Sequence[str]) -> Config:
    """The settings that a caller means. Raises ValueError where they are wrong."""
    if not isinstance(settings, Config):
        return config.load(settings, overrides)
    if not overrides:
        return settings
    if not isinstance(overrides, Mapping):
        raise ValueError(f"beside a Config overrides must be a dict of settings, got {overrides!r}")
    return settings.replace(overrides, origin=COMMAND_LINE)


def _check_stopping(callbacks: Sequence[Callback], cfg: Config, splits: Splits | None) -> None:
    """Raises ValueError where early stopping would wait for a figure that no epoch has."""
    held_back = cfg.data.val_fraction > 0 if splits is None else splits.val is not None
    measured = ["test", "val"][: 1 + held_back] if cfg.eval.every else []
    for one in Callbacks(callbacks).parts:
        if isinstance(one, EarlyStopping):
            one.check(measured)


def with_data(cfg: Config, given: object) -> tuple[Config, Splits | None]:
    """The settings that find the caller's data, or the data itself, read from what the caller holds.

    They take the network from where model.pretrained says, and its image size for data that is in files.
    """
    paths = list(given) if isinstance(given, (tuple, list)) else [given]
    in_files = given is None or all(isinstance(one, (str, Path)) for one in paths)
    cfg = pretrained.like_the_run(cfg, sized=in_files)
    if given is None or isinstance(given, Splits):
        return cfg, given
    if isinstance(given, (str, Path)):
        named = {"data.source": "auto", "data.root": str(given), "data.train": None, "data.test": None}
        return cfg.replace(named, origin=CALLER), None
    if in_files:
        if len(paths) != 2:
            raise ValueError(f"data: two betons are wanted, training and test, got {len(paths)} paths")
        train, test = map(str, paths)
        return cfg.replace({"data.train": train, "data.test": test}, origin=CALLER), None
    return cfg, splits_of(given, cfg.data.subset, cfg.data.val_fraction)


def _fitted(cfg: Config, world: World, handed: Handed, progress: Progress) -> tuple[Config, Handed]:
    """The settings with the fewest parts that fit into memory, and the data, which was read to find them."""
    if world.size > 1:
        raise ValueError("train.accumulate=0 tries what fits in one process: with several, name the number")
    splits = handed.splits or datasets.prepare(cfg, progress.note)
    parts = fitting.parts_that_fit(cfg, splits, handed.own)
    if parts is None:
        raise fitting.OutOfMemory(f"train.batch_size={cfg.train.batch_size}: {fitting.advice(cfg, None)}")
    progress.note(f"train.accumulate={parts}: the fewest parts of a batch that fit into memory")
    cfg = cfg.replace({"train.accumulate": parts}, origin="what fits into memory")
    return cfg, replace(handed, splits=splits)


def _what_fits(cfg: Config, world: World, handed: Handed, progress: Progress) -> str:
    """What to change after memory ran out, found by trying."""
    if world.size > 1:
        return "a larger train.accumulate or a smaller eval.batch_size takes less"
    progress.note("out of memory: looking for what fits ...")
    try:
        splits = handed.splits or datasets.prepare(cfg)
        return fitting.advice(cfg, fitting.parts_that_fit(cfg, splits, handed.own))
    except (ValueError, RuntimeError, MemoryError) as error:
        return f"what fits can't be told ({error})"


def _going_on(cfg: Config) -> Path | None:
    """The checkpoint that the run goes on from, None where it begins anew."""
    asked, named = cfg.run.resume, cfg.run.dir
    if asked and asked != AUTO:
        return checkpoint.find(asked)
    if asked and not named:
        raise ValueError("run.resume=auto goes on with what run.dir holds: name run.dir")
    state = folder.state(Path(named)) if named else State.NEW
    if named and (state is State.STOPPED or (asked and state is State.FINISHED)):
        return checkpoint.find(named)
    return None


def _folder_of(cfg: Config, going_on: Path) -> Path | None:
    """The folder of the checkpoint where the run stays in it, None where it goes on in a new one."""
    own = folder.of_checkpoint(going_on)
    stays = own is not None and (not cfg.run.dir or own.resolve() == Path(cfg.run.dir).resolve())
    return own if stays else None


def _agreed(cfg: Config, payload: Mapping[str, Any], going_on: Path) -> Config:
    """The settings to go on with. Raises ValueError where `cfg` wants others than the checkpoint's.

    With run.resume they are the checkpoint's, and what the command line asks for and may differ. By the same
    command given again they are its own.
    """
    resumed = cfg.run.resume not in (None, AUTO)
    origin = str(cfg.run.resume if resumed else going_on)
    stored = config.from_dict(payload["config"], recipe=payload["recipe"], origin=origin)
    if cfg.train.accumulate == fitting.FITTED:  # what was found to fit stays
        parts = {"train.accumulate": stored.train.accumulate}
        cfg = cfg.replace(parts, origin=cfg.provenance["train.accumulate"])
    if resumed and cfg.recipe not in (stored.recipe, Path(DEFAULT_RECIPE).stem):
        raise ValueError(
            f"--config {cfg.recipe} can't continue a run of {stored.recipe}: leave --config out when resuming"
        )
    old, new = stored.flat(), cfg.flat()
    if resumed:
        config.check_named_code(stored, new, origin)
    asked = {key: new[key] for key in new if not resumed or cfg.provenance[key] == COMMAND_LINE}
    kept = {key: value for key, value in asked.items() if key.startswith(FREE_ON_RESUME)}
    unlike = [key for key in asked if key not in kept and asked[key] != old[key]]
    if unlike:
        raise ValueError(_unlike(cfg, unlike[0], old[unlike[0]], resumed))
    if not resumed:
        return cfg
    own = folder.of_checkpoint(going_on)
    place = {"run.dir": None if own is None else str(own), "run.resume": cfg.run.resume}
    return stored.replace({"train.max_steps": 0, **place, **kept})


def _unlike(cfg: Config, key: str, there: object, resumed: bool) -> str:
    here, where = cfg.flat()[key], cfg.run.dir
    if resumed:
        return (
            f"{key}={here} differs from {there} in {cfg.run.resume}: a resumed run keeps the settings it "
            "began with (start a new run to change them)"
        )
    return (
        f"run.dir={where} holds a stopped run with other settings ({key}={there} there, {here} here): name "
        f"another folder, or continue it as it is with --run.resume={where}"
    )
