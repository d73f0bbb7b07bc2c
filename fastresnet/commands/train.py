"""Train: `fastresnet train --config rn18.yaml --section.key=value`; `--help` lists every setting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastresnet.runs import record, start
from fastresnet.settings.command_line import parse_args


def _options(parser: argparse.ArgumentParser) -> None:
    told = "end with the run's record as one line of JSON on a terminal too, as elsewhere"
    parser.add_argument("--json", action="store_true", help=told)


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says; where standard output is no terminal, its last line is the record."""
    cfg, args = parse_args(argv, __doc__, _options)
    run = start.train(cfg)
    if run.record is None:  # in all processes but the first
        return
    in_words = sys.stdout.isatty() and not args.json
    print(record.ending(run.record, run.dir) if in_words else record.dumps(run.record), flush=True)
