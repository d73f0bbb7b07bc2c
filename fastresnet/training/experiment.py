"""An experiment: what a Config describes, from data to trainer, built and ready to be trained and timed.

The place where all rooms of the package meet. Writes no files and prints nothing; `runs` keeps what comes
out.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Generator
from contextlib import closing
from typing import Any, Callable

import torch
from torch import Tensor, nn

from fastresnet import cpu, data, loading
from fastresnet.machine import memory, precision, timing
from fastresnet.machine.devices import choose_device, make_current
from fastresnet.machine.distributed import ALONE, World
from fastresnet.models import members, pretrained
from fastresnet.optim.averaging import Ema, TailAverage
from fastresnet.ranks import agreement, collectives
from fastresnet.settings.config import Config
from fastresnet.training import assembly, evaluation
from fastresnet.training.evaluation import Score, Tta
from fastresnet.training.own import NOTHING, Own
from fastresnet.training.selection import Batch, ProxyNet
from fastresnet.training.trainer import EpochResult, Trainer

# enough for the covariance of 2x2 patches (Jordan 2024, arXiv 2404.00498)
WHITENING_IMAGES = 5000
# of the data, what all processes must have read, and what it is called where they differ
ALIKE = {
    "digest": "the training data's digest",
    "test_digest": "the test data's digest",
    "train_size": "training images",
    "val_size": "validation images",
    "test_size": "test images",
}


class Experiment:
    """What a Config describes, built. The same Config and seed give the same weights and batches.

    cfg:     the resolved settings
    place:   this process among those of torchrun
    splits:  the data, where the caller has it already (several runs on one set)
    notes:   called with one line for each choice made on the user's behalf
    own:     the caller's own network, loss or augmentation
    Raises ValueError for settings that can't work together or on this device.
    """

    def __init__(
        self,
        cfg: Config,
        place: World = ALONE,
        splits: data.Splits | None = None,
        notes: Callable[[str], None] = lambda line: None,
        own: Own = NOTHING,
    ) -> None:
        cfg = pretrained.like_the_run(cfg, sized=splits is None)
        self.cfg, self.place, self.seed, self.own = cfg, place, cfg.run.seed, own
        self.device = choose_device(cfg.run.device, place)
        self.precision = precision.resolve(cfg.train.precision, self.device)
        assembly.check_network(cfg, own)
        notes(f"precision {self.precision.name} ({self.precision.reason})")
        _set_process_wide(cfg, self.precision, self.device)
        clock = timing.Stopwatch(self.device)
        self.splits = _agreed(splits if splits is not None else _prepared(cfg, place, notes), place)
        self.data_seconds = clock.lap("data")
        self._build_loaders(notes)
        self.steps_per_epoch = len(self.train_loader)
        self.total_steps = max(1, round(cfg.train.epochs * self.steps_per_epoch))
        self.num_epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        self.model = assembly.placed(self._new_model(self.seed), cfg, self.device)
        two = torch.zeros((2, 3, *self.image_shape), device=self.device, dtype=self.precision.compute)
        own.try_out(two, len(self.splits.class_names), self.train_loader.mixed_classes > 0)
        width = cfg.train.proxy_width
        proxy = assembly.placed(self._new_model(self.seed, width), cfg, self.device) if width else None
        steps, images = (self.total_steps, self.steps_per_epoch), len(self.splits.train)
        shown = self.train_loader.asked.shown(images)
        course = assembly.Course(*steps, self.device, self.precision, place, images, shown)
        self.trainer = assembly.new_trainer(cfg, self.model, proxy, course, own)
        lasts = range(self.steps_per_epoch - 1, self.total_steps, self.steps_per_epoch)
        assembly.check_parts(self.model, self.trainer, {self.batch_of(step) for step in (0, *lasts)})
        self.trainer.select.follow(self.train_loader)
        self.optimizer, self.averages = self.trainer.optimizer, self.trainer.averages
        for line in (*assembly.choices(cfg, place), *assembly.told(cfg, self.model)):
            notes(line)
        self._averaged: nn.Module | None = None
        self.evaluator = assembly.new_evaluator(cfg, self.averaged_model or self.model, course)
        self.on_batch: Callable[[], None] = lambda: None  # called with each batch that is evaluated

    # ---- building ------------------------------------------------------------------------------------------

    def _new_model(self, seed: int, width: float | None = None) -> nn.Module:
        """Fresh weights that depend on the seed alone, on the CPU; `width` is a proxy net's."""
        cfg, own = self.cfg, self.own
        if width is not None:
            alone = {"model.width": width, "model.members": 1, "model.pretrained": None}
            cfg, own = cfg.replace(alone), NOTHING
        return assembly.new_network(cfg, own, self.splits.class_names, self.image_shape, seed)

    @property
    def image_size(self) -> int:
        """Height in pixels of the images that the network is made for."""
        return self.image_shape[0]

    @property
    def image_shape(self) -> tuple[int, int]:
        """The same, (h,w): data in memory need not be square."""
        px = self.cfg.data.image_size
        return (px, px) if px else self.splits.train.image_shape

    def _build_loaders(self, notes: Callable[[str], None]) -> None:
        self.loaders = loading.build(
            self.cfg,
            self.splits,
            device=self.device,
            dtype=self.precision.compute,
            place=self.place,
            resolution=self._resolution,
            notes=notes,
        )
        self.train_loader, self.eval_loaders = self.loaders.train, self.loaders.evaluation

    def _resolution(self, step: int) -> int | None:
        """Height and width in px of a step's images, None as stored; train.resolutions says until when."""
        steps = ((until * self.total_steps, int(px)) for until, px in self.cfg.train.resolutions or ())
        return next((px for until, px in steps if step < until), None)

    # ---- training and evaluation ---------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch, from 0, of the last step that was done."""
        return max(self.trainer.steps_done - 1, 0) // self.steps_per_epoch

    def batch_of(self, step: int) -> tuple[int, int]:
        """Images that this process takes in a step (from 0), and their height and width in px."""
        return self.train_loader.count_at(step), self._resolution(step) or self.image_size

    def initialise(self) -> None:
        """What a fresh run computes from its data before the first step: the whitening. On the clock."""
        _whiten(self)

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of epoch `epoch` (from 0), after the caller's own augmentation too."""
        made = self.train_loader.epoch(epoch, self.trainer.buffers)
        theirs = bool(self.own.names()) or ":" in self.cfg.model.arch
        words = self.seed, epoch, self.place.rank
        try:
            yield from self.own.repeatable(made, words, self.device) if theirs else made
        finally:
            getattr(made, "close", lambda: None)()

    def fit_epoch(
        self, epoch: int, *, limit: int | None = None, on_step: Callable[[Trainer], bool] | None = None
    ) -> EpochResult:
        """Train on epoch `epoch` (from 0), from the batch where the trainer stands; see Trainer.fit_epoch."""
        done = self.trainer.steps_done - epoch * self.steps_per_epoch
        with closing(self.batches(epoch)) as batches:
            return self.trainer.fit_epoch(batches, epoch, skip=done, limit=limit, on_step=on_step)

    def predict(self, split: str = "test", tta: str = "none") -> tuple[Tensor, Tensor]:
        """Logits (N,K) fp32 and labels (N,) of the whole split, on the run's device, in the set's order.

        By the averaged weights where the run averages. Every process gets the whole.
        """
        model = self.averaged_model or self.model
        collectives.share_buffers(model, self.place)
        views = Tta(tta, self.cfg.eval.tta_share)
        buffers = functools.partial(self.evaluator.buffers, views)
        batches = map(self._seen, self.eval_loaders[split].epoch(0, buffers))
        logits_NK, labels_N = self.evaluator(batches, views)
        return collectives.gather_rows(logits_NK, self.place), collectives.gather_rows(labels_N, self.place)

    def _seen(self, batch: Batch) -> Batch:
        self.on_batch()
        return batch

    def evaluate(self, split: str = "test", tta: str = "none") -> Score:
        """Accuracy and loss on a split."""
        return evaluation.score(*self.predict(split, tta))

    @property
    def averaged_model(self) -> nn.Module | None:
        """A model with the averaged weights as of now (EMA or tail average); None without averages."""
        source = next((average for average in self.averages if isinstance(average, (Ema, TailAverage))), None)
        if source is None:
            return None
        if self._averaged is None:
            self._averaged = copy.deepcopy(self.model)
        source.copy_to(self._averaged)
        return self._averaged

    def warm_up(self) -> None:
        """Compile, capture and allocate what the run needs, on random images; changes no weight.

        One discarded step of each kind: of every size, before and after anything freezes or thaws. Where
        steps are captured, evaluation is too, and the deciding one is made once.
        """
        self.loaders.warm_up()
        for step in _first_of_each_kind(self):
            self.rehearse(step)
        if self.evaluator.cuda_graph:
            self.predict("test", self.cfg.eval.tta)

    def rehearse(self, step: int, count: int = 0) -> None:
        """Do a step of the run (from 0) on `count` random images, 0: as many as it has, and undo it."""
        lower = self._resolution(step)
        shape = (count or self.batch_of(step)[0], 3, *((lower, lower) if lower else self.image_shape))
        images = torch.rand(shape, device=self.device).to(self.precision.compute)
        if self.cfg.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.trainer.warm_up(images, step, self.train_loader.mixed_classes)

    def reset(self, seed: int) -> None:
        """Become the experiment of another seed, in place: fresh weights, empty optimizer, other batches.

        Compiled and captured steps stay valid.
        """
        self.seed = self.train_loader.seed = seed
        self._begin_again(self.model)
        for average in self.averages:
            average.restart()
        self.trainer.reset()
        select = self.trainer.select
        if isinstance(select, ProxyNet):
            self._begin_again(select.model, self.cfg.train.proxy_width)
        select.reset()

    def _begin_again(self, model: nn.Module, width: float | None = None) -> None:
        assembly.begin_again(model, self.cfg, self.own, self.seed, lambda: self._new_model(self.seed, width))

    def close(self) -> None:
        """Let go of the loaders' threads."""
        self.loaders.close()


