"""Find a learning rate: a range test with the recipe's model and data, its picture, and a recipe with it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from fastresnet.base import files, words
from fastresnet.reports import plots
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings import config
from fastresnet.settings.command_line import number, parse_args, picture
from fastresnet.settings.config import Config
from fastresnet.settings.overrides import as_words
from fastresnet.settings.rule import Rule
from fastresnet.training import lr_finder
from fastresnet.training.experiment import Experiment

RATE = number(Rule(kind=float, above=0))


def options(parser: argparse.ArgumentParser) -> None:
    """What this command takes beside the settings."""
    add = parser.add_argument
    add("--low", type=RATE, metavar="RATE", help="first rate (default: 1e-4, for Adam 1e-6)")
    add("--high", type=RATE, metavar="RATE", help="last rate (default: 10, for Adam 1)")
    steps = number(Rule(kind=int, low=10, high=10_000))
    add("--steps", type=steps, default=100, metavar="N", help="steps of the test (default: 100)")
    where = "the picture (default: runs/lr_finder.png)"
    add("--plot", type=picture, default="runs/lr_finder.png", metavar="PNG", help=where)
    add("--apply", type=Path, metavar="YAML", help="write a recipe that trains with it and OneCycle")
    which = "which suggestion --apply takes as OneCycle's peak (default: valley)"
    add("--use", choices=lr_finder.SUGGESTIONS, default="valley", help=which)
    add("--json", action="store_true", help="print the whole test as JSON and nothing else")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the test; draw it, print what it suggests, and write the recipe that --apply asks for."""
    cfg, args = parse_args(argv, __doc__, options)
    if args.apply and args.apply.exists():
        raise ValueError(f"--apply={args.apply}: there is such a file already; name another")
    result = _tested(cfg, args)
    plots.lr_finder(result.rates, result.losses, result.smoothed, result.suggestions, args.plot)
    if args.apply:
        write_recipe(args.apply, cfg, args.config, result.suggestions[args.use], args.use)
    if args.json:
        print(json.dumps({**vars(result), "plot": str(args.plot)}))
        return
    last = f"{result.rates[-1]:.2g}"
    ended = f"stopped at {last}, where the loss diverged" if result.diverged else "no divergence"
    print(f"{len(result.rates)} steps from {result.rates[0]:.2g} to {last}: {ended}")
    for name, rate in result.suggestions.items():
        print(f"{name:<12}{rate:10.3g}   --optim.lr={rate:.3g}")
    print(f"picture {args.plot}" + (f", recipe {args.apply}" if args.apply else ""))
    if sys.stdout.isatty():
        print(_next(cfg, args, result.suggestions[args.use]))


def _tested(cfg: Config, args: argparse.Namespace) -> lr_finder.RangeTest:
    """The range test, which says where it stands while it lasts."""
    with Heartbeat(quiet=cfg.run.progress == "off") as heart:
        experiment = Experiment(cfg, notes=heart.at)
        experiment.initialise()

        def told(step: int, rate: float, loss: float) -> None:
            heart.at(f"step {step + 1} of {args.steps}: rate {rate:.2g}, loss {loss:.3f}")

        try:
            return lr_finder.range_test(
                experiment, low=args.low, high=args.high, steps=args.steps, on_step=told
            )
        finally:
            experiment.close()


def _next(cfg: Config, args: argparse.Namespace, rate: float) -> str:
    """The command that trains with the rate found."""
    if args.apply:
        return words.then("train", f"--config={args.apply}")
    settings = cfg.asked() | {"optim.lr": float(f"{rate:.3g}")}
    return words.then("train", f"--config={args.config}", *as_words(settings))


def write_recipe(path: Path, cfg: Config, base: str, rate: float, name: str) -> None:
    """A recipe on top of `base`, with what the command line changed, the rate found, and OneCycle.

    Rates of biases and of the head keep their proportion to optim.lr.
    """
    given = cfg.asked()
    factor = float(f"{rate:.3g}") / cfg.optim.lr
    rates = {"optim.lr": cfg.optim.lr, "optim.lr_bias": cfg.optim.lr_bias, "optim.lr_head": cfg.optim.lr_head}
    given |= {key: float(f"{value * factor:.4g}") for key, value in rates.items() if value is not None}
    given["schedule.name"] = "onecycle"
    sections: dict[str, dict[str, object]] = {}
    for key, value in given.items():
        section, _, setting = key.partition(".")
        sections.setdefault(section, {})[setting] = value
    below = os.path.relpath(base, path.parent) if Path(base).is_file() else base
    head = f"# {cfg.recipe} with a learning rate from the range test ({name}) and OneCycle\n"
    files.write_text(path, head + yaml.safe_dump({"base": below, **sections}, sort_keys=False))
    config.load(path)
