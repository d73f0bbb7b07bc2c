"""A trainer put together from settings: optimizer, schedule, averages, choice of images, what freezes, judge.

Knows no data and no loader; `experiment` has these.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from fastresnet import optim
from fastresnet.machine.distributed import ALONE, World
from fastresnet.machine.precision import Precision
from fastresnet.optim import averaging, schedule
from fastresnet.optim.optimizers import Optimizers
from fastresnet.optim.rates import scale, scaled
from fastresnet.ranks import collectives
from fastresnet.settings.config import Config
from fastresnet.training.capture import compiled
from fastresnet.training.evaluation import Evaluator
from fastresnet.training.own import NOTHING, Own
from fastresnet.training.selection import HardExamples, ProxyNet
from fastresnet.training.step import Freeze, StepOptions
from fastresnet.training.trainer import Trainer


@dataclass(frozen=True)
class Course:
    """How long a run is and where it takes place.

    total_steps, steps_per_epoch:  optimizer steps
    place:                         this process among those of torchrun
    """

    total_steps: int
    steps_per_epoch: int
    device: torch.device
    precision: Precision
    place: World = ALONE


def compile_mode(cfg: Config, device: torch.device) -> str:
    """torch.compile's mode that train.compile means on this device, or off."""
    if cfg.train.compile != "auto":
        return cfg.train.compile
    return "default" if device.type == "cuda" else "off"


def choices(cfg: Config, place: World) -> Iterator[str]:
    """A line for each thing that is done otherwise than the settings' names alone say."""
    if cfg.optim.lr_scaling != "none":
        factor = scale(cfg.optim, cfg.train.batch_size)
        yield (
            f"learning rates x {factor:.4g} (optim.lr_scaling={cfg.optim.lr_scaling}, from a batch of "
            f"{cfg.optim.lr_base_batch} to {cfg.train.batch_size})"
        )
    if cfg.train.cuda_graph and place.size > 1:
        yield (
            f"train.cuda_graph is left out: {place.size} processes exchange gradients in each step, which "
            "isn't captured; train.compile stays"
        )


def new_trainer(
    cfg: Config, model: nn.Module, proxy: nn.Module | None, course: Course, own: Own = NOTHING
) -> Trainer:
    """What trains `model` as the settings say; `proxy` is the small net of train.proxy_width, if any."""
    optimizer = new_optimizer(cfg, model, course)
    table = schedule.table(cfg.schedule, course.total_steps, course.steps_per_epoch)
    freeze = whitening_freeze(cfg, model, course)
    falling = {"whiten_bias": schedule.falling(course.total_steps, freeze.from_step)} if freeze.names else {}
    if course.place.size > 1:  # DDP wants each parameter's gradient in every step: only the rate is zero
        freeze = Freeze()
    return Trainer(
        collectives.wrap(model, course.place, course.device),
        optimizer,
        table.lr_factor,
        device=course.device,
        precision=course.precision,
        options=replace(step_options(cfg, course.device, course.place.size), loss=own.loss),
        momentum=table.momentum,
        group_factor=falling,
        averages=averaging.build(model, cfg.optim, cfg.train, course.total_steps),
        select=new_selection(cfg, model, proxy, table.lr_factor, course),
        freeze=freeze,
        place=course.place,
    )


def new_optimizer(cfg: Config, model: nn.Module, course: Course) -> Optimizers:
    """The optimizer of the section `optim`; it compiles what it can where the step is compiled."""
    fast = "off" if compile_mode(cfg, course.device) == "off" else "default"
    return optim.build(
        model,
        scaled(cfg.optim, cfg.train.batch_size),
        device=course.device,
        capturable=cfg.train.cuda_graph and course.place.size == 1,
        total_steps=course.total_steps,
        place=course.place,
        compile=functools.partial(compiled, mode=fast),
    )


def step_options(cfg: Config, device: torch.device, processes: int) -> StepOptions:
    """What the section `train` says of a step."""
    return StepOptions(
        label_smoothing=cfg.train.label_smoothing,
        loss_reduction=cfg.train.loss_reduction,
        clip_norm=cfg.train.clip_norm,
        accumulate=max(1, cfg.train.accumulate),  # 0: nobody looked for what fits
        compile=compile_mode(cfg, device),
        cuda_graph=cfg.train.cuda_graph and processes == 1,
        processes=processes,
    )


def new_evaluator(cfg: Config, model: nn.Module, course: Course) -> Evaluator:
    """What judges `model`; compiled and captured where the training step is captured.

    Compiled in the default mode then, whatever train.compile says: tuning takes longer than evaluating.
    """
    graph = cfg.train.cuda_graph and course.place.size == 1
    return Evaluator(
        model,
        precision=course.precision,
        device=course.device,
        compile="default" if graph and compile_mode(cfg, course.device) != "off" else "off",
        cuda_graph=graph,
    )


def whitening_freeze(cfg: Config, model: nn.Module, course: Course) -> Freeze:
    """The whitening bias, where the model has one, and the step from which it no longer learns."""
    bias = optim.grouped(model).get("whiten_bias", [])
    names = tuple(name for name, parameter in model.named_parameters() if any(parameter is b for b in bias))
    return Freeze(names, round(cfg.train.freeze_whiten_after * course.steps_per_epoch))


def new_selection(
    cfg: Config, model: nn.Module, proxy: nn.Module | None, lr_factor: list[float], course: Course
) -> HardExamples | None:
    """The choice of the hardest share of each batch, by the proxy or by the model itself."""
    train, mode = cfg.train, compile_mode(cfg, course.device)
    if train.hard_fraction >= 1.0:
        return None
    if course.place.size > 1:
        raise ValueError(
            f"train.hard_fraction={train.hard_fraction} picks the hardest images of a whole batch, and each "
            f"of {course.place.size} processes sees a part of it: train in one, or with train.hard_fraction=1"
        )
    if proxy is None:
        return HardExamples(
            model, train.hard_fraction, precision=course.precision, device=course.device, compile=mode
        )
    return ProxyNet(
        proxy,
        train.hard_fraction,
        new_optimizer(cfg, proxy, course),
        lr_factor,
        precision=course.precision,
        device=course.device,
        label_smoothing=train.label_smoothing,
        loss_reduction=train.loss_reduction,
        compile=mode,
    )
