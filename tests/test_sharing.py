"""Muon's products shared by several processes: everything once, evenly, where it pays; rates that scale."""

import pytest
import torch
from torch import nn

from fastresnet.machine.distributed import World
from fastresnet.optim import rates, sharing
from fastresnet.optim.muon import orthogonalized
from fastresnet.optim.sharing import Share
from fastresnet.settings import config

CPU = torch.device("cpu")
AIRBENCH = [torch.Size([64, 24, 3, 3]), torch.Size([64, 64, 3, 3]), torch.Size([256, 64, 3, 3])]
AIRBENCH += [torch.Size([256, 256, 3, 3])] * 3


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_each_filter_bank_is_one_process_s_and_none_has_much_more_than_its_part(processes):
    share = Share(AIRBENCH, 3, World(size=processes))
    assert sorted(i for some in share.members for i in some) == list(range(len(AIRBENCH)))
    largest = max(sharing.flops(shape, 3) for shape in AIRBENCH)
    assert max(share.loads) <= sum(share.loads) / processes + largest


def test_the_flops_are_those_of_the_products():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        orthogonalized(torch.randn(1, 16, 40), 3)
    assert counter.get_total_flops() == sharing.flops(torch.Size([16, 10, 2, 2]), 3)


def test_what_others_made_comes_in_its_own_layout(monkeypatch):
    """The other process's answer is made up here, as it would come."""
    shapes = [torch.Size([4, 3, 2, 2]), torch.Size([2, 4, 3, 3])]
    first, second = (Share(shapes, 3, World(rank=rank, size=2)) for rank in (0, 1))
    directions = [torch.randn(shape).to(memory_format=torch.channels_last) for shape in shapes]
    sent: dict[int, torch.Tensor] = {}

    def keep(values, place):
        sent[place.rank] = values
        return [values, values]

    monkeypatch.setattr(sharing.collectives, "gather", keep)
    for share in (first, second):
        share.of_all(directions, lambda some: [2 * one for one in some])
    monkeypatch.setattr(sharing.collectives, "gather", lambda values, place: [sent[0], sent[1]])
    made = first.of_all(directions, lambda some: [2 * one for one in some])
    for direction, update in zip(directions, made):
        torch.testing.assert_close(update, 2 * direction, rtol=0, atol=0)
        assert update.stride() == direction.stride()


def test_sharing_is_left_out_where_it_does_not_pay():
    small = [nn.Parameter(torch.zeros(8, 8, 3, 3)) for _ in range(3)]
    large = [nn.Parameter(torch.zeros(shape)) for shape in AIRBENCH]
    two = World(size=2)
    assert sharing.worthwhile(large, 3, World(), CPU) is None
    assert sharing.worthwhile(small, 3, two, CPU) is None
    assert sharing.worthwhile(large, 3, two, CPU) is not None
    assert sharing.worthwhile(small, 3, two, torch.device("cuda")) is not None


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_all_peak_rates_scale_by_one_rule(rule, factor):
    given = {"optim.lr": 0.1, "optim.lr_head": 0.2, "optim.lr_scaling": rule, "optim.lr_base_batch": 128}
    optim = config.load(None, given).optim
    found = rates.scaled(optim, 512)
    assert [found.lr, found.lr_head] == pytest.approx([0.1 * factor, 0.2 * factor]) and found.lr_bias is None
