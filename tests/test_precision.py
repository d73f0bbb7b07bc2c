"""Choosing a number format."""

import pytest
import torch

from fastresnet.machine import precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_takes_bf16_on_a_cpu_that_multiplies_it_in_hardware(monkeypatch):
    monkeypatch.setattr(precision, "cpu_is_fast_at_bf16", lambda: True)
    chosen = precision.resolve("auto", CPU)
    assert (chosen.name, chosen.compute, chosen.scales_loss) == ("bf16", torch.bfloat16, False)


def test_auto_takes_fp32_on_a_cpu_that_does_not(monkeypatch):
    monkeypatch.setattr(precision, "cpu_is_fast_at_bf16", lambda: False)
    assert precision.resolve("auto", CPU).name == "fp32"


@pytest.mark.parametrize(
    ("capability", "name"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")]
)
def test_auto_follows_the_generation_of_the_gpu(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = precision.resolve("auto", CUDA)
    assert chosen.name == name and chosen.scales_loss == (name == "fp16")
    assert chosen.reason.startswith("auto")


def test_an_apple_gpu_trains_in_fp32_unless_asked_and_never_in_tf32():
    apple = torch.device("mps")
    assert precision.resolve("auto", apple).name == "fp32"
    assert precision.resolve("bf16", apple).compute is torch.bfloat16
    with pytest.raises(ValueError, match="tf32 exists on CUDA GPUs alone, this run is on mps"):
        precision.resolve("tf32", apple)


@pytest.mark.parametrize("name", ["fp16", "tf32"])
def test_what_a_cpu_cannot_train_in_is_refused(name):
    with pytest.raises(ValueError, match=f"train.precision={name}"):
        precision.resolve(name, CPU)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="fp32, tf32, fp16, bf16"):
        precision.resolve("half", CPU)


def test_autocast_casts_operations_and_not_fp32():
    product = torch.ones(2, 2)
    with precision.resolve("bf16", CPU).autocast(CPU):
        assert (product @ product).dtype is torch.bfloat16
    with precision.resolve("fp32", CPU).autocast(CPU):
        assert (product @ product).dtype is torch.float32
