"""What the benchmarks of one run share, made late: device, size, measured ceilings, data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from fastresnet import data
from fastresnet.bench.measuring.file import Figure
from fastresnet.bench.measuring.harness import sample
from fastresnet.bench.measuring.operations import DTYPES, convolution, copying
from fastresnet.data.conversion import load_both
from fastresnet.data.finding import without_betons
from fastresnet.data.preparation import cut_up
from fastresnet.machine import precision
from fastresnet.machine.ceiling import matmul_ceiling, tf32_where_asked
from fastresnet.settings import config
from fastresnet.settings.sections import Data

SUITES = ("quick", "standard", "full")


@dataclass
class Context:
    """The device and the size of what is measured on it.

    suite:  quick, standard or full
    tiny:   sizes for CI, where only «does it run» counts
    say:    called with a line for each choice made about the data
    """

    device: torch.device
    suite: str = "quick"
    tiny: bool = False
    say: Callable[[str], None] = lambda line: None
    _ceilings: dict[str, float] = field(default_factory=dict)
    _splits: data.Splits | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type != "cpu"

    def fast_precision(self) -> str:
        """What `train.precision=auto` means here."""
        return precision.resolve("auto", self.device).name

    def ceiling(self, name: str) -> float:
        """FLOP/s in a precision: the best of matrix products and of a 3x3 convolution, measured once."""
        if name not in self._ceilings:
            self._ceilings[name] = self._measured_ceiling(name)
        return self._ceilings[name]

    def _measured_ceiling(self, name: str) -> float:
        seconds = 0.01 if self.tiny else 0.4
        rate = matmul_ceiling(self.device, DTYPES[name], tf32=name == "tf32", seconds=seconds)
        with tf32_where_asked(name), torch.inference_mode():
            flops, call = convolution(self.device, name, 8 if self.tiny else 512 if self.on_gpu else 64)
            return max(rate, flops / min(sample(call, self.device, seconds / 2)))

    def bandwidth(self) -> float:
        """Bytes/s that a copy reads and writes, at best."""
        moved, call = copying(self.device, 4 if self.tiny else 1024 if self.on_gpu else 128)
        return moved / min(sample(call, self.device, 0.01 if self.tiny else 0.4))

    def utilisation(self, name: str, flops_per_second: float) -> dict[str, Figure]:
        """The figures that hold a rate of arithmetic against the ceiling of its precision.

        A ceiling that was beaten is measured once more: the machine may have been busy the first time.
        """
        if flops_per_second > self.ceiling(name):
            self._ceilings[name] = max(self._ceilings[name], self._measured_ceiling(name))
        limit = self._ceilings[name]
        return {
            "flops_per_second": flops_per_second,
            "mfu": flops_per_second / limit,
            "ceiling_flops_per_second": limit,
        }

    def config(self, recipe: str | None, changes: Mapping[str, object] | None = None) -> config.Config:
        """A recipe as the benchmarks run it: here, quiet, without files, on synthetic data if need be."""
        quiet: dict[str, object] = {
            "run.device": str(self.device),
            "run.save_checkpoints": False,
            "run.report": False,
            "run.progress": "off",
            "data.allow_synthetic": True,
        }
        if self.tiny:
            quiet |= {"data.source": "synthetic", "data.synthetic_train": 256, "data.synthetic_test": 64}
            quiet |= {"train.batch_size": 64, "eval.batch_size": 64}
        return config.load(recipe, quiet | dict(changes or {}))

    def splits(self) -> data.Splits:
        """What the benchmarks train on: the real set where it is found, else a synthetic one, marked."""
        if self._splits is None:
            cfg = self.config("rn18.yaml")
            self._splits = drawn(cfg.data) if self.tiny else data.prepare(cfg, self.say)
        return self._splits

    def data_info(self) -> data.Info | None:
        """What the cases trained on, for the result file; None where none needed data."""
        return None if self._splits is None else self._splits.info


def drawn(settings: Data) -> data.Splits:
    """A synthetic set straight from memory: no file is read or written."""
    sets = load_both("synthetic", None, settings, lambda line: None)
    return cut_up(without_betons(sets), None, 0.0, lambda line: None)