def compile_kernels(experiment: Experiment) -> None:
    """What an eager run needs compiled: the loaders' kernels, and `cpu`'s."""
    experiment.loaders.warm_up()
    smaller = [(int(px), int(px)) for _, px in experiment.cfg.train.resolutions or []]
    cpu.warm_up(experiment.model, dict.fromkeys([experiment.image_shape, *smaller]), experiment.precision)


def _whiten(experiment: Experiment) -> None:
    both = experiment.model, experiment.trainer.select.model or experiment.model
    learners = [net for model in both for net in members(model).values()]
    given = bool(experiment.cfg.model.pretrained) or experiment.own.model is not None
    whitened = [model for model in dict.fromkeys(learners) if hasattr(model, "init_whitening")]
    whitened = [model for model in whitened if not (given and getattr(model, "whitened", False))]
    if not whitened:
        return
    images = experiment.train_loader.some_images(min(WHITENING_IMAGES, len(experiment.splits.train)))
    for model in whitened:
        initialise: Any = model.init_whitening
        initialise(images)
    for average in experiment.averages:
        average.restart()


def _first_of_each_kind(experiment: Experiment) -> list[int]:
    kinds: dict[tuple[object, ...], int] = {}
    for step in range(experiment.total_steps):
        kinds.setdefault((experiment.batch_of(step), experiment.trainer.kind_at(step)), step)
    return list(kinds.values())


def _set_process_wide(cfg: Config, precise: precision.Precision, device: torch.device) -> None:
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    make_current(device)
    if device.type == "cpu":
        memory.keep_large_buffers()
    precision.repeat_exactly(cfg.run.deterministic)
    precision.apply_globally(precise, device)


def _agreed(splits: data.Splits, place: World) -> data.Splits:
    """The same. Raises ValueError where another process has read other images."""
    agreement.agree({name: splits.info.get(key) for key, name in ALIKE.items()}, place)
    return splits


def _prepared(cfg: Config, place: World, notes: Callable[[str], None]) -> data.Splits:
    """The data; the first process of several makes the betons, the others read them afterwards."""
    if not place.is_main:
        collectives.barrier(place)
    splits = data.prepare(cfg, notes)
    if place.is_main:
        collectives.barrier(place)
    return splits
