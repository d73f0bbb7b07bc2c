"""Compare benchmark files: `python benchmarks/compare.py A.json B.json ... [--html FILE] [--md] [--gate 5%]`.

The first file is the base. Ratios are speeds: 2.0 means twice as fast as the base. Differences are told from
noise by what varies from process to process: measure with `fastresnet bench --against OTHER`, which measures
two checkouts in turns (and with `--gate 5%` judges, too), or each for itself with `--processes 5`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastresnet.base import words
from fastresnet.base.files import write_text
from fastresnet.bench.judging import comparison, telling
from fastresnet.bench.judging.comparison import Comparison
from fastresnet.bench.measuring import file
from fastresnet.bench.pages import compare_page
from fastresnet.settings.command_line import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables, write pages, and with --gate exit 1 where a case became slower beyond noise."""
    options = parse(argv)
    files = [file.read(path) for path in options.files]
    compared = comparison.compare(files, comparison.names(files, options.files))
    if options.json:
        print(json.dumps(telling.as_data(compared), indent=1, ensure_ascii=False, allow_nan=False))
    elif options.md:
        print(telling.table(compared, markdown=True))
    elif not options.html or sys.stdout.isatty():
        print(words.fitted(telling.table(compared, width=words.room(sys.stdout)), sys.stdout))
    if options.html:
        write_text(options.html, compare_page.render(compared))
        _say(f"written: {options.html}")
    return gate(compared, options.gate) if options.gate is not None else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises ConfigError for a wrong one."""
    given = Parser(__doc__)
    add = given.add_argument
    add("files", nargs="+", metavar="FILE", help="benchmark files; the first is the base")
    add("--html", type=Path, metavar="FILE", help="write one self-contained page")
    add("--md", action="store_true", help="tables as Markdown")
    add("--json", action="store_true", help="the comparison as JSON")
    add("--gate", type=share, metavar="5%%", help="exit 1 where a case is slower by more, beyond noise")
    options = given.parse_args(argv)
    if options.gate is not None and len(options.files) < 2:
        given.error("--gate needs a base and another file (fastresnet bench --gate 5% measures both)")
    return options


def share(text: str) -> float:
    """`5%` or `0.05` -> 0.05."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0% and 100% (0.05 means 5%)")
    return value


def gate(compared: Comparison, allowed: float) -> int:
    """1, with a line for each case slower than the base by more than `allowed` beyond noise; else 0."""
    failed, judged = comparison.gate(compared, allowed)
    for slow in failed:
        r = slow.ratio
        interval = f"{r.ratio:.3f}x [{r.low:.3f}, {r.high:.3f}]"
        _say(f"slower: {slow.label}: {slow.case} runs at {interval} of the base")
    limit, planned = f"{100 * allowed:g} %", len(compared.cases) * (len(compared.files) - 1)
    others = f", {planned - judged} not judged" if planned > judged else ""
    _say(f"gate {limit}: {len(failed)} of {judged} cases slower beyond noise{others}")
    return 1 if failed else 0


def _say(line: str) -> None:
    print(words.fitted(line, sys.stderr), file=sys.stderr)
