"""What happens between the first step and the last file of a run. `run.train` is the way in.

Trains an Experiment epoch by epoch, keeps its folder, and answers Ctrl-C with a checkpoint that continues
exactly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastresnet import models
from fastresnet.runs import checkpoint, loggers, record
from fastresnet.machine import distributed, hardware, memory, timing
from fastresnet.training import evaluation
from fastresnet.reports import plots, run_page
from fastresnet.settings.config import Config
from fastresnet.machine.distributed import World
from fastresnet.training.experiment import Experiment
from fastresnet.base.interrupt import Interrupted, StopRequest
from fastresnet.runs.progress import Progress
from fastresnet.runs.folder import RunFolder
from fastresnet.training.trainer import EpochResult, Trainer


@dataclass(frozen=True)
class Run:
    """A finished run.

    dir:          its folder
    record:       what result.json holds
    model:        the trained network in evaluation mode, on the device it was trained on
    history:      one dict an epoch (the record's `per_epoch`)
    class_names:  one a class, in label order
    """

    dir: Path
    record: dict[str, Any]
    model: nn.Module
    history: list[dict[str, Any]]
    class_names: tuple[str, ...]

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.dir / "checkpoints" / "last.pt"

    def plot(self) -> Path:
        """Draw loss and accuracy over the epochs; returns the picture's path."""
        return plots.curves(self.history, self.dir / "plots" / "curves.png")


@dataclass
class _Best:
    """The best epoch so far by the split that eval.best_on names; `epoch` counts from 1."""

    accuracy: float | None = None
    epoch: int | None = None

    def improves(self, accuracy: float | None) -> bool:
        return accuracy is not None and (self.accuracy is None or accuracy > self.accuracy)


@dataclass
class _Seconds:
    """The run's clock by what it went into; `train` and `eval` include what earlier sessions of a resumed
    run spent."""

    startup: float = 0.0
    compile: float = 0.0
    init: float = 0.0
    train: float = 0.0
    eval: float = 0.0
    wall: float = 0.0


@dataclass
class Session:
    """The state of one call of `train`."""

    cfg: Config
    place: World
    progress: Progress
    payload: dict[str, Any] | None
    began: float
    history: list[dict[str, Any]] = field(default_factory=list)
    best: _Best = field(default_factory=_Best)
    seconds: _Seconds = field(default_factory=_Seconds)
    record: dict[str, Any] | None = None  # None until the run is finished
    predictions: tuple[torch.Tensor, torch.Tensor] | None = None  # of the test set, newest

    def run(self) -> Run:
        cfg, progress = self.cfg, self.progress
        experiment_ = self.experiment = Experiment(cfg, self.place, notes=progress.note)
        self.folder = self._open_folder()
        self.seconds.startup = self._since_began()
        if experiment_.compile_mode != "off" or cfg.train.cuda_graph:
            progress.note(
                f"compiling the step (train.compile={experiment_.compile_mode}, "
                f"cuda_graph={cfg.train.cuda_graph}) ..."
            )
            experiment_.warm_up()
            self.seconds.compile = self._since_began() - self.seconds.startup
        self._restore() if self.payload else self._initialise()
        self._log = loggers.open_all(cfg.run.loggers, self.folder.path, cfg) if self.place.is_main else []
        try:
            with StopRequest() as self.stop:
                with hardware.EnergyMeter(experiment_.device) as self.energy:
                    self._epochs()
                return self._finish()
        finally:
            experiment_.close()
            for log in self._log:
                log.close(self.record)

    # ---- training ------------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        clock = timing.Stopwatch(self.experiment.device)
        self.experiment.initialise()
        self.seconds.init = clock.lap("init")

    def _epochs(self) -> None:
        experiment_, trainer = self.experiment, self.experiment.trainer
        per_epoch = experiment_.steps_per_epoch
        limit = self.limit = min(self.cfg.train.max_steps or experiment_.total_steps, experiment_.total_steps)
        self.progress.start(
            epochs=self.cfg.train.epochs,
            total_steps=limit,
            batch_size=self.cfg.train.batch_size,
            first_step=trainer.steps_done,
            advise=experiment_.device.type == "cpu",
        )
        while trainer.steps_done < limit:
            epoch = trainer.steps_done // per_epoch
            result = experiment_.fit_epoch(epoch, limit=limit, on_step=self._on_step)
            self.seconds.train += result.seconds
            whole = trainer.steps_done % per_epoch == 0 or trainer.steps_done == experiment_.total_steps
            if self._stop_asked() and not whole:
                self._save(self.history)
                self._interrupted()
            before = list(self.history)
            self._finish_epoch(result, last=trainer.steps_done == limit)
            self._save(self.history if whole else before)
            if self._stop_asked() and trainer.steps_done < limit:
                self._interrupted()

    def _on_step(self, trainer: Trainer) -> bool:
        loss = None
        if self.progress.peek:
            loss_sum, _, images = trainer.totals.tolist()
            loss = loss_sum / max(images, 1.0)
        self.progress.step(
            (trainer.steps_done - 1) // self.experiment.steps_per_epoch, trainer.steps_done, loss
        )
        return self.stop.asked and self.place.size == 1

    def _finish_epoch(self, result: EpochResult, *, last: bool) -> None:
        row: dict[str, Any] = {
            "epoch": result.epoch + 1,
            "step": result.step,
            "lr": result.lr,
            "train_loss": result.loss,
            "train_accuracy": result.accuracy,
            "val_loss": None,
            "val_accuracy": None,
            "test_loss": None,
            "test_accuracy": None,
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
        }
        every = self.cfg.eval.every
        if last or (every and (result.epoch + 1) % every == 0):
            clock = timing.Stopwatch(self.experiment.device)
            for name in self.experiment.evaluation_splits:
                logits_NK, labels_N = self.experiment.predict(name)
                if name == "test":
                    self.predictions = logits_NK, labels_N
                score = evaluation.score(logits_NK, labels_N)
                row[f"{name}_loss"], row[f"{name}_accuracy"] = score.loss, score.accuracy
            self.seconds.eval += clock.lap("eval")
        self.history.append(row)
        left = self._left(result)
        self.progress.epoch(row, left)
        if self.place.is_main:
            self.folder.write_rows(self.history)
            for log in self._log:
                log.epoch(row)
        chooses = {"validation": "val_accuracy", "test": "test_accuracy"}.get(self.cfg.eval.best_on)
        if chooses and self.best.improves(row[chooses]):
            self.best = _Best(row[chooses], row["epoch"])
            if self.place.is_main and self.cfg.run.save_checkpoints:
                self.folder.save_checkpoint("best", self._weights())

    def _left(self, result: EpochResult) -> float:
        done = sum(row["seconds"] for row in self.history)
        return done / max(result.step, 1) * (self.limit - result.step)

    def _stop_asked(self) -> bool:
        asked = torch.tensor([float(self.stop.asked)], device=self.experiment.device)
        return bool(distributed.sum_over(asked, self.place).item())

    def _interrupted(self) -> None:
        if not self.cfg.run.save_checkpoints:
            raise Interrupted("interrupted; nothing was kept (run.save_checkpoints=false)")
        raise Interrupted(
            f"interrupted at step {self.experiment.trainer.steps_done}; "
            f"continue with --run.resume={self.folder.path}"
        )

    # ---- keeping -------------------------------------------------------------------------------------------

    def _open_folder(self) -> RunFolder:
        if not self.place.is_main:
            return RunFolder.__new__(RunFolder)
        resumed_here = bool(self.payload) and bool(self.cfg.run.dir)
        folder = (
            RunFolder(Path(self.cfg.run.dir), continued=True) if resumed_here else RunFolder.fresh(self.cfg)
        )
        self.cfg.dump(folder.path / "config.yaml")
        self.progress.note(f"run folder {folder.path}")
        return folder

    def _weights(self) -> dict[str, Any]:
        """A checkpoint to use: the weights and what reading them needs."""
        experiment_ = self.experiment
        splits = experiment_.splits
        averaged = experiment_.averaged_model
        return {
            "model": _on_cpu(experiment_.model.state_dict()),
            "averaged": _on_cpu(averaged.state_dict()) if averaged is not None else None,
            "recipe": self.cfg.recipe,
            "config": self.cfg.to_dict(),
            "data": {key: splits.info[key] for key in ("name", "digest", "synthetic")},
            "class_names": list(splits.class_names),
            "mean": [float(x) for x in splits.mean],
            "std": [float(x) for x in splits.std],
            "image_size": experiment_.image_size,
            "step": experiment_.trainer.steps_done,
            "epoch": experiment_.trainer.steps_done // experiment_.steps_per_epoch,
            "accuracy": {
                name: self.history[-1][f"{name}_accuracy"] if self.history else None
                for name in ("val", "test")
            },
        }

    def _save(self, finished_rows: list[dict[str, Any]]) -> None:
        """checkpoints/last.pt: the weights and all that an exact continuation needs; rows of finished epochs
        only."""
        if not (self.place.is_main and self.cfg.run.save_checkpoints):
            return
        self.folder.save_checkpoint(
            "last",
            {
                **self._weights(),
                "trainer": self.experiment.trainer.state_dict(),
                "history": finished_rows,
                "best": asdict(self.best),
                "seconds": asdict(self.seconds),
            },
        )

    def _restore(self) -> None:
        payload, experiment_ = self.payload, self.experiment
        assert payload is not None
        origin = str(self.cfg.run.resume)
        if "trainer" not in payload:
            raise ValueError(
                f"{origin}: holds weights alone (best.pt?), a run continues from checkpoints/last.pt"
            )
        if payload["data"]["digest"] != experiment_.splits.info["digest"]:
            raise ValueError(
                f"{origin}: was trained on other data (digest {payload['data']['digest']}, this set's is "
                f"{experiment_.splits.info['digest']}): give data.root and data.source of the first run"
            )
        checkpoint.load_weights(experiment_.model, payload["model"], origin)
        experiment_.trainer.load_state_dict(payload["trainer"])
        self.history = list(payload["history"])
        self.best = _Best(**payload["best"])
        spent = payload["seconds"]
        self.seconds.init, self.seconds.train, self.seconds.eval = (
            spent["init"],
            spent["train"],
            spent["eval"],
        )
        self.progress.note(
            f"continuing {origin} at step {experiment_.trainer.steps_done} of {experiment_.total_steps}"
        )

    # ---- the end -------------------------------------------------------------------------------------------

    def _finish(self) -> Run:
        experiment_, cfg = self.experiment, self.cfg
        clock = timing.Stopwatch(experiment_.device)
        logits_NK, labels_N = self.predictions or experiment_.predict("test")
        plain = evaluation.score(logits_NK, labels_N)
        with_tta = experiment_.evaluate("test", tta=cfg.eval.tta) if cfg.eval.tta != "none" else None
        self.seconds.eval += clock.lap("eval")
        model = experiment_.averaged_model or experiment_.model
        folder = self.folder
        if self.place.is_main:
            self.seconds.wall = self._since_began()
            result = self._record(plain, with_tta)
            best = folder.path / "checkpoints" / "best.pt"
            if cfg.run.save_checkpoints and not best.exists():
                folder.save_checkpoint("best", self._weights())
            folder.write_predictions(logits_NK.numpy(), labels_N.numpy(), experiment_.splits.class_names)
            record.write(folder.path / "result.json", result)
            self.record = result
            if cfg.run.report:
                self._report(logits_NK.numpy(), labels_N.numpy())
            self.progress.note(f"results in {folder.path}")
            self.progress.say(record.line(result))
        else:
            result = {}
        return Run(
            folder.path if self.place.is_main else Path(),
            result,
            model.eval(),
            self.history,
            experiment_.splits.class_names,
        )

    def _report(self, logits_NK: np.ndarray, labels_N: np.ndarray) -> None:
        plots.curves(self.history, self.folder.path / "plots" / "curves.png")
        test = self.experiment.splits.test
        run_page.write(self.folder.path, predictions=(logits_NK, labels_N, test.images))

    def _record(self, plain: evaluation.Score, with_tta: evaluation.Score | None) -> dict[str, Any]:
        experiment_ = self.experiment
        splits, seconds = experiment_.splits, self.seconds
        images = sum(row["images_per_second"] * row["seconds"] for row in self.history)
        rate = images / seconds.train if seconds.train else None
        flops = models.flops_per_image(experiment_.model, experiment_.image_size)
        ceiling = (
            hardware.matmul_ceiling(
                experiment_.device, experiment_.precision.compute, tf32=experiment_.precision.name == "tf32"
            )
            * self.place.size
        )
        return {
            "schema_version": record.SCHEMA_VERSION,
            "kind": "result",
            "recipe": self.cfg.recipe,
            "config": self.cfg.to_dict(),
            "seed": self.cfg.run.seed,
            "git": hardware.git_state(Path(__file__).parent),
            "data": splits.info,
            "accuracy": {
                "test": plain.accuracy,
                "test_tta": with_tta.accuracy if with_tta else None,
                "best": self.best.accuracy if self.best.epoch else plain.accuracy,
                "best_epoch": self.best.epoch or self.history[-1]["epoch"],
                "best_on": self.cfg.eval.best_on if self.best.epoch else "last weights",
            },
            "loss": plain.loss,
            "seconds": asdict(seconds),
            "images_per_second": rate,
            "flops_per_image": flops,
            "mfu": hardware.mfu(flops, rate, ceiling) if rate else None,
            "peak_memory_bytes": memory.peak_bytes(experiment_.device),
            "energy_joules": self.energy.joules,
            "hardware": hardware.describe(),
            "software": hardware.software(),
            "precision": experiment_.precision.name,
            "loader": experiment_.loader_name,
            "world_size": self.place.size,
            "steps": experiment_.trainer.steps_done,
            "per_epoch": self.history,
        }

    def _since_began(self) -> float:
        return timing.now(self.experiment.device) - self.began


def _on_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}
