"""What training costs in arithmetic: images and FLOPs of any of a run's steps, counted, not measured.

A training step is three forward passes an image (backward is two), less what frozen parts save, and what
Winograd's method saves where convolutions take it. Sizes follow train.resolutions; where only the hardest
share is trained on, that share alone counts three times, and whoever judges the batch once for each image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastresnet.models.flops import flops_per_image, frozen_savings
from fastresnet.training.step import Kind

if TYPE_CHECKING:
    from fastresnet.training.experiment import Experiment


@dataclass(frozen=True)
class Work:
    """Of some steps, on all processes together.

    images:  that the loader made
    flops:   of training on them, 2 per multiply-add of convolutions and linear layers
    """

    images: int
    flops: float

    @property
    def flops_per_image(self) -> float:
        """Mean training FLOPs of an image; 0 where there was none."""
        return self.flops / self.images if self.images else 0.0


def work(experiment: Experiment, first: int = 0, last: int | None = None) -> Work:
    """Images and FLOPs of the steps first, …, last - 1 of a run, counted from 0; by default of all."""
    images, flops = 0, 0.0
    costs: dict[tuple[int, int, Kind], float] = {}
    for step in range(first, experiment.total_steps if last is None else last):
        batch, size = experiment.batch_of(step)
        kind = (batch, size, experiment.trainer.kind_at(step))
        if kind not in costs:
            costs[kind] = _step_flops(experiment, *kind)
        images += batch * experiment.place.size
        flops += costs[kind] * experiment.place.size
    return Work(images, flops)


def _step_flops(experiment: Experiment, batch: int, size: int, kind: Kind) -> float:
    """FLOPs of one process's step on `batch` images of `size` px."""
    held = {name for one, holds in zip(experiment.trainer.freeze, kind.frozen) if holds for name in one.names}
    saves = held and experiment.place.size == 1  # DDP waits for every gradient
    saved = frozen_savings(experiment.model, held, size) if saves else 0
    learned = 3.0 * flops_per_image(experiment.model, size, learning=True) - saved
    select = experiment.trainer.select
    if select.model is None:
        return batch * learned
    hard = select.count(batch)
    judging = batch * flops_per_image(select.model, size, learning=select.model is not experiment.model)
    return hard * learned + judging * (1 + (2 * hard / batch if kind.proxy_learns else 0))
