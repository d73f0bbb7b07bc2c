"""Snapshots, which let a captured step run without a trace. Capturing needs a GPU: see test_trainer."""

import torch
from torch import nn

from fastresnet.optim import Optimizers
from fastresnet.training.capture import Snapshot


def trained(optimizer_class=torch.optim.SGD, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return model, Optimizers([optimizer_class(model.parameters(), lr=0.1, **settings)])


def step(model, optimizer):
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_restoring_puts_weights_and_buffers_back_in_place():
    model, optimizer = trained(momentum=0.9)
    addresses = [p.data_ptr() for p in model.parameters()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    snapshot.restore()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert addresses == [p.data_ptr() for p in model.parameters()]


def test_optimizer_states_made_afterwards_become_zero():
    model, optimizer = trained(torch.optim.Adam)
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    assert any(value.any() for state in optimizer.parts[0].state.values() for value in state.values())
    snapshot.restore()
    assert not any(value.any() for state in optimizer.parts[0].state.values() for value in state.values())


def test_optimizer_states_from_before_come_back():
    model, optimizer = trained(momentum=0.9)
    step(model, optimizer)
    kept = [state["momentum_buffer"].clone() for state in optimizer.parts[0].state.values()]
    snapshot = Snapshot(model, optimizer, [])
    step(model, optimizer)
    snapshot.restore()
    for old, state in zip(kept, optimizer.parts[0].state.values()):
        assert torch.equal(old, state["momentum_buffer"])
