"""What a recipe costs on CIFAR-10, counted and not measured: FLOPs, bytes, operations, and what follows.

FLOPs are those of `training.arithmetic`. Operations and bytes are seen by running the recipe's own step on
two tiny batches under a dispatch mode: what grows with the batch is charged by the image. An operation reads
its inputs and writes its outputs once; `bytes_fused` charges convolutions and matrix products alone, as if a
compiler made all else disappear into them. Refuses to know how fast a machine really is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fastresnet import data
from fastresnet.bench.judging.machines import Machine
from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.operators import Operations
from fastresnet.models import flops_per_image
from fastresnet.settings.config import Config
from fastresnet.training.arithmetic import work
from fastresnet.training.evaluation import Tta
from fastresnet.training.experiment import Experiment

TRAIN, TEST = 50_000, 10_000  # CIFAR-10's images
PROBES = (4, 8)  # images of the two tiny batches


@dataclass(frozen=True)
class Cost:
    """Of one whole run of a recipe.

    flops:        of training; evaluation_flops of the evaluation that decides, with its TTA
    bytes:        each operation for itself; bytes_fused: the products' alone
    launches:     operations of all steps
    """

    recipe: str
    epochs: float
    steps: int
    flops: float
    evaluation_flops: float
    bytes: float
    bytes_fused: float
    launches: int

    def seconds(self, machine: Machine, precision: str) -> dict[str, float]:
        """What each resource alone would take: no run beats its arithmetic or its fused bytes."""
        return {
            "arithmetic": self.flops / machine.rates[precision],
            "evaluation": self.evaluation_flops / machine.rates[precision],
            "memory, fused": self.bytes_fused / machine.bandwidth,
            "memory, each operation for itself": self.bytes / machine.bandwidth,
            "launches by the host": self.launches * machine.launch,
        }


class Probe(NamedTuple):
    """Of one step: operations, bytes that they move, and those of convolutions and matrix products alone."""

    launches: int
    moved: float
    by_products: float


def of(cfg: Config, precision: str = "bf16", images: int = TRAIN) -> Cost:
    """Count one run of `cfg` on so many images of CIFAR-10's size, none of which is read."""
    with counting(cfg, images, "bf16" if precision in ("bf16", "fp16") else "fp32") as experiment:
        launches, moved, fused = 0, 0.0, 0.0
        by_size: dict[int, list[Probe]] = {}
        for step in range(experiment.total_steps):
            batch, size = experiment.batch_of(step)
            if size not in by_size:
                by_size[size] = [_probe(experiment, count, size) for count in PROBES]
            small, large = by_size[size]
            launches += large.launches
            moved += _at(batch, small.moved, large.moved)
            fused += _at(batch, small.by_products, large.by_products)
        flops, steps = work(experiment).flops, experiment.total_steps
        views = Tta(cfg.eval.tta, cfg.eval.tta_share).views
        evaluation = views * TEST * flops_per_image(experiment.model, experiment.image_size)
    return Cost(cfg.recipe, cfg.train.epochs, steps, flops, evaluation, moved, fused, launches)


def counting(cfg: Config, images: int, precision: str = "fp32") -> AbstractContextManager[Experiment]:
    """The experiment of `cfg`, eager and on the CPU, on so many blank images; it ends with the block."""
    plain = {"run.device": "cpu", "train.compile": "off", "train.cuda_graph": False}
    plain |= {"train.precision": precision, "train.cpu_kernels": "off", "data.loader": "resident"}
    return experiments.opened(cfg.replace(plain), blank(images))


def _probe(experiment: Experiment, count: int, size: int) -> Probe:
    """The second step on `count` blank images of `size` px: optimizers have their states by then."""
    layout = torch.channels_last if experiment.cfg.train.channels_last else torch.contiguous_format
    images = torch.zeros(count, 3, size, size, dtype=experiment.precision.compute)
    images = images.to(memory_format=layout)
    labels = torch.zeros(count, dtype=torch.int64)
    experiment.model.train()
    experiment.trainer.steps_done = 0
    experiment.trainer.step(images, labels)
    with Operations() as seen:
        experiment.trainer.step(images, labels)
    works = seen.kinds.values()
    by_products = sum(one.bytes for one in works if one.flops)
    return Probe(sum(one.calls for one in works), sum(one.bytes for one in works), by_products)


def _at(batch: int, small: float, large: float) -> float:
    """A straight line through the two probes, read at `batch` images."""
    slope = (large - small) / (PROBES[1] - PROBES[0])
    return small + slope * (batch - PROBES[0])


def blank(images: int = TRAIN) -> data.Splits:
    """A set of CIFAR-10's shape, of so many training images, whose pages nobody touches."""
    shapes = ((n, 32, 32, 3) for n in (images, TEST))
    train, test = (data.Split.held(np.zeros(s, np.uint8), np.zeros(s[0], np.int64)) for s in shapes)
    half = (0.5, 0.5, 0.5)
    return data.Splits(train, None, test, half, half, tuple("0123456789"), {"name": "blank"})
