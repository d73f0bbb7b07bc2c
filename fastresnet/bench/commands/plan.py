"""Sizing: `python benchmarks/plan.py --gpu H100 --config rn18.yaml` predicts time and memory of a run.

`--gpu FILE.json` takes the ceilings that a benchmark file measured instead of published peaks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastresnet.base import words
from fastresnet.bench import places
from fastresnet.bench.judging import costs, machines, plan
from fastresnet.bench.measuring import file
from fastresnet.settings.command_line import at_least_one, parse_args


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction, and how well predictions of this kind fit the committed results."""
    cfg, options = parse_args(argv, description=__doc__ or "", extra=_options)
    machine = machines.find(options.gpu)
    measured = [file.read(path) for path in sorted(places.RESULTS.glob("*.json"))]
    share = plan.share_for(machine.kind, measured)
    precision = plan.precision_for(cfg, machine)
    expected = plan.predict(cfg, machine, precision, share.usual, options.images)
    floor = plan.floor_told(cfg, machine, precision, expected, costs.of(cfg, precision, options.images))
    told = plan.told(cfg, machine, expected, floor, share, plan.errors(measured))
    print(words.fitted("\n".join(told), sys.stdout))
    return 0


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", required=True, help=f"{machines.KNOWN}, or a benchmark file")
    told = "training images (default: CIFAR-10's)"
    parser.add_argument("--images", type=at_least_one, default=costs.TRAIN, help=told)
