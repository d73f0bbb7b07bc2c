"""Train: `fastresnet train --config rn18.yaml --section.key=value`; `--help` lists every setting."""

from __future__ import annotations

from collections.abc import Sequence

from fastresnet.runs import record, start
from fastresnet.settings.command_line import parse_args


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says; the last line on standard output is the run's record as JSON."""
    cfg, _ = parse_args(argv, __doc__)
    result = start.train(cfg).record
    if result:  # empty in all processes but the first
        print(record.dumps(result), flush=True)
