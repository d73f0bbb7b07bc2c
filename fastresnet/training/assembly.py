"""A trainer put together from settings: optimizer, schedule, averages, choice of images, what freezes, judge.

Knows no data and no loader; `experiment` has these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from fastresnet import cpu, models, optim
from fastresnet.base import parts, words
from fastresnet.machine import memory
from fastresnet.machine.distributed import ALONE, World
from fastresnet.machine.precision import Precision
from fastresnet.models import Network
from fastresnet.models.flops import on_meta
from fastresnet.optim import averaging, freezing, schedule
from fastresnet.optim.blocks import blocks
from fastresnet.optim.freezing import Freeze
from fastresnet.optim.optimizers import Optimizers
from fastresnet.optim.rates import scale, scaled
from fastresnet.ranks import collectives, norms
from fastresnet.settings.config import Config
from fastresnet.training.capture import compiled
from fastresnet.training.evaluation import Evaluator
from fastresnet.training.own import NOTHING, Own, answering
from fastresnet.training.selection import HardExamples, Memory, ProxyNet, Selection
from fastresnet.training.step import StepOptions
from fastresnet.training.trainer import Trainer


@dataclass(frozen=True)
class Course:
    """How long a run is and where it takes place.

    total_steps, steps_per_epoch:  optimizer steps
    place:                         this process among those of torchrun
    images, shown:                 to train on, and of them in an epoch
    """

    total_steps: int
    steps_per_epoch: int
    device: torch.device
    precision: Precision
    place: World = ALONE
    images: int = 0
    shown: int = 0


def compile_mode(cfg: Config, device: torch.device) -> str:
    """torch.compile's mode that train.compile means on this device, or off."""
    if cfg.train.compile != "auto":
        return cfg.train.compile
    return "default" if device.type == "cuda" else "off"


def choices(cfg: Config, place: World) -> Iterator[str]:
    """A line for each thing that is done otherwise than the settings' names alone say."""
    if cfg.optim.lr_scaling != "none":
        factor = scale(cfg.optim, cfg.train.batch_size)
        batches = f"from a batch of {cfg.optim.lr_base_batch} to {cfg.train.batch_size}"
        yield f"learning rates x {factor:.4g} (optim.lr_scaling={cfg.optim.lr_scaling}, {batches})"
    if cfg.train.epoch_share < 1:
        share = words.percent(cfg.train.epoch_share, digits=0)
        yield f"an epoch shows {share} of the images, the hardest: loss and accuracy in training are of these"
    if cfg.train.cuda_graph and place.size > 1:
        left = f"train.cuda_graph is left out: {place.size} processes exchange gradients in each step"
        yield f"{left}, which isn't captured; train.compile stays"


def check_network(cfg: Config, own: Own) -> None:
    """Raises ValueError for a network that can't be, before any data is read for it.

    Built without memory and for ten classes; of a network of the user's own only the import is tried.
    """
    if own.model is not None:
        return
    if cfg.model.arch not in parts.MODELS:
        parts.find(parts.MODELS, "model.arch", cfg.model.arch)
        return
    bare, lower = replace(cfg.model, pretrained=None), cfg.train.resolutions or ()
    with torch.device("meta"):
        for px in (*(int(px) for _, px in lower), cfg.data.image_size or 32):
            model = models.build(bare, 10, px, seed=0)
    size, free = sum(value.nbytes for value in model.state_dict().values()), memory.free_bytes()
    if size > free:
        raise ValueError(
            f"the network's weights take {words.size(size)}, and {words.size(free)} of memory are free: "
            "model.width, model.stage_widths or model.stage_blocks is too large"
        )
    if cfg.model.freeze:
        freezing.of_parts(model, cfg.model.freeze, None)


def check_parts(model: nn.Module, trainer: Trainer, batches: Iterable[tuple[int, int]]) -> None:
    """Raises ValueError where batch norm would have one image with one value a channel to normalise over.

    batches:  images and their px, of the steps that have fewest
    """
    for count, px in batches:
        kept = trainer.select.count(count)
        alone = kept // min(trainer.options.accumulate, kept) == 1
        if alone and _learns_from(model, 2, px) and not _learns_from(model, 1, px):
            raise ValueError(
                f"a batch of {count} has a part of one image, {px} px, and batch norm would see one value "
                "a channel: take train.drop_last=true, another train.batch_size or a smaller train.accumulate"
            )


def _learns_from(model: nn.Module, count: int, px: int) -> bool:
    """Whether a forward pass as in training can be made, tried without data."""
    try:
        on_meta(model).train()(torch.empty(count, 3, px, px, device="meta"))
    except Exception:  # a network of the caller's own that can't be followed so, too
        return False
    return True


