"""An experiment: data, model, optimizer, schedule and loaders as a Config describes them, ready to be
trained and timed.

The place where all rooms of the package meet. Writes no files and prints nothing; `run.py` keeps what comes
out.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Callable

import torch
from torch import Tensor, nn

from fastresnet import data, loading, models, optim
from fastresnet.machine import distributed, memory, precision, timing
from fastresnet.machine.devices import choose_device
from fastresnet.machine.distributed import ALONE, World
from fastresnet.optim import averaging, schedule
from fastresnet.settings.config import Config
from fastresnet.training import evaluation, selection, trainer
from fastresnet.training.evaluation import Score

WHITENING_IMAGES = 5000  # enough for the covariance of 2x2 patches (Jordan 2024, arXiv 2404.00498)


class Experiment:
    """What a Config describes, built. The same Config and seed give the same weights and batches.

    cfg:     the resolved settings
    place:   this process among those of torchrun
    splits:  the data, where the caller has it already (several runs on one set)
    notes:   called with one line for each choice made on the user's behalf
    Raises ValueError for settings that can't work together or on this device.
    """

    def __init__(
        self,
        cfg: Config,
        place: World = ALONE,
        splits: data.Splits | None = None,
        notes: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.cfg, self.place = cfg, place
        self.device = choose_device(cfg.run.device, place)
        self.precision = precision.resolve(cfg.train.precision, self.device)
        notes(f"precision {self.precision.name} ({self.precision.reason})")
        self._set_process_wide()
        clock = timing.Stopwatch(self.device)
        self.splits = splits if splits is not None else self._prepared(notes)
        self.data_seconds = clock.lap("data")
        self.seed = cfg.run.seed
        self.model = self._new_model(self.seed).to(self.device)
        if cfg.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self._averaged: nn.Module | None = None
        self.compile_mode = cfg.train.compile
        if self.compile_mode == "auto":
            self.compile_mode = "default" if self.device.type == "cuda" else "off"
        self._build_loaders(notes)
        self._build_trainer()

    # ---- building ------------------------------------------------------------------------------------------

    def _set_process_wide(self) -> None:
        cfg = self.cfg
        if cfg.run.threads:
            torch.set_num_threads(cfg.run.threads)
        if self.device.type == "cpu":
            memory.keep_large_buffers()
        torch.use_deterministic_algorithms(cfg.run.deterministic)
        precision.apply_globally(self.precision, self.device)

    def _prepared(self, notes: Callable[[str], None]) -> data.Splits:
        """The data; the first process of several makes the betons, the others read them afterwards."""
        if not self.place.is_main:
            distributed.barrier(self.place)
        splits = data.prepare(self.cfg, notes)
        if self.place.is_main:
            distributed.barrier(self.place)
        return splits

    def _new_model(self, seed: int, width: float | None = None) -> nn.Module:
        """Fresh weights that depend on the seed alone, on the CPU; the caller's random state stays as it was.

        width: instead of model.width (a proxy net's)
        """
        cfg = (
            self.cfg if width is None else self.cfg.replace({"model.width": width, "model.pretrained": None})
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return models.build(cfg.model, len(self.splits.class_names), self.image_size)

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that the network is made for."""
        return int(self.cfg.data.image_size or self.splits.train.image_shape[0])

    @property
    def evaluation_splits(self) -> tuple[str, ...]:
        """The splits that can be evaluated: test, and val where the run holds some images back."""
        return tuple(self.eval_loaders)

    def _build_loaders(self, notes: Callable[[str], None]) -> None:
        train = self.cfg.train
        self.loaders = loading.build(
            self.cfg,
            self.splits,
            device=self.device,
            dtype=self.precision.compute,
            place=self.place,
            resolution=self._resolution if train.resolutions else lambda step: None,
            notes=notes,
        )
        self.train_loader, self.eval_loaders = self.loaders.train, self.loaders.evaluation
        self.loader_name = self.loaders.name
        self.steps_per_epoch = len(self.train_loader)
        self.total_steps = max(1, round(train.epochs * self.steps_per_epoch))
        self.num_epochs = math.ceil(self.total_steps / self.steps_per_epoch)

    def _build_trainer(self) -> None:
        cfg = self.cfg
        self.optimizer = optim.build(
            self.model, cfg.optim, device=self.device, capturable=cfg.train.cuda_graph
        )
        table = schedule.table(cfg.schedule, self.total_steps, self.steps_per_epoch)
        self.lr_factor = table.lr_factor
        self.averages = averaging.build(self.model, cfg, self.total_steps)
        freezable, freeze_step = self._freeze()
        alone = (
            self.place.size == 1
        )  # DDP expects a gradient of every parameter in each step: there only the rate is zero
        self.trainer = trainer.Trainer(
            distributed.wrap(self.model, self.place, self.device),
            self.optimizer,
            table.lr_factor,
            device=self.device,
            precision=self.precision,
            options=self._step_options(),
            momentum=table.momentum,
            averages=self.averages,
            group_factor={"whiten_bias": schedule.falling(self.total_steps, freeze_step)}
            if freezable
            else {},
            select=self._select(),
            freeze=(freezable, freeze_step) if alone else ((), 0),
        )

    def _step_options(self) -> trainer.StepOptions:
        train = self.cfg.train
        return trainer.StepOptions(
            label_smoothing=train.label_smoothing,
            loss_reduction=train.loss_reduction,
            clip_norm=train.clip_norm,
            accumulate=train.accumulate,
            compile=self.compile_mode,
            cuda_graph=train.cuda_graph,
        )

    def _select(self) -> Callable[[Tensor, Tensor], trainer.Batch] | None:
        """The choice of the hardest share of each batch, by a proxy net or by the model itself
        (train.hard_fraction)."""
        train = self.cfg.train
        if train.hard_fraction >= 1.0:
            return None
        where: dict[str, Any] = dict(precision=self.precision, device=self.device)
        if not train.proxy_width:
            return selection.HardExamples(self.model, train.hard_fraction, **where)
        small = self._new_model(self.seed, width=train.proxy_width).to(self.device)
        if train.channels_last:
            small = small.to(memory_format=torch.channels_last)
        optimizer = optim.build(small, self.cfg.optim, device=self.device, capturable=train.cuda_graph)
        return selection.ProxyNet(
            small,
            train.hard_fraction,
            optimizer,
            self.lr_factor,
            label_smoothing=train.label_smoothing,
            loss_reduction=train.loss_reduction,
            **where,
        )

    def _freeze(self) -> tuple[list[nn.Parameter], int]:
        """The whitening bias and the step from which it no longer learns (train.freeze_whiten_after)."""
        parameters = [
            p
            for group in self.optimizer.param_groups
            if group["name"] == "whiten_bias"
            for p in group["params"]
        ]
        return parameters, round(self.cfg.train.freeze_whiten_after * self.steps_per_epoch)

    def _resolution(self, step: int) -> int | None:
        """Height and width in px of a step's images, None as stored; train.resolutions says until when."""
        steps = ((until * self.total_steps, int(px)) for until, px in self.cfg.train.resolutions or ())
        return next((px for until, px in steps if step < until), None)

    # ---- training and evaluation ---------------------------------------------------------------------------

    def batch_of(self, step: int) -> tuple[int, int]:
        """Images that this process takes in a step (from 0), and their height and width in px."""
        loader = self.train_loader
        taken = step % len(loader) * loader.batch_size
        size = self._resolution(step) if self.cfg.train.resolutions else None
        return min(loader.batch_size, loader.num_samples - taken), size or self.image_size

    def initialise(self) -> None:
        """What a fresh run computes from its data before the first step: the whitening convolution. On the
        clock."""
        learners = [self.model, getattr(self.trainer.select, "model", self.model)]
        whitened = [model for model in dict.fromkeys(learners) if hasattr(model, "init_whitening")]
        if not whitened:
            return
        images = self.train_loader.first_images(min(WHITENING_IMAGES, len(self.splits.train)))
        for model in whitened:
            initialise: Any = model.init_whitening
            initialise(images)
        for average in self.averages:
            average.restart()

    def fit_epoch(
        self,
        epoch: int,
        *,
        limit: int | None = None,
        on_step: Callable[[trainer.Trainer], bool] | None = None,
    ) -> trainer.EpochResult:
        """Train on epoch `epoch` (from 0), from the batch where the trainer stands; see Trainer.fit_epoch."""
        batches = self.train_loader.epoch(epoch)
        try:
            return self.trainer.fit_epoch(
                batches,
                epoch,
                skip=self.trainer.steps_done - epoch * self.steps_per_epoch,
                limit=limit,
                on_step=on_step,
            )
        finally:
            getattr(batches, "close", lambda: None)()

    def predict(self, split: str = "test", tta: str = "none") -> tuple[Tensor, Tensor]:
        """Logits (N,K) fp32 and labels (N,) of the whole split, on the CPU, in the set's order, by the
        averaged weights where the run averages. Every process gets the whole."""
        model = self.averaged_model or self.model
        logits_NK, labels_N = evaluation.predict(
            model,
            self.eval_loaders[split].epoch(0),
            precision=self.precision,
            device=self.device,
            tta=tta,
            tta_share=self.cfg.eval.tta_share,
        )
        logits_NK = distributed.gather_rows(logits_NK.to(self.device), self.place).cpu()
        return logits_NK, distributed.gather_rows(labels_N.to(self.device), self.place).cpu()

    def evaluate(self, split: str = "test", tta: str = "none") -> Score:
        """Accuracy and loss on a split."""
        return evaluation.score(*self.predict(split, tta))

    @property
    def averaged_model(self) -> nn.Module | None:
        """A model with the averaged weights (EMA or tail average) as of now; None where the run averages
        nothing."""
        source = next(
            (average for average in self.averages if isinstance(average, (optim.Ema, optim.TailAverage))),
            None,
        )
        if source is None:
            return None
        if self._averaged is None:
            self._averaged = copy.deepcopy(self.model)
        source.copy_to(self._averaged)
        return self._averaged

    def warm_up(self) -> None:
        """Compile, capture and allocate, at every resolution of the run, on random images; changes no
        weight."""
        for one in (self.train_loader, *self.eval_loaders.values()):
            one.warm_up()
        sizes = {self.image_size, *(int(px) for _, px in self.cfg.train.resolutions or [])}
        local_batch = self.train_loader.batch_size
        for size in sorted(sizes):
            images = torch.rand((local_batch, 3, size, size), device=self.device).to(self.precision.compute)
            if self.cfg.train.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            self.trainer.warm_up(images)

    def reset(self, seed: int) -> None:
        """Become the experiment of another seed, in place: fresh weights, empty optimizer, other batches.
        Compiled and captured steps stay valid."""
        self.seed = seed
        with torch.no_grad():
            for own, fresh in zip(
                self.model.state_dict().values(), self._new_model(seed).state_dict().values()
            ):
                own.copy_(fresh)
        for average in self.averages:
            average.restart()
        self.trainer.reset()
        if isinstance(self.trainer.select, selection.ProxyNet):
            self.trainer.select.reset(self._new_model(seed, width=self.cfg.train.proxy_width).state_dict())
        self.train_loader.seed = seed

    def close(self) -> None:
        """Let go of the loaders' threads."""
        self.loaders.close()
