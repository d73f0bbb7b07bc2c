"""Train: `fastresnet train --config rn18.yaml --section.key=value`; `--help` lists every setting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastresnet.base import exits
from fastresnet.reports import telling
from fastresnet.runs import record, start
from fastresnet.series import summary
from fastresnet.series.plan import COUNT
from fastresnet.series.running import train_series
from fastresnet.settings.command_line import number, parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.overrides import swept


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    told = "end with the run's record as one line of JSON on a terminal too, as elsewhere"
    add("--json", action="store_true", help=told)
    told = "so many runs, with seeds 0 to N-1, and what they say together; the same command goes on"
    add("--seeds", type=number(COUNT), metavar="N", help=told)
    told = "runs for each value of one setting (optim.lr=0.05,0.1,0.2), with all --seeds, compared in pairs"
    add("--sweep", action="append", metavar="KEY=A,B,...", help=told)


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; where standard output is no terminal, its last line is the record."""
    cfg, args = parse_args(argv, __doc__, _options)
    in_words = sys.stdout.isatty() and not args.json
    if args.seeds is not None or args.sweep is not None:
        return _several(cfg, args, in_words)
    run = start.train(cfg)
    if run.record is not None:  # it is None in all processes but the first
        print(telling.ending(run.record, run.dir) if in_words else record.dumps(run.record), flush=True)
    return exits.DONE


def _several(cfg: Config, args: argparse.Namespace, in_words: bool) -> int:
    """A series, as `--seeds` and `--sweep` say; it failed where each value has a run that did."""
    if args.sweep is not None and len(args.sweep) > 1:
        raise ValueError(f"--sweep: one setting at a time, got {' and '.join(args.sweep)}")
    sweep = None if args.sweep is None else swept(args.sweep[0])
    done = train_series(cfg, seeds=args.seeds, sweep=sweep)
    print(summary.ending(done.record, done.dir) if in_words else record.dumps(done.record), flush=True)
    return exits.FAILED if all(group["failed"] for group in done.record["groups"]) else exits.DONE
