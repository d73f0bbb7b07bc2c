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

from torch import Tensor
from torch.utils._pytree import tree_map_only

from fastresnet.base import words
from fastresnet.ranks import agreement, collectives
from fastresnet.runs import checkpoint
from fastresnet.runs.ledger import Ledger
from fastresnet.training.experiment import Experiment

COPIES = 12  # of the weights at most: last, best and one being written, each with averages and momenta
LARGEST_SHARE = 0.01  # of the training time that checkpoints by the clock may take
_EVERY = re.compile(r"(\d+) ?(s|steps)")


def every(text: str) -> tuple[int, int]:
    """train.checkpoint_every as (seconds, steps), 0 where not by this."""
    found = _EVERY.fullmatch(text)
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
        self._writing: tuple[str, Future[None]] | None = None
        self._kept_at, self._copying, self._saving = time.monotonic(), 0.0, 0.0
        self.lost: dict[str, str] = {}  # name of a checkpoint whose newest state is not on the disk -> why
        self._warned = False
        self._origin: tuple[Mapping[str, Any], str] | None = None
        self._look_at_the_disk(COPIES)

    def _look_at_the_disk(self, copies: int) -> None:
        """Say once, and before it happens, that the disk is too full for so many copies of the weights."""
        if not self.keeps or self.where is None or self._warned:
            return
        weights = sum(value.nbytes for value in self.experiment.model.state_dict().values())
        needed, free = copies * weights, shutil.disk_usage(self.where).free
        if free < needed:
            self._warned = True
            self.fail(
                f"the disk of {self.where} has {words.size(free)} left, this run's checkpoints may take "
                f"{words.size(needed)}: the run goes on, its last checkpoints may be missing"
            )

    def due(self) -> bool:
        """Whether a checkpoint inside the epoch is due now. Of clocks, the first process's counts."""
        if self._steps:
            return self.experiment.trainer.steps_done % self._steps == 0
        busy = self._writing is not None and not self._writing[1].done()
        if not self._seconds or self.where is None or busy:
            return False
        now = time.monotonic()
        if now - self._kept_at < max(self._seconds, (self._copying + self._saving) / LARGEST_SHARE):
            return False
        self._kept_at = now
        return True

    def keep_last(self, since: float = 0.0) -> None:
        """checkpoints/last.pt: the weights and all that an exact continuation needs. Every process calls it.

        since: seconds of training that the ledger doesn't have yet
        Raises Diverged, in every process, where loss or weights aren't finite: those before stay.
        """
        if not self.keeps:
            return
        began, trainer = time.monotonic(), self.experiment.trainer
        trainer.check(self.experiment.epoch)
        agreement.same_weights(self.experiment.model, self.experiment.place, trainer.steps_done)
        totals = collectives.sum_over(trainer.totals.clone(), self.experiment.place)
        if self.where is not None:
            state = trainer.state_dict() | {"totals": totals}
            self._write("last", self._weights() | {"trainer": state, "ledger": self.ledger.state_dict(since)})
        self._kept_at = time.monotonic()
        self._copying = self._kept_at - began

    def keep_best(self) -> None:
        """checkpoints/best.pt: the weights and what using them needs."""
        if self.keeps and self.where is not None:
            self._write("best", self._weights())

    def flush(self) -> None:
        """Wait until everything is written; what couldn't be is said, and stands in `lost`."""
        if self._writing is None:
            return
        (name, writing), self._writing = self._writing, None
        try:
            writing.result()
            self.lost.pop(name, None)
        except (OSError, ValueError) as error:  # ValueError: it was read back, and damaged
            self.lost[name] = reason = str(getattr(error, "strerror", None) or error)
            self.fail(f"checkpoint not written ({reason}); the one before it is still there")

    def rewind(self) -> str:
        """Go back to the newest checkpoint, or else to the beginning; what repeats the run from there.

        Every process calls it, and goes back to what the first one finds.
        """
        self.flush()
        experiment, processes = self.experiment, self.experiment.place.size
        last, again = self.where and self.where / "last.pt", "the same command"
        kept = collectives.of_the_first(str(last) if last and last.is_file() else "", experiment.place)
        if kept:
            self.restore(checkpoint.load(kept), kept)
            again = f"fastresnet train --run.resume={Path(kept).parents[1]}"
        elif self._origin:
            self.restore(*self._origin)
        else:
            experiment.reset(experiment.seed)
            experiment.initialise()
        again = "the same call" if experiment.own.names() else again
        return again if processes == 1 else f"{again} in {processes} processes"

    def insist(self) -> None:
        """Raises RuntimeError where the run's last weights are not on the disk: then it isn't finished."""
        if "last" in self.lost:
            raise RuntimeError(
                f"{self.where}: the last weights couldn't be written ({self.lost['last']}): free some disk "
                "space, then the same command does the steps since the checkpoint before again"
            )

    def close(self) -> None:
        """Wait for what is being written and end the thread."""
        self._thread.shutdown()

    def _write(self, name: str, payload: dict[str, Any]) -> None:
        assert self.where is not None
        self.flush()
        self._look_at_the_disk(COPIES // 3)
        path = self.where / f"{name}.pt"
        copied = tree_map_only(Tensor, lambda value: value.detach().to("cpu", copy=True), payload)
        self._writing = name, self._thread.submit(self._save, path, copied)

    def _save(self, path: Path, payload: dict[str, Any]) -> None:
        began = time.thread_time()  # in the thread that writes
        checkpoint.save(path, payload)
        self._saving = time.thread_time() - began

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
            "processes": experiment.place.size,
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
        self._origin = payload, origin
