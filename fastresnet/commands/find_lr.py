"""Find a learning rate: a range test with the recipe's model, optimizer and data, its picture, and a recipe
with it."""

import argparse
import json
import os
from pathlib import Path

import yaml

from fastresnet.base import files
from fastresnet.reports import plots
from fastresnet.settings import config
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.keys import COMMAND_LINE
from fastresnet.training import lr_finder
from fastresnet.training.experiment import Experiment


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--low", type=float, metavar="RATE", help="first rate (default: 1e-4, for Adam 1e-6)")
    parser.add_argument("--high", type=float, metavar="RATE", help="last rate (default: 10, for Adam 1)")
    parser.add_argument(
        "--steps", type=int, default=100, metavar="N", help="steps of the test (default: 100)"
    )
    parser.add_argument(
        "--plot", default="lr_finder.png", metavar="PNG", help="the picture (default: lr_finder.png)"
    )
    parser.add_argument("--apply", metavar="YAML", help="write a recipe that trains with it and OneCycle")
    parser.add_argument(
        "--use",
        choices=lr_finder.SUGGESTIONS,
        default="valley",
        help="which suggestion --apply takes as OneCycle's peak (default: valley)",
    )
    parser.add_argument("--json", action="store_true", help="print the whole test as JSON and nothing else")


def main() -> None:
    cfg, args = parse_args(None, __doc__, options)
    if args.apply and Path(args.apply).exists():
        raise ValueError(f"--apply={args.apply}: there is such a file already; name another")
    experiment = Experiment(cfg)
    experiment.initialise()
    try:
        result = lr_finder.range_test(experiment, low=args.low, high=args.high, steps=args.steps)
    finally:
        experiment.close()
    plots.lr_finder(result.rates, result.losses, result.smoothed, result.suggestions, args.plot)
    if args.apply:
        write_recipe(Path(args.apply), cfg, args.config, result.suggestions[args.use], args.use)
    if args.json:
        print(json.dumps({**vars(result), "plot": args.plot}))
        return
    ended = (
        f"stopped at {result.rates[-1]:.2g}, where the loss diverged" if result.diverged else "no divergence"
    )
    print(f"{len(result.rates)} steps from {result.rates[0]:.2g} to {result.rates[-1]:.2g}: {ended}")
    for name, rate in result.suggestions.items():
        print(f"{name:<12}{rate:10.3g}   --optim.lr={rate:.3g}")
    print(f"picture {args.plot}" + (f", recipe {args.apply}" if args.apply else ""))


def write_recipe(path: Path, cfg: Config, base: str, rate: float, name: str) -> None:
    """A recipe on top of `base`, with what the command line changed, the rate found, and OneCycle."""
    given = {key: value for key, value in cfg.flat().items() if cfg.provenance[key] == COMMAND_LINE}
    factor = float(f"{rate:.3g}") / cfg.optim.lr
    rates = {"optim.lr": cfg.optim.lr, "optim.lr_bias": cfg.optim.lr_bias, "optim.lr_head": cfg.optim.lr_head}
    given |= {key: float(f"{value * factor:.4g}") for key, value in rates.items() if value is not None}
    given |= {"schedule.name": "onecycle"}
    nested: dict = {"base": os.path.relpath(base, path.parent) if Path(base).is_file() else base}
    for key, value in given.items():
        section, _, setting = key.partition(".")
        nested.setdefault(section, {})[setting] = value
    head = f"# {cfg.recipe} with a learning rate from the range test ({name}) and OneCycle\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, head + yaml.safe_dump(nested, sort_keys=False))
    config.load(path)
