"""The page of a run or of a series, built again from its folder, or a page that compares several runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastresnet.base import words
from fastresnet.reports import finished, plots, run_page, runs_page
from fastresnet.runs import record
from fastresnet.series import place
from fastresnet.settings.command_line import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html of one run or series, or a page and a picture of several runs."""
    parser = Parser(__doc__)
    what = "folders of runs or series: one gets its report.html anew"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=what)
    where = "page of several runs, a PNG beside it (default: runs/comparison.html)"
    parser.add_argument("--out", type=Path, default="runs/comparison.html", metavar="HTML", help=where)
    args = parser.parse_args(argv)
    paths = [path for folder in args.runs for path in _runs_of(folder)]
    for path in paths:
        if (path / "result.json").is_file():
            record.read(path / "result.json", "result")
    if len(args.runs) == 1:
        (folder,) = args.runs
        print(place.write_page(folder) if _is_series(folder) else run_page.write(folder))
        return
    runs = [finished.read(path) for path in paths]
    out = runs_page.write(runs, args.out)
    lines = dict(zip(runs_page.names(runs), [run.history for run in runs]))
    picture = plots.compare(lines, out.with_suffix(".png"))
    print(words.fitted(runs_page.text(runs, words.room(sys.stdout)), sys.stdout))
    print(f"\n{out} and {picture}")


def _is_series(folder: Path) -> bool:
    return (folder / place.NAME).exists()


def _runs_of(folder: Path) -> list[Path]:
    """A series' runs, or the one run."""
    if not _is_series(folder):
        return [folder]
    return [folder / row["name"] for row in place.read(folder)["runs"]]
