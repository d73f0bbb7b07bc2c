"""Experiments as the benchmarks run them: short but in proportion, and warm before a clock starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from fastresnet import data
from fastresnet.bench.measuring.context import Context
from fastresnet.loading import Batch
from fastresnet.machine import timing
from fastresnet.settings.config import Config
from fastresnet.training import arithmetic
from fastresnet.training.experiment import Experiment

# of the ceiling, what a step is likely to reach: enough to guess how many steps fit into a time
LIKELY_SHARE = 0.4
# steps of a short run: below it the shares of its image sizes are too coarse; at scale tiny that is all right
FEWEST_STEPS, FEWEST_TINY = 20, 4


@contextlib.contextmanager
def opened(cfg: Config, splits: data.Splits) -> Iterator[Experiment]:
    """An experiment whose loaders end with the block."""
    experiment = Experiment(cfg, splits=splits)
    try:
        yield experiment
    finally:
        experiment.close()


def shortened(context: Context, cfg: Config, seconds: float) -> Config:
    """`cfg` with so few epochs that a run likely takes `seconds`; image sizes keep their share of it."""
    with opened(cfg, context.splits()) as experiment:
        total, an_epoch = experiment.total_steps, experiment.steps_per_epoch
        flops = arithmetic.work(experiment).flops / total
        likely = flops / (LIKELY_SHARE * context.ceiling(experiment.precision.name))
    steps = min(total, max(FEWEST_TINY if context.tiny else FEWEST_STEPS, round(seconds / likely)))
    return cfg.replace({"train.epochs": steps / an_epoch})


def train(
    experiment: Experiment, seed: int = 0, ready: Callable[[int], Iterable[Batch]] | None = None
) -> float:
    """Seconds of all steps of a run from fresh weights; initialising is not on the clock.

    ready:  epoch -> batches that are trained on instead of the loader's
    """
    experiment.reset(seed)
    experiment.initialise()
    began = timing.now(experiment.device)
    for epoch in range(experiment.num_epochs):
        if ready is None:
            experiment.fit_epoch(epoch)
        else:
            experiment.trainer.fit_epoch(ready(epoch), epoch)
    return timing.now(experiment.device) - began


def warm(experiment: Experiment) -> None:
    """Compile, capture and allocate all that a run needs, the loader's kernels too: a run, thrown away."""
    experiment.warm_up()
    train(experiment)
