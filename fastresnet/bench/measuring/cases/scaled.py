"""One process of a scaling measurement: `torchrun -m fastresnet.bench.measuring.cases.scaled ASKED FILE`.

Times whole training steps on one batch of noise, with and without the exchange of gradients, in turns, and
the exchange alone. Refuses to start processes and to judge.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import torch
import torch.distributed as dist

from fastresnet import data
from fastresnet.base import files
from fastresnet.machine import timing
from fastresnet.machine.devices import choose_device
from fastresnet.machine.distributed import World
from fastresnet.ranks import collectives
from fastresnet.ranks.joining import join
from fastresnet.settings import config
from fastresnet.settings.config import Config
from fastresnet.training.experiment import Experiment

FEWEST, MOST = 5, 60  # samples


class Asked(TypedDict):
    """What is measured: a recipe with changes, for about so many seconds."""

    recipe: str
    changes: dict[str, Any]
    seconds: float


class Told(TypedDict):
    """Seconds until the slowest process is done, a sample each, and what the exchange moves.

    step, apart:          of a step; of one whose gradients and running statistics stay where they are
    exchange, small:      of an all-reduce of all gradients alone, and of one of 8 bytes
    bytes:                of the gradients
    """

    step: list[float]
    apart: list[float]
    exchange: list[float]
    small: list[float]
    bytes: int


def main(words: list[str]) -> None:
    """Measure what the first word asks for (JSON); the first process writes the file that the other names."""
    asked: Asked = json.loads(words[0])
    cfg = config.load(asked["recipe"], asked["changes"])
    with join(choose_device(cfg.run.device).type) as place:
        told = measured(cfg, place, asked["seconds"])
    if place.is_main:
        files.write_text(words[1], json.dumps(told))


def measured(cfg: Config, place: World, seconds: float) -> Told:
    """The samples of all processes, which take them at the same time."""
    experiment = Experiment(cfg, place, noise(cfg.train.batch_size))
    trainer, device = experiment.trainer, experiment.device
    experiment.initialise()
    experiment.model.train()
    images, labels = next(iter(experiment.train_loader.epoch(0)))

    def step() -> None:
        trainer.steps_done = 0
        trainer.step(images, labels)

    def apart() -> None:
        wrapped: Any = trainer.model
        wrapped.require_forward_param_sync = False  # no_sync leaves running statistics alone one pass later
        with getattr(wrapped, "no_sync", contextlib.nullcontext)():
            step()
        wrapped.require_forward_param_sync = True

    learning = [p for p in experiment.model.parameters() if p.requires_grad]
    gradients = torch.zeros(sum(p.numel() for p in learning), device=device)
    exchanges = [_reducing(gradients, place), _reducing(gradients[:2], place)]
    whole, local, both, small = _in_turns([step, apart, *exchanges], seconds, place, device)
    experiment.close()
    return {"step": whole, "apart": local, "exchange": both, "small": small, "bytes": 4 * len(gradients)}


def _reducing(values: torch.Tensor, place: World) -> Callable[[], object]:
    return (lambda: dist.all_reduce(values)) if place.size > 1 else (lambda: None)


def _in_turns(
    calls: list[Callable[[], object]], seconds: float, place: World, device: torch.device
) -> list[list[float]]:
    """Seconds of each call, as many samples as fit: the processes agree on the number before."""

    def timed(call: Callable[[], object]) -> float:
        collectives.barrier(place)  # nobody waits inside for who was slower before
        return timing.time_calls(call, 1, device)[0]

    def round_of_all() -> list[float]:
        return [timed(call) for call in calls]

    round_of_all(), round_of_all()
    fits = min(MOST, max(FEWEST, round(seconds / sum(round_of_all()))))
    count = int(collectives.sum_over(torch.tensor([fits]), place)) // place.size
    samples = torch.tensor([round_of_all() for _ in range(count)], dtype=torch.float64)
    slowest: list[list[float]] = torch.stack(collectives.gather(samples, place)).amax(0).T.tolist()
    return slowest


def noise(count: int) -> data.Splits:
    """So many training images of noise, the same in every process."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10
    split = data.Split.held(images, labels)
    return data.Splits(split, None, split, (0.5,) * 3, (0.25,) * 3, tuple("0123456789"), {"name": "noise"})


if __name__ == "__main__":
    main(sys.argv[1:])
