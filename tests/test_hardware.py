"""hardware and nvml: what can be known is right, what can't be is None, and nothing names the person or the
host."""

import ctypes
import getpass
import json
import platform
import subprocess
import time

import pytest
import torch

from fastresnet.machine import hardware, nvml


def test_the_description_is_plain_json_and_names_neither_host_nor_user():
    text = json.dumps([hardware.describe(), hardware.software(), hardware.condition()])
    if len(platform.node()) > 3:
        assert platform.node() not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text
    assert "uuid" not in text.lower() and "serial" not in text.lower()


def test_the_description_has_a_cpu_and_usable_cores():
    machine = hardware.describe()
    assert machine["cpu"]["model"] and 1 <= machine["cpu"]["cores_usable"] <= machine["cpu"]["cores"]
    assert (machine["gpu"] is None) == (machine["gpus"] == [])


def test_the_matmul_ceiling_is_of_a_plausible_order():
    rate = hardware.matmul_ceiling("cpu", torch.float32, seconds=0.1)
    assert 1e9 < rate < 1e14
    assert hardware.mfu(1e9, 100.0, 3e12) == pytest.approx(0.1)


def test_git_state_tells_clean_from_dirty_from_no_work_tree(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
        )

    assert hardware.git_state(tmp_path / "nowhere") == {"commit": None, "dirty": None}
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    clean = hardware.git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert hardware.git_state(tmp_path)["dirty"] is True


def test_rapl_energy_is_read_and_a_wrapped_counter_is_unwrapped(tmp_path, monkeypatch):
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "energy_uj").write_text("9000000\n")
    (domain / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(hardware, "RAPL", tmp_path)
    meter = hardware.EnergyMeter("cpu")
    with meter:
        (domain / "energy_uj").write_text("2000000\n")
    assert meter.source == "rapl" and meter.joules == pytest.approx(3.0)


def test_without_a_meter_the_energy_is_unknown_not_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "RAPL", tmp_path)
    with hardware.EnergyMeter("cpu") as meter:
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
    with hardware.EnergyMeter("cuda") as meter:
        hardware.matmul_ceiling("cuda", torch.float16)
    assert meter.source is None or meter.joules > 0
