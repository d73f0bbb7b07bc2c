"""A trained network with what using it needs: weights, settings, class names, normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastresnet.machine import precision
from fastresnet.machine.devices import choose_device, make_current
from fastresnet.machine.precision import Precision
from fastresnet.reports import metrics
from fastresnet.runs import checkpoint
from fastresnet.settings import config
from fastresnet.settings.config import Config
from fastresnet.settings.keys import COMMAND_LINE
from fastresnet.training import evaluation
from fastresnet.training.selection import Batch


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds, ready for images.

    model:       in evaluation mode, on `device`
    cfg:         the settings it was trained with, and what the caller changed
    mean, std:   normalisation of the channels, in 0..1 units
    image_size:  height and width of the images it was trained on, px
    precision:   what it computes in: the run's own, unless the caller asked for another
    facts:       the checkpoint's other fields (epoch, step, data, accuracy, recipe)
    """

    path: Path
    model: nn.Module
    cfg: Config
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    device: torch.device
    precision: Precision
    facts: dict[str, Any]

    def exact(self) -> Trained:
        """The same network, computing in fp32."""
        return replace(self, precision=precision.resolve("fp32", self.device))

    def normalise(self, images_NHWC: np.ndarray | Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> fp32 (N, 3, H, W), channels last, on the model's device, as in training."""
        pixels = torch.as_tensor(images_NHWC).to(self.device)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"images must be uint8 (N, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}")
        mean, std = (torch.tensor(values, device=self.device) for values in (self.mean, self.std))
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    def answers(self, batches: Iterable[Batch], tta: str = "none") -> tuple[np.ndarray, np.ndarray]:
        """Logits, fp32 (N, K), and labels, int64 (N,), of normalised batches; `tta` as in eval.tta."""
        logits, labels = evaluation.predict(
            self.model,
            batches,
            precision=self.precision,
            device=self.device,
            tta=tta,
            tta_share=self.cfg.eval.tta_share,
        )
        return logits.numpy(), labels.numpy()

    def logits(
        self, images_NHWC: np.ndarray, *, tta: str = "none", batch_size: int | None = None
    ) -> np.ndarray:
        """Logits, fp32 (N, K), of uint8 images (N, H, W, 3); `tta` as in eval.tta."""
        size = batch_size or self.cfg.eval.batch_size

        def batches() -> Iterator[Batch]:
            for start in range(0, len(images_NHWC), size):
                images = self.normalise(images_NHWC[start : start + size]).to(self.precision.compute)
                yield images, torch.zeros(len(images), dtype=torch.int64)

        return self.answers(batches(), tta)[0]

    def probabilities(self, images_NHWC: np.ndarray, *, tta: str = "none") -> np.ndarray:
        """Softmax of `logits`, float64 (N, K)."""
        return metrics.softmax(self.logits(images_NHWC, tta=tta))

    def check_classes(self, class_names: tuple[str, ...], what: str) -> None:
        """Raises ValueError unless `what` has the network's own classes, in their order."""
        if len(class_names) != len(self.class_names):
            raise ValueError(
                f"{self.path} was trained on {len(self.class_names)} classes, {what} has {len(class_names)}"
            )
        other = [
            f"{ours!r} there, {theirs!r} here"
            for ours, theirs in zip(self.class_names, class_names)
            if ours != theirs
        ]
        if other:
            raise ValueError(
                f"{self.path} was trained on other classes than {what} has: {'; '.join(other[:3])}"
            )


def load(path: str | Path, changes: Mapping[str, Any] | None = None, *, origin: str = "changed") -> Trained:
    """The network of a checkpoint, or of a run's folder.

    changes:  settings that differ from those it was trained with ({"data.root": …}); `model.*` can't.
    Raises ValueError where the file is no checkpoint of ours, or a change can't be.
    """
    changes = dict(changes or {})
    fixed = sorted(key for key in changes if key.startswith("model."))
    if fixed:
        raise ValueError(
            f"{fixed[0]} can't be changed: the weights in {path} belong to the model they were trained in"
        )
    found = checkpoint.find(path)
    model, facts = checkpoint.load_model(found)
    cfg = config.from_dict(facts["config"], recipe=facts.get("recipe", "defaults"), origin=str(found))
    config.check_named_code(cfg, changes, str(found), ("data.source",))
    cfg = cfg.replace(changes, origin=origin) if changes else cfg
    device = choose_device(cfg.run.device)
    make_current(device)
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    mean, std = (tuple(float(x) for x in facts[key]) for key in ("mean", "std"))
    assert len(mean) == len(std) == 3
    placed = model.to(device).to(memory_format=torch.channels_last)
    return Trained(
        found,
        placed.eval(),
        cfg,
        tuple(facts["class_names"]),
        mean,
        std,
        int(facts["image_size"]),
        device,
        _precision(cfg, device, asked="train.precision" in changes),
        facts,
    )


def _precision(cfg: Config, device: torch.device, *, asked: bool) -> Precision:
    """The precision that the run trained in; fp32 where this device can't, unless the caller asked for it."""
    try:
        return precision.resolve(cfg.train.precision, device)
    except ValueError:
        if asked:
            raise
    reason = f"the run's {cfg.train.precision} can't be had on this {device.type}"
    return Precision("fp32", torch.float32, scales_loss=False, reason=reason)


def from_command_line(path: str, cfg: Config) -> Trained:
    """`load`, with the settings that the command line of a script gave on top of the checkpoint's own."""
    return load(path, cfg.asked(), origin=COMMAND_LINE)
