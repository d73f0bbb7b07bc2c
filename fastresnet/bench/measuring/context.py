"""What the benchmarks of one run share: the device, the suite's size, the measured ceilings, the data. All of
it made late."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from fastresnet import data, sources
from fastresnet.bench.measuring.ceilings import DTYPES
from fastresnet.machine import precision
from fastresnet.machine.ceiling import matmul_ceiling
from fastresnet.settings import config

SUITES = ("quick", "standard", "full")


@dataclass
class Context:
    """suite: quick, standard or full; tiny: sizes for CI, where only «does it run» counts."""

    device: torch.device
    suite: str = "quick"
    tiny: bool = False
    _ceilings: dict[str, float] = field(default_factory=dict)
    _splits: Any = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type != "cpu"

    def fast_precision(self) -> str:
        """What `train.precision=auto` means here."""
        return precision.resolve("auto", self.device).name

    def ceiling(self, name: str) -> float:
        """FLOP/s of large matrix products in a precision, measured once."""
        if name not in self._ceilings:
            short: dict[str, Any] = {"seconds": 0.01, "sizes": (256,)} if self.tiny else {"seconds": 0.4}
            self._ceilings[name] = matmul_ceiling(self.device, DTYPES[name], tf32=name == "tf32", **short)
        return self._ceilings[name]

    def config(self, recipe: str | None, changes: dict[str, Any] | None = None) -> config.Config:
        """A recipe as the benchmarks run it: on this device, quiet, without files, synthetic data where there
        is no other."""
        quiet = {
            "run.device": self.device.type,
            "run.save_checkpoints": False,
            "run.report": False,
            "run.progress": "off",
            "data.allow_synthetic": True,
        }
        if self.tiny:
            quiet |= {"data.source": "synthetic", "data.synthetic_train": 256, "data.synthetic_test": 64}
            quiet |= {"train.batch_size": 64, "eval.batch_size": 64}
        return config.load(recipe, quiet | (changes or {}))

    def splits(self) -> data.Splits:
        """The data set that the benchmarks train on: the real one where it is found, else a synthetic one,
        marked."""
        if self._splits is None:
            self._splits = tiny_splits() if self.tiny else data.prepare(self.config("rn18.yaml"))
        return self._splits

    def data_info(self) -> dict[str, Any] | None:
        """What the cases trained on, for the result file; None where none needed data."""
        if self._splits is None:
            return None
        info = self._splits.info
        return {key: info[key] for key in ("name", "digest", "synthetic", "train_size", "test_size")}


def tiny_splits() -> data.Splits:
    """A few synthetic images, straight from memory: no file is read or written."""
    few = sources.Request(counts={"train": 256, "test": 64})
    sets = [sources.synthetic.read(few, split) for split in sources.SPLITS]
    train, test = (data.Split(s.images, s.labels, None, None, (32, 32), s.images.nbytes) for s in sets)
    first = sets[0]
    info = {
        "name": first.name,
        "digest": first.digest,
        "synthetic": True,
        "train_size": len(train),
        "test_size": len(test),
    }
    half = (0.5, 0.5, 0.5)
    return data.Splits(train, None, test, half, (0.25, 0.25, 0.25), tuple(first.class_names), info)
