"""What a run takes and what disturbs it: energy in joules, and the state of the machine while it is measured.

Refuses to guess: what no meter says is None.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypedDict

import torch

from fastresnet.base.system import lines
from fastresnet.machine import nvml, timing

RAPL = Path("/sys/class/powercap")


class Condition(TypedDict, total=False):
    """The state that explains a slow sample: load of the machine; of a GPU also the rest, None if unknown."""

    load_1min: float | None
    temperature_celsius: int | None
    clock_mhz: int | None
    power_watts: float | None
    throttle: list[str] | None


def condition(device: torch.device | str = "cpu") -> Condition:
    """The condition of the machine, and of `device` where it is a GPU that NVML knows, now."""
    card = nvml.card_of(device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if card is None:
        return {"load_1min": load}
    return {
        "load_1min": load,
        "temperature_celsius": card.temperature_celsius(),
        "clock_mhz": card.clock_mhz(),
        "power_watts": card.power_watts(),
        "throttle": card.throttle_reasons(),
    }


class EnergyMeter:
    """Joules between entering and leaving: of the GPU by NVML, of the CPU's packages by RAPL where allowed.

    joules:  None before leaving, and where there is no meter
    source:  which one it was
    """

    joules: float | None = None
    source: Literal["nvml", "rapl"] | None = None

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._card = nvml.card_of(self.device)
        self._domains = [] if self.device.type == "cuda" else rapl_domains(RAPL)
        if self._card is not None and self._card.energy_joules() is not None:
            self.source = "nvml"
        elif self._domains:
            self.source = "rapl"

    def __enter__(self) -> EnergyMeter:
        timing.synchronize(self.device)
        self._before = self._read()
        return self

    def __exit__(self, *exc_info: object) -> None:
        timing.synchronize(self.device)
        after = self._read()
        if after and len(after) == len(self._before):
            self.joules = sum(self._used(i, *pair) for i, pair in enumerate(zip(self._before, after)))

    def _read(self) -> list[float]:
        if self.source == "nvml":
            joules = self._card.energy_joules() if self._card is not None else None
            return [] if joules is None else [joules]
        return [_microjoules(domain / "energy_uj") for domain in self._domains]

    def _used(self, meter: int, first: float, last: float) -> float:
        if last < first and self._domains:  # RAPL's counter wraps around
            last += _microjoules(self._domains[meter] / "max_energy_range_uj")
        return last - first


def rapl_domains(root: Path) -> list[Path]:
    """Package-level RAPL domains under `root` whose counters this process may read.

    `psys`, which stands beside them where there is one, is the whole board: it counts the packages again.
    """
    found = [path for path in sorted(root.glob("intel-rapl:[0-9]")) if lines(path / "energy_uj")]
    return [path for path in found if lines(path / "name") != ["psys"]]


def _microjoules(path: Path) -> float:
    return int(lines(path)[0]) / 1e6
