"""Energy and the state of the machine: read where there is a meter, unknown where there is none."""

import ctypes
import time

import pytest
import torch

from fastresnet.machine import hardware, meters, nvml
from fastresnet.machine.ceiling import matmul_ceiling
from fastresnet.machine.distributed import World
from fastresnet.runs.ledger import joules_of_all


def test_rapl_energy_is_read_and_a_wrapped_counter_is_unwrapped(rapl):
    rapl.write_text("9000000\n")
    rapl.with_name("max_energy_range_uj").write_text("10000000\n")
    with meters.EnergyMeter("cpu") as meter:
        rapl.write_text("2000000\n")
    assert meter.source == "rapl" and meter.joules == pytest.approx(3.0)


def test_the_energy_of_the_whole_board_is_not_added_to_that_of_its_package(rapl):
    board = rapl.parents[1] / "intel-rapl:1" / rapl.name
    board.parent.mkdir()
    (board.parent / "name").write_text("psys\n")
    board.write_text("0\n")
    with meters.EnergyMeter("cpu") as meter:
        for counter in (rapl, board):
            counter.write_text("5000000\n")
    assert meter.joules == pytest.approx(5.0)


@pytest.mark.parametrize(("size", "on_this_host", "joules"), [(1, 1, 5.0), (2, 2, 5.0), (2, 1, None)])
def test_processes_on_one_hosts_cores_share_its_meter(rapl, size, on_this_host, joules):
    with meters.EnergyMeter("cpu") as meter:
        rapl.write_text("5000000\n")
    assert joules_of_all(meter, World(size=size, local_size=on_this_host)) == joules


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
