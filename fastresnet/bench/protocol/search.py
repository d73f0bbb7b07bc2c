"""Search for faster recipes:
`python benchmarks/search.py --config speed94.yaml --space space.yaml --trials 100`.

Optuna draws settings at random (or by its TPE sampler); successive halving stops trials that are hopeless at
their epoch. A trial is judged by its cost, seconds or FLOPs; one that misses the target costs more by what it
lacks. Accuracy is the validation set's where data.val_fraction holds one back (which a search should do),
else the test set's. The study is a SQLite file, so the same command goes on where it was interrupted.

The space is YAML: each setting with a list of choices, or with low and high (log: true, step: 0.5):

    optim.lr: {low: 0.1, high: 0.4, log: true}
    train.epochs: {low: 6, high: 10, step: 0.5}
    train.batch_size: [1000, 1536, 2000]
    train.resolutions: [null, [[0.35, 24], [0.7, 28], [1.0, 32]]]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from fastresnet import data
from fastresnet.base import strict_yaml
from fastresnet.bench.protocol import pareto, protocol
from fastresnet.machine import timing
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import Config
from fastresnet.training import trainer

SLOPE = 20.0  # a run that misses the target by one point (0.01) counts as if it had cost 20 % more
LOG, STUDY = "trials.jsonl", "study.db"


def options(parser: argparse.ArgumentParser) -> None:
    """What this script knows beside the settings."""
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help="what is searched, as YAML")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials, old ones too (20)")
    parser.add_argument("--target", type=float, metavar="SHARE", help="accuracy to reach (eval.target)")
    parser.add_argument("--objective", choices=("seconds", "flops"), default="seconds", help="what is saved")
    parser.add_argument("--sampler", choices=("random", "tpe"), default="random", help="who draws (random)")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="runs a trial (1)")
    parser.add_argument("--out", type=Path, default=Path("searches"), metavar="DIR", help="folder (searches)")


def main(argv: list[str] | None = None) -> int:
    """Search, print a line a trial and the Pareto front's trials at the end."""
    cfg, asked = parse_args(argv, __doc__ or "", options, default="speed94.yaml")
    target = asked.target if asked.target is not None else cfg.eval.target
    if target is None or not 0 < target < 1:
        raise ValueError(f"--target must lie between 0 and 1, got {target} (a share; the recipe names none)")
    if asked.trials < 1 or asked.seeds < 1:
        raise ValueError(f"--trials and --seeds must be at least 1, got {asked.trials} and {asked.seeds}")
    space = read_space(asked.space, cfg)
    optuna = _optuna()
    asked.out.mkdir(parents=True, exist_ok=True)
    question = _fingerprint(cfg, space, target, asked)
    study = optuna.create_study(
        storage=f"sqlite:///{asked.out / STUDY}",
        study_name=cfg.recipe,
        load_if_exists=True,
        sampler={"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[asked.sampler](),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    if study.user_attrs.get("question", question) != question:
        raise ValueError(
            f"{asked.out / STUDY} was begun with another recipe, space, target or objective: "
            "finish it as it was begun, or give another folder with --out"
        )
    study.set_user_attr("question", question)
    splits = data.prepare(cfg, lambda line: print(line, file=sys.stderr))
    left = asked.trials - sum(trial.state.is_finished() for trial in study.trials)
    for _ in range(max(0, left)):
        row = _trial(study, optuna, cfg, space, splits, target, asked)
        pareto.append(asked.out / LOG, row)
        print(pareto.line(row, target), flush=True)
    rows = pareto.read(asked.out / LOG)
    pareto.draw(rows, target, asked.objective, asked.out / "pareto.png")
    for row in pareto.front(rows, asked.objective):
        print(json.dumps({key: row[key] for key in ("trial", "accuracy", asked.objective, "settings")}))
    return 0


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("searching needs Optuna: pip install -e .[search]") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _fingerprint(cfg: Config, space: dict[str, Any], target: float, asked: argparse.Namespace) -> str:
    told = [cfg.to_dict(), space, target, asked.objective, asked.seeds]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# ---- the space ---------------------------------------------------------------------------------------------


def read_space(path: Path, cfg: Config) -> dict[str, Any]:
    """Setting -> list of choices, or {low, high, log, step}. Each end is tried on the recipe at once, so that
    a wrong key or value shows before the first trial. Raises ValueError, naming file and key."""
    try:
        space = strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise ValueError(str(error)) from None
    if not space:
        raise ValueError(f"{path}: the space is empty: name a setting and what it may be")
    for key, values in space.items():
        try:
            for value in _ends(values):
                cfg.replace({key: value}, origin=path.name)
        except ValueError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    return dict(space)


def _ends(values: Any) -> list[Any]:
    if isinstance(values, list) and values:
        return values
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log", "step"}:
        raise ValueError(f"must be a list of choices or {{low, high, log, step}}, got {values!r}")
    low, high = values["low"], values["high"]
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (low, high)) or low > high:
        raise ValueError(f"low and high must be numbers, low at most high, got {low!r} and {high!r}")
    return [low, high]


def draw(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """One setting for each key of the space, drawn by the trial."""
    drawn: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, list):  # by number: Optuna's choices can't be lists
            drawn[key] = values[trial.suggest_categorical(key, list(range(len(values))))]
        elif isinstance(values["low"], int) and isinstance(values["high"], int) and "log" not in values:
            step = values.get("step", 1)
            whole = float(step).is_integer()
            suggest = trial.suggest_int if whole else trial.suggest_float
            drawn[key] = suggest(key, values["low"], values["high"], step=int(step) if whole else step)
        else:
            how = {"log": True} if values.get("log") else {"step": values.get("step")}
            drawn[key] = trial.suggest_float(key, values["low"], values["high"], **how)
    return drawn


# ---- a trial -----------------------------------------------------------------------------------------------


def _trial(
    study: Any,
    optuna: Any,
    cfg: Config,
    space: dict[str, Any],
    splits: Any,
    target: float,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """Draw, train, tell the study; a row of the log whatever happened."""
    trial = study.ask()
    settings = draw(trial, space)
    row: dict[str, Any] = {
        "trial": trial.number,
        "settings": settings,
        "state": "complete",
        "accuracy": None,
        "seconds": None,
        "flops": None,
        "value": None,
    }
    try:
        prepared = protocol.prepare(cfg.replace(settings, origin="search"), splits)
        row["flops"] = prepared.flops["train"]
        runs = [_run(prepared, seed, trial if seed == 0 else None, optuna) for seed in range(asked.seeds)]
        row["accuracy"] = sum(run["accuracy"] for run in runs) / len(runs)
        row["seconds"] = sum(run["seconds"] for run in runs) / len(runs)
        row["value"] = cost(row[asked.objective], row["accuracy"], target)
        study.tell(trial, row["value"])
    except optuna.TrialPruned:
        row["state"] = "stopped"
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except (ValueError, trainer.Diverged) as error:  # impossible together, or blown up
        row |= {"state": "failed", "message": str(error)}
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return row


def _run(prepared: protocol.Prepared, seed: int, trial: Any, optuna: Any) -> dict[str, float]:
    """One run from fresh weights; after each epoch `trial` says by its error whether it is hopeless."""
    experiment, cfg = prepared.experiment, prepared.experiment.cfg
    split = "val" if "val" in experiment.evaluation_splits else "test"
    clock = timing.Stopwatch(experiment.device)
    experiment.reset(seed)
    experiment.initialise()
    for epoch in range(experiment.num_epochs):
        experiment.fit_epoch(epoch)
        clock.lap("clock")
        if trial is not None and epoch + 1 < experiment.num_epochs:
            trial.report(1.0 - experiment.evaluate(split).accuracy, epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
            clock.lap("looking")  # not what a run of the recipe would do
    accuracy = experiment.evaluate(split, tta=cfg.eval.tta).accuracy
    clock.lap("clock")
    return {"accuracy": accuracy, "seconds": clock.seconds["clock"]}


def cost(spent: float, accuracy: float, target: float) -> float:
    """What a trial is judged by: what it spent, and SLOPE times the missing accuracy more where it missed."""
    return spent * (1.0 + SLOPE * max(0.0, target - accuracy))
