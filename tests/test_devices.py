"""Which device is meant, and whether it is there."""

import pytest
import torch

from fastresnet.machine import devices
from fastresnet.machine.devices import choose_device
from fastresnet.machine.distributed import World


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA GPUs, and an Apple GPU or not."""

    def make(gpus, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(devices, "mps_available", lambda: mps)

    return make


@pytest.mark.parametrize(("gpus", "mps", "name", "expected"), [
    (0, False, "auto", "cpu"), (0, True, "auto", "mps"), (2, True, "auto", "cuda:0"),
    (2, False, "cuda", "cuda:0"), (2, False, "cuda:1", "cuda:1"), (2, True, "mps", "mps"),
    (2, False, "cpu", "cpu"),
])  # fmt: skip
def test_a_name_means_a_device(machine, gpus, mps, name, expected):
    machine(gpus, mps)
    assert str(choose_device(name)) == expected


def test_each_process_of_a_host_gets_a_gpu_of_its_own(machine):
    machine(2)
    assert str(choose_device("auto", World(3, 1, 4))) == "cuda:1"
    with pytest.raises(ValueError, match="run.device=cuda:1: 2 processes can't share one GPU"):
        choose_device("cuda:1", World(0, 0, 2))


def test_the_chosen_gpu_becomes_the_current_one_and_other_devices_change_nothing(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: seen.append(str(device)))
    for name in ("cpu", "mps", "cuda:1"):
        devices.make_current(torch.device(name))
    assert seen == ["cuda:1"]


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", "", "cuda:2", "cuda:1:1", "mps"])
def test_a_device_that_is_not_there_is_refused_by_its_option(machine, name):
    machine(2)
    with pytest.raises(ValueError, match=f"^--device={name}: "):
        choose_device(name, option="--device")
