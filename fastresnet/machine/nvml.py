"""NVIDIA's management library through ctypes: clocks, temperature, power, energy. Changes no setting.

Names and units: https://docs.nvidia.com/deploy/nvml-api. A figure that the driver doesn't give is None.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch

# nvmlClocksEventReason*; 0x01 (idle) is no throttling
THROTTLE_BITS = {
    0x02: "application clocks set",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
    0x100: "display clocks set",
}
Number = ctypes.c_uint | ctypes.c_ulonglong
SM, MEMORY = 1, 2  # nvmlClockType_t
MAX_NVLINKS = 18


class Gpu:
    """One GPU, found by the UUID that torch reports (kept in this process only)."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def _number(self, name: str, *arguments: int, kind: type[Number] = ctypes.c_uint) -> int | None:
        function = getattr(self._library, name, None)
        value = kind()
        if function is None or function(self._handle, *arguments, ctypes.byref(value)) != 0:
            return None
        return int(value.value)

    def energy_joules(self) -> float | None:
        """Energy used since the driver was loaded (Volta and later)."""
        return _scaled(self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong), 1e-3)

    def power_watts(self) -> float | None:
        """Power drawn now."""
        return _scaled(self._number("nvmlDeviceGetPowerUsage"), 1e-3)

    def power_limit_watts(self) -> float | None:
        """The limit in force."""
        return _scaled(self._number("nvmlDeviceGetEnforcedPowerLimit"), 1e-3)

    def temperature_celsius(self) -> int | None:
        """Temperature of the die."""
        return self._number("nvmlDeviceGetTemperature", 0)

    def clock_mhz(self, kind: int = SM) -> int | None:
        """Clock now."""
        return self._number("nvmlDeviceGetClockInfo", kind)

    def max_clock_mhz(self, kind: int = SM) -> int | None:
        """Highest clock that the card may reach."""
        return self._number("nvmlDeviceGetMaxClockInfo", kind)

    def throttle_reasons(self) -> list[str] | None:
        """Why the clock is below what it could be, in words; empty when nothing holds it."""
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            mask = self._number(name, kind=ctypes.c_ulonglong)
            if mask is not None:
                return [text for bit, text in THROTTLE_BITS.items() if mask & bit]
        return None

    def pcie(self) -> tuple[int | None, int | None]:
        """PCIe generation and lanes at their best."""
        return (
            self._number("nvmlDeviceGetMaxPcieLinkGeneration"),
            self._number("nvmlDeviceGetMaxPcieLinkWidth"),
        )

    def nvlinks(self) -> int:
        """The number of active NVLinks."""
        return sum(self._number("nvmlDeviceGetNvLinkState", link) == 1 for link in range(MAX_NVLINKS))


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor


@cache
def library() -> ctypes.CDLL | None:
    """The loaded and initialised library, or None where there is no NVIDIA driver."""
    for name in ("libnvidia-ml.so.1", "nvml.dll"):
        try:
            loaded = ctypes.CDLL(name)
        except OSError:
            continue
        if loaded.nvmlInit_v2() == 0:
            return loaded
    return None


def find(uuid: str) -> Gpu | None:
    """The GPU with this UUID (with or without «GPU-» in front); None where NVML or the card isn't there."""
    loaded = library()
    if loaded is None:
        return None
    handle = ctypes.c_void_p()
    full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    if loaded.nvmlDeviceGetHandleByUUID(full.encode(), ctypes.byref(handle)) != 0:
        return None
    return Gpu(loaded, handle)


@cache
def _card(index: int) -> Gpu | None:
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return find(str(uuid)) if uuid else None


def card_of(device: torch.device | str) -> Gpu | None:
    """The card behind a CUDA device (without a number: the current one), or None."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return _card(torch.cuda.current_device() if device.index is None else device.index)


def driver_version() -> str | None:
    """The driver's version, or None."""
    loaded = library()
    text = ctypes.create_string_buffer(96)
    if loaded is None or loaded.nvmlSystemGetDriverVersion(text, len(text)) != 0:
        return None
    return text.value.decode()
