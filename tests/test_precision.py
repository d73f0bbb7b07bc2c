"""Choosing a number format."""

import warnings

import pytest
import torch

from fastresnet.machine import precision, software

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


class Advising:
    """cuDNN's switches as PyTorch 2.9 has them: whoever touches the one of TF32 is told of another."""

    benchmark, tf32 = False, True

    @property
    def allow_tf32(self):
        warnings.warn("Please use the new API settings to control TF32 behavior", UserWarning, stacklevel=2)
        return self.tf32

    @allow_tf32.setter
    def allow_tf32(self, value):
        warnings.warn("Please use the new API settings to control TF32 behavior", UserWarning, stacklevel=2)
        self.tf32 = value


def test_on_a_gpu_fp32_is_set_and_told_without_a_word_of_pytorchs(monkeypatch):
    switches = Advising()
    monkeypatch.setattr(torch.backends, "cudnn", switches)
    before = torch.get_float32_matmul_precision()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("tf32", "fp32"):
            precision.apply_globally(precision.resolve(name, CUDA), CUDA)
            assert (switches.tf32, switches.benchmark) == (name == "tf32", True)
            assert software.speed_settings()["cudnn_tf32"] == (name == "tf32")
    torch.set_float32_matmul_precision(before)
