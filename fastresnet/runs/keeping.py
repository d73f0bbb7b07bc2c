"""The checkpoints of one run: what goes into them, when one is due, and going on from one.

The state is copied in the training thread and written in another: keeping costs under 1 % of training.
Refuses to decide what is trained.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastresnet.base import words
from fastresnet.machine import distributed
from fastresnet.runs import checkpoint
from fastresnet.runs.ledger import Ledger
from fastresnet.training.experiment import Experiment

COPIES = 12  # of the weights at most: last, best and one being written, each with averages and momenta
LARGEST_SHARE = 0.01  # of the training time that checkpoints by the clock may take
_EVERY = re.compile(r"(\d+) ?(s|steps)")


def every(text: str) -> tuple[int, int]:
    """train.checkpoint_every as (seconds, steps), 0 where not by this. Raises ValueError for other texts."""
    found = _EVERY.fullmatch(text)
    if not found and text != "off":
        raise ValueError(f"train.checkpoint_every must be like 60s, 500 steps or off, got {text!r}")
    count, unit = (int(found[1]), found[2]) if found else (0, "")
    return (count, 0) if unit == "s" else (0, count)


class Keeper:
    """Writes and reads the checkpoints of the run that `experiment` and `ledger` are.

    where:  the folder of checkpoints; None in all processes but the first, which write nothing
    fail:   called with one line when a checkpoint couldn't be written
    """

    def __init__(
        self, experiment: Experiment, ledger: Ledger, where: Path | None, fail: Callable[[str], None]
    ) -> None:
        self.experiment, self.ledger, self.where, self.fail = experiment, ledger, where, fail
        self.keeps = experiment.cfg.run.save_checkpoints
        self._seconds, self._steps = every(experiment.cfg.train.checkpoint_every) if self.keeps else (0, 0)
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self._kept_at, self._cost = time.monotonic(), 0.0
        if self.keeps and where is not None:
            self._look_at_the_disk(where)

    def _look_at_the_disk(self, where: Path) -> None:
        """Say before the training that the disk is nearly full, not after it."""
        weights = sum(value.nbytes for value in self.experiment.model.state_dict().values())
        needed, free = COPIES * weights, shutil.disk_usage(where).free
        if free < needed:
            self.fail(
                f"the disk of {where} has {words.size(free)} left, this run's checkpoints may take "
                f"{words.size(needed)}: the run goes on, its last checkpoints may be missing"
            )

    def due(self) -> bool:
        """Whether a checkpoint inside the epoch is due after the step that was just done."""
        if self._steps:
            return self.experiment.trainer.steps_done % self._steps == 0
        if not self._seconds or (self._writing is not None and not self._writing.done()):
            return False
        now = time.monotonic()
        if now - self._kept_at < max(self._seconds, self._cost / LARGEST_SHARE):
            return False
        self._kept_at = now
        return True

    def keep_last(self, since: float = 0.0) -> None:
        """checkpoints/last.pt: the weights and all that an exact continuation needs. Every process calls it.

        Weights that have diverged don't take the place of those before.
        since: seconds of training that the ledger doesn't have yet
        """
        if not self.keeps:
            return
        began, trainer = time.monotonic(), self.experiment.trainer
        totals = distributed.sum_over(trainer.totals.clone(), self.experiment.place)
        if self.where is not None and _finite(self.experiment.model):
            state = trainer.state_dict() | {"totals": totals}
            self._write("last", self._weights() | {"trainer": state, "ledger": self.ledger.state_dict(since)})
        self._kept_at = time.monotonic()
        self._cost = self._kept_at - began

    def keep_best(self) -> None:
        """checkpoints/best.pt: the weights and what using them needs."""
        if self.keeps and self.where is not None:
            self._write("best", self._weights())

    def flush(self) -> bool:
        """Wait until everything is written; False where the newest checkpoint couldn't be."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
            return True
        except OSError as error:
            self.fail(f"checkpoint not written ({error.strerror or error}); the one before it is still there")
            return False

    def close(self) -> None:
        """Wait for what is being written and end the thread."""
        self._thread.shutdown()

    def _write(self, name: str, payload: dict[str, Any]) -> None:
        assert self.where is not None
        self.flush()
        copied = tree_map_only(Tensor, lambda value: value.detach().to("cpu", copy=True), payload)
        self._writing = self._thread.submit(checkpoint.save, self.where / f"{name}.pt", copied)

    def _weights(self) -> dict[str, Any]:
        experiment, history = self.experiment, self.ledger.history
        splits, averaged = experiment.splits, experiment.averaged_model
        return {
            "model": experiment.model.state_dict(),
            "averaged": averaged.state_dict() if averaged is not None else None,
            "recipe": experiment.cfg.recipe,
            "config": experiment.cfg.to_dict(),
            "data": {key: splits.info[key] for key in ("name", "digest", "synthetic")},
            "class_names": list(splits.class_names),
            "mean": [float(x) for x in splits.mean],
            "std": [float(x) for x in splits.std],
            "image_size": experiment.image_size,
            "step": experiment.trainer.steps_done,
            "epoch": experiment.trainer.steps_done // experiment.steps_per_epoch,
            "accuracy": {"val": history[-1]["val_accuracy"], "test": history[-1]["test_accuracy"]}
            if history
            else {},
        }

    def restore(self, payload: Mapping[str, Any], origin: str) -> None:
        """Go on from a checkpoint. Raises ValueError where it isn't one of this run's last.pt."""
        experiment = self.experiment
        if "trainer" not in payload or "ledger" not in payload:
            raise ValueError(
                f"{origin}: holds weights alone (best.pt?), a run continues from checkpoints/last.pt"
            )
        if payload["data"]["digest"] != experiment.splits.info["digest"]:
            raise ValueError(
                f"{origin}: was trained on other data (digest {payload['data']['digest']}, this set's is "
                f"{experiment.splits.info['digest']}): give data.root and data.source of the first run"
            )
        checkpoint.load_weights(experiment.model, payload["model"], origin)
        try:
            experiment.trainer.load_state_dict(payload["trainer"])
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{origin}: its optimizer's state fits no run of these settings ({reason})"
            ) from error
        if not experiment.place.is_main:
            experiment.trainer.totals.zero_()  # the first process has the sums of all
        self.ledger.load_state_dict(payload["ledger"])


def _finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
