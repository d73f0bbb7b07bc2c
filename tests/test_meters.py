"""Energy and the state of the machine: read where there is a meter, unknown where there is none."""

import ctypes
import time

import pytest
import torch

from fastresnet.machine import hardware, meters, nvml
from fastresnet.machine.ceiling import matmul_ceiling


def test_rapl_energy_is_read_and_a_wrapped_counter_is_unwrapped(tmp_path, monkeypatch):
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "energy_uj").write_text("9000000\n")
    (domain / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(meters, "RAPL", tmp_path)
    meter = meters.EnergyMeter("cpu")
    with meter:
        (domain / "energy_uj").write_text("2000000\n")
    assert meter.source == "rapl" and meter.joules == pytest.approx(3.0)


def test_without_a_meter_the_energy_is_unknown_not_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(meters, "RAPL", tmp_path)
    with meters.EnergyMeter("cpu") as meter:
        time.sleep(0.001)
    assert meter.source is None and meter.joules is None


class FakeLibrary:
    """As much of NVML as one imaginary card answers."""

    def _answer(self, pointer, value):
        pointer._obj.value = value
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, out):
        return self._answer(out, 123_456)

    def nvmlDeviceGetMaxClockInfo(self, handle, kind, out):
        return self._answer(out, {nvml.SM: 1980, nvml.MEMORY: 3201}[kind])

    def nvmlDeviceGetTemperature(self, handle, sensor, out):
        return 3  # NVML_ERROR_NOT_SUPPORTED

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle, out):
        return self._answer(out, 0x04 | 0x20 | 0x01)


def test_nvml_figures_are_converted_and_missing_ones_are_none():
    card = nvml.Gpu(FakeLibrary(), ctypes.c_void_p())
    assert card.energy_joules() == pytest.approx(123.456)
    assert (card.max_clock_mhz(), card.max_clock_mhz(nvml.MEMORY)) == (1980, 3201)
    assert card.temperature_celsius() is None and card.power_watts() is None
    assert card.throttle_reasons() == ["power cap", "thermal (software)"]


@pytest.mark.gpu
def test_a_real_gpu_tells_its_limits_and_its_energy():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    gpu = hardware.describe()["gpus"][0]
    assert gpu["memory_bytes"] > 1e9 and gpu["multiprocessors"] > 0
    with meters.EnergyMeter("cuda") as meter:
        matmul_ceiling("cuda", torch.float16)
    assert meter.source is None or meter.joules > 0
