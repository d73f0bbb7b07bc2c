"""FLOPs of a run: equal to what its forward passes do, at every size, with hard images, over any steps."""

import pytest
import torch
from drawn import splits
from torch.utils.flop_counter import FlopCounterMode

from fastresnet.settings import config
from fastresnet.training.arithmetic import work
from fastresnet.training.experiment import Experiment

SETTINGS = {
    "model.arch": "speednet", "model.width": 0.125, "train.batch_size": 20, "train.epochs": 2.5,
    "train.drop_last": False, "train.precision": "fp32", "run.device": "cpu", "train.cpu_kernels": "exact",
}  # fmt: skip
KINDS = [
    {},
    {"train.resolutions": [[0.35, 24], [0.65, 28], [1.0, 32]]},
    {"train.hard_fraction": 0.5},
    {"train.epoch_share": 0.5},
    {"train.hard_fraction": 0.3, "train.proxy_width": 0.25, "train.resolutions": [[0.5, 24], [1.0, 32]]},
    {"train.hard_fraction": 0.3, "train.proxy_width": 0.25, "train.proxy_every": 2},
]


def made(**changes):
    return Experiment(config.load(None, {**SETTINGS, **changes}), splits=splits(50, 20))


def forward_flops(model):
    """A list that takes in the FLOPs of each forward pass of `model` from now on."""
    counts = []

    def count(module, inputs):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            type(module).forward(module, *inputs)
        counts.append((counter.get_total_flops(), module.training and torch.is_grad_enabled()))

    model.register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_runs_flops_are_the_sum_over_its_steps_of_what_its_forward_passes_do(changes):
    experiment = made(**changes)
    whole = work(experiment)
    experiment.initialise()
    own = forward_flops(experiment.model)
    for epoch in range(experiment.num_epochs):
        experiment.fit_epoch(epoch)
    trained = sum(flops for flops, learns in own if learns)
    judged = sum(flops for flops, learns in own if not learns)
    assert whole.images == 140 * experiment.cfg.train.epoch_share
    if experiment.cfg.train.proxy_width:
        alone = made(**changes).trainer.select
        seen = forward_flops(alone.model)
        for step in range(experiment.total_steps):
            batch, size = experiment.batch_of(step)
            alone(torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64))
            learns = step % experiment.cfg.train.proxy_every == 0
            judged += seen[-1][0] * (1 + learns * 2 * alone.count(batch) / batch)
    assert whole.flops == pytest.approx(3 * trained + judged, rel=1e-9)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_stretches_of_a_run_add_up(changes):
    experiment = made(**changes)
    parts = [work(experiment, 0, 3), work(experiment, 3, 4), work(experiment, 4)]
    whole = work(experiment)
    assert sum(part.images for part in parts) == whole.images
    assert sum(part.flops for part in parts) == pytest.approx(whole.flops)
    assert whole.images * whole.flops_per_image == pytest.approx(whole.flops)


def test_steps_beyond_the_run_count_at_its_last_size_and_none_cost_nothing():
    experiment = made(**KINDS[1])
    nothing = work(experiment, 3, 3)
    assert (nothing.images, nothing.flops, nothing.flops_per_image) == (0, 0.0, 0.0)
    last = experiment.total_steps
    assert work(experiment, last + 1, last + 2).images in (10, 20)
