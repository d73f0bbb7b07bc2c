"""Train: `python scripts/train.py --config rn18.yaml --section.key=value`; `--help` lists every setting."""

from __future__ import annotations

import sys

from fastresnet import cli, config, record, run


def main() -> None:
    """Train as the command line says; the last line on standard output is the run's record as JSON."""
    cfg, _ = config.parse_args(description=__doc__ or "")
    result = run.train(cfg).record
    if result:  # empty in all processes but the first
        print(record.dumps(result), flush=True)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
