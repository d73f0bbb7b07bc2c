"""Search for better recipes:
`python benchmarks/search.py --config speed94.yaml --space space.yaml --trials 100 --seeds 8`.

The recipe itself and trials drawn from the space run the same seeds; after 1, 2, 4, … seeds the better half
goes on. A trial is judged by its paired gain in accuracy over the recipe, less --price for each doubling of
its cost. Accuracy is the validation set's where data.val_fraction holds one back (which a search should do),
else the test set's. Every run is logged at once, so the same command goes on where it was interrupted.

The space is YAML: each setting with a list of choices, or with low and high (log: true, step: 0.5):

    optim.lr: {low: 0.1, high: 0.4, log: true}
    train.epochs: {low: 6, high: 10, step: 0.5}
    train.batch_size: [1000, 1536, 2000]
    train.resolutions: [null, [[0.35, 24], [0.7, 28], [1.0, 32]]]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from fastresnet import data
from fastresnet.base import exits, words
from fastresnet.bench.protocol import beside, pareto, reproduce, runlog, search, space
from fastresnet.bench.protocol.runlog import RunLog
from fastresnet.runs.progress import Heartbeat
from fastresnet.series.rows import Row
from fastresnet.settings.command_line import number, parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.overrides import as_words
from fastresnet.settings.rule import Rule

LOG = "trials.jsonl"


def options(parser: argparse.ArgumentParser) -> None:
    """What this command knows beside the settings."""
    add, count = parser.add_argument, number(Rule(kind=int, low=1, high=100_000))
    add("--space", type=Path, required=True, metavar="FILE", help="what is searched, as YAML")
    add("--trials", type=count, default=20, metavar="N", help="draws from the space (20)")
    add("--seeds", type=count, default=4, metavar="K", help="runs of a trial that lasts to the end (4)")
    add("--price", type=number(Rule(kind=float)), default=search.PRICE, metavar="SHARE",
        help=f"accuracy that twice the cost must gain ({search.PRICE})")  # fmt: skip
    add("--target", type=float, metavar="SHARE", help="accuracy to reach, drawn in the picture (eval.target)")
    add("--objective", choices=("seconds", "flops"), default="seconds", help="what costs (seconds)")
    add("--out", type=Path, default=Path("runs/searches"), metavar="DIR", help="folder (runs/searches)")


def main(argv: Sequence[str] | None = None) -> int:
    """Search, print a line a run, a line a trial at the end, and the front's trials as JSON."""
    cfg, asked = parse_args(argv, __doc__ or "", options, default="speed94.yaml")
    target = asked.target if asked.target is not None else cfg.eval.target
    if target is not None and not 0 < target < 1:
        raise ValueError(f"--target must lie between 0 and 1, got {target:g} (a share, not percent)")
    cfg = reproduce.own_settings(cfg)
    tried = search.trials(space.read(asked.space, cfg), asked.trials)
    if _searched(cfg, asked, tried):
        _tell(cfg, tried, asked, target)
    return exits.DONE


def _searched(cfg: Config, asked: argparse.Namespace, tried: list[search.Trial]) -> bool:
    """All rounds; False in all processes but the first, which alone knows all runs."""
    text = asked.space.read_text(encoding="utf-8")
    told = {f"--{name}": value for name, value in vars(asked).items() if name != "out"}

    def said(trial: search.Trial, row: Row) -> None:
        print(words.fitted(pareto.run_line(trial, row), sys.stdout), flush=True)

    with beside.seated(cfg, {**told, "the space": text}) as seat:
        if asked.objective == "seconds" and not seat.timed:
            raise ValueError("--objective=seconds: runs that share a device aren't timed: take flops")
        quiet = cfg.run.progress == "off" or not seat.is_first
        with runlog.claimed(asked.out) if seat.is_first else nullcontext(), Heartbeat(quiet=quiet) as heart:
            splits = data.prepare(cfg, heart.say)
            seat.agree_on(splits.info)
            log = _log(cfg, asked, text, splits) if seat.is_first else None
            under_way = search.Search(seat, splits, tried, log, asked.objective, asked.price, heart.at)
            under_way.run(asked.seeds, said)
        return seat.is_first


def _log(cfg: Config, asked: argparse.Namespace, text: str, splits: data.Splits) -> RunLog:
    header = {
        "recipe": cfg.recipe,
        "config": reproduce.learned(cfg),
        "space": text,
        "objective": asked.objective,
        "data": splits.info["digest"],
    }
    return RunLog(asked.out, header, fixed=search.FIXED, name=LOG)


def _tell(cfg: Config, tried: list[search.Trial], asked: argparse.Namespace, target: float | None) -> None:
    """A line a trial, the picture, and the front: as JSON, or on a terminal in words with what is next."""
    found = search.gains(tried, asked.objective, asked.price)
    picture = pareto.draw(tried, found, target, asked.objective, asked.out / "pareto.png")
    best = sorted(tried, key=lambda trial: -found[trial.number].mean if trial.number in found else 1.0)
    for trial in best:
        print(words.fitted(pareto.trial_line(trial, found.get(trial.number)), sys.stdout))
    front = pareto.front(tried, asked.objective)
    if sys.stdout.isatty():
        who = ", ".join(trial.who for trial in front)
        told = f"front     {who}: nothing is both cheaper and better\npicture   {picture}"
        print(words.fitted(f"{told}\nruns      {asked.out / LOG}", sys.stdout))
        print(_next(cfg, asked.config, best))
        return
    for trial in front:
        facts = {
            "trial": trial.number,
            "accuracy": trial.accuracy(),
            asked.objective: trial.cost(asked.objective),
        }
        print(json.dumps(facts | {"runs": len(trial.rows), "settings": trial.settings}))


def _next(cfg: Config, recipe: str, best: list[search.Trial]) -> str:
    """The command that measures the first of those that lasted to the end; `best`: all, the best first."""
    longest = max(len(trial.rows) for trial in best)
    settings = next(trial.settings for trial in best if len(trial.rows) == longest)
    more = as_words(cfg.asked() | settings)
    return words.then("reproduce", f"--config={recipe}", *more, "--runs=5")
