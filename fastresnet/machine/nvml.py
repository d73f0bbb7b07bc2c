"""NVIDIA's management library through ctypes: clocks, temperature, power, energy. Knows no torch and never
changes a setting.

Names and units: https://docs.nvidia.com/deploy/nvml-api. A figure that the driver doesn't give is None.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

THROTTLE_BITS = {
    0x02: "application clocks set",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
    0x100: "display clocks set",
}  # nvmlClocksEventReason*; 0x01 (idle) is no throttling
SM, MEMORY = 1, 2  # nvmlClockType_t
MAX_NVLINKS = 18


class Gpu:
    """One GPU, found by the UUID that torch reports (kept in this process only)."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def _number(self, name: str, *arguments: int, kind: Any = ctypes.c_uint) -> int | None:
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

    def link(self) -> dict[str, int | None]:
        """PCIe generation and lanes at their best, and the number of active NVLinks."""
        active = [self._number("nvmlDeviceGetNvLinkState", link) for link in range(MAX_NVLINKS)]
        return {
            "pcie_generation": self._number("nvmlDeviceGetMaxPcieLinkGeneration"),
            "pcie_lanes": self._number("nvmlDeviceGetMaxPcieLinkWidth"),
            "nvlinks": sum(state == 1 for state in active),
        }


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor


@cache
def library() -> Any | None:
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
    """The GPU with this UUID (with or without the «GPU-» in front), or None where NVML or the card isn't
    there."""
    loaded = library()
    if loaded is None:
        return None
    handle = ctypes.c_void_p()
    full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    if loaded.nvmlDeviceGetHandleByUUID(full.encode(), ctypes.byref(handle)) != 0:
        return None
    return Gpu(loaded, handle)


def driver_version() -> str | None:
    """The driver's version, or None."""
    loaded = library()
    text = ctypes.create_string_buffer(96)
    if loaded is None or loaded.nvmlSystemGetDriverVersion(text, len(text)) != 0:
        return None
    return text.value.decode()
