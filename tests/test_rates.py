"""Rates: the same along the schedule as numbers and as tensors; groups may go their own way."""

import pytest
import torch
from torch import nn

from fastresnet.optim.rates import Rates


def optimizer(kind=torch.optim.SGD, **options):
    layer = nn.Linear(2, 2)
    groups = [
        {"params": [layer.weight], "name": "filters", "base_lr": 0.5},
        {"params": [layer.bias], "name": "biases", "base_lr": 2.0},
    ]
    return kind(groups, lr=1.0, **options)


def test_each_group_gets_its_own_rate_times_the_factor_of_the_step():
    made = optimizer()
    rates = Rates(made, [1.0, 0.5, 0.0], None, {"biases": [0.0, 0.0, 0.25]}, None)
    seen = []
    for step in range(3):
        rates.set(step)
        seen.append([group["lr"] for group in made.param_groups])
    assert seen == [[0.5, 0.0], [0.25, 0.0], [0.0, 0.5]] and rates.base_lr(1) == 0.25


def test_rates_on_the_device_are_the_same_and_stay_the_same_tensors():
    made = optimizer()
    rates = Rates(made, [1.0, 0.5, 0.25], None, {}, torch.device("cpu"))
    tensors = [group["lr"] for group in made.param_groups]
    seen = []
    for _ in range(3):
        rates.set_on_device()
        seen.append([float(lr) for lr in tensors])
    assert seen == [[0.5, 2.0], [0.25, 1.0], [0.125, 0.5]]
    assert all(group["lr"] is lr for group, lr in zip(made.param_groups, tensors))
    rates.rewind(1)
    rates.set_on_device()
    assert float(tensors[0]) == 0.25


@pytest.mark.parametrize("kind, key", [(torch.optim.SGD, "momentum"), (torch.optim.Adam, "betas")])
def test_momentum_cycles_in_either_spelling(kind, key):
    made = optimizer(kind)
    Rates(made, [1.0, 1.0], [0.95, 0.85], {}, None).set(1)
    value = made.param_groups[0][key]
    assert value == (0.85 if key == "momentum" else (0.85, 0.999))