def new_trainer(
    cfg: Config, model: nn.Module, proxy: nn.Module | None, course: Course, own: Own = NOTHING
) -> Trainer:
    """What trains `model` as the settings say; `proxy` is the small net of train.proxy_width, if any."""
    check_frozen(cfg, own)
    optimizer = new_optimizer(cfg, model, course)
    table = schedule.table(cfg.schedule, course.total_steps, course.steps_per_epoch)
    whitening = whitening_freeze(cfg, model, course)
    falling = schedule.falling(course.total_steps, whitening.from_step)
    late = freezing.late(model, cfg.train.freeze_late, course.total_steps)
    freeze = [one for one in (whitening, parts_freeze(cfg, model, course), *late) if one.names]
    return Trainer(
        collectives.wrap(model, course.place, course.device),
        optimizer,
        table.lr_factor,
        device=course.device,
        precision=course.precision,
        options=replace(step_options(cfg, course.device, course.place.size), loss=own.loss),
        momentum=table.momentum,
        group_factor={"whiten_bias": falling} if whitening.names else {},
        averages=averaging.build(model, cfg.optim, cfg.train, course.total_steps),
        select=new_selection(cfg, model, proxy, table.lr_factor, course),
        freeze=freeze,
        place=course.place,
    )


def new_network(cfg: Config, own: Own, names: Sequence[str], shape: tuple[int, int], seed: int) -> nn.Module:
    """Fresh weights that depend on the seed alone, on the CPU; the caller's random state stays as it was.

    names:  of the classes
    shape:  (h,w) of the images
    Raises ValueError where a network of the caller's own fails, or answers in another form.
    """
    asked, known = (len(names), shape[0]), own.model is None and ":" not in cfg.model.arch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            own.new_model(*asked) if own.model is not None else models.build(cfg.model, *asked, names, seed)
        )
        return model if known else answering(model, len(names), shape)


def placed(model: nn.Module, cfg: Config, device: torch.device) -> nn.Module:
    """The model on its device, in the layout, with the norms and our kernels as the settings say."""
    cpu.choose(model.to(device), cfg.train, device, compile_mode(cfg, device))
    if cfg.train.sync_batch_norm:
        norms.synchronise(model, device)
    return model.to(memory_format=torch.channels_last) if cfg.train.channels_last else model


@torch.no_grad()
def begin_again(model: nn.Module, cfg: Config, own: Own, seed: int, anew: Callable[[], nn.Module]) -> None:
    """First weights of `seed`, in place: drawn where they lie.

    Of a network that a user's code has made, and may have changed, those of another that `anew` gives.
    """
    ours = own.model is None and ":" not in cfg.model.arch
    if ours and isinstance(model, Network) and model.counted:
        model.reset_parameters(seed)
        return
    for value, fresh in zip(model.state_dict().values(), anew().state_dict().values()):
        value.copy_(fresh)


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
        products=torch.bfloat16 if course.precision.name == "bf16" else None,
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


def check_frozen(cfg: Config, own: Own) -> None:
    """Raises ValueError where model.freeze would hold random weights still."""
    trained = cfg.model.pretrained or own.model is not None or ":" in cfg.model.arch
    if cfg.model.freeze and not trained:
        raise ValueError(
            f"model.freeze={','.join(cfg.model.freeze)} keeps what was learned before, and nothing was: name "
            "the weights to start from, --model.pretrained=RUN for a run's folder, or take another recipe"
        )


def parts_freeze(cfg: Config, model: nn.Module, course: Course) -> Freeze:
    """What model.freeze holds, and the step from which it learns too."""
    epochs = cfg.train.freeze_epochs
    until = None if epochs is None else round(epochs * course.steps_per_epoch)
    return freezing.of_parts(model, cfg.model.freeze, until)


def told(cfg: Config, model: nn.Module) -> Iterator[str]:
    """What model.pretrained, optim.layer_decay and model.freeze make of this network, in a line each."""
    yield from filter(None, [cpu.left_out(model, cfg.train)])
    if report := getattr(model, "pretrained_report", None):
        yield f"weights from {report}"
    if (decay := cfg.optim.layer_decay) < 1:
        order = ", ".join(block[0] for block in reversed(blocks(model)))
        yield f"rates fall by {decay:g} a block towards the input: {order}"
    if cfg.model.freeze:
        held = freezing.of_parts(model, cfg.model.freeze, None).names
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        epochs = cfg.train.freeze_epochs
        until = "the whole run" if epochs is None else f"{epochs:g} epoch{'s' * (epochs != 1)}"
        share = f"{sum(sizes[name] for name in held):,} of {sum(sizes.values()):,} parameters"
        yield f"frozen for {until}, statistics of norms too: {', '.join(cfg.model.freeze)} ({share})"


def new_selection(
    cfg: Config, model: nn.Module, proxy: nn.Module | None, lr_factor: list[float], course: Course
) -> Selection:
    """The choice of the hardest share of each epoch, or of each batch, by the proxy or the model itself."""
    train, mode, share = cfg.train, compile_mode(cfg, course.device), cfg.train.hard_fraction
    if share == train.epoch_share == 1:
        return Selection()
    if train.epoch_share < 1:
        return Memory(course.images, course.shown, train.batch_size, course.device, course.place)
    if course.place.size > 1:
        raise ValueError(
            f"train.hard_fraction={share:g} picks the hardest images of all, and each of {course.place.size} "
            "processes sees a part: train in one, or with train.hard_fraction=1"
        )
    if proxy is None:
        return HardExamples(model, share, precision=course.precision, device=course.device, compile=mode)
    return ProxyNet(
        proxy,
        share,
        new_optimizer(cfg, proxy, course),
        lr_factor,
        precision=course.precision,
        device=course.device,
        label_smoothing=train.label_smoothing,
        loss_reduction=train.loss_reduction,
        compile=mode,
        every=train.proxy_every,
    )
