"""The page of a run, built again from its folder, or a page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastresnet.reports import finished, plots, run_page, runs_page
from fastresnet.settings.command_line import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html of one run, or a page and a picture of several."""
    parser = Parser(description=__doc__)
    what = "folders of runs: one gets its report.html anew"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=what)
    where = "page of several runs, a PNG beside it (default: runs/comparison.html)"
    parser.add_argument("--out", type=Path, default="runs/comparison.html", metavar="HTML", help=where)
    args = parser.parse_args(argv)
    if len(args.runs) == 1:
        print(run_page.write(args.runs[0]))
        return
    runs = [finished.read(path) for path in args.runs]
    out = runs_page.write(runs, args.out)
    picture = plots.compare({run.name: run.history for run in runs}, out.with_suffix(".png"))
    print(runs_page.text(runs))
    print(f"\n{out} and {picture}")
