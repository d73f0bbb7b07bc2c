"""The page of a run, built again from its folder, or a page that compares several runs."""

from pathlib import Path

from fastresnet.reports import finished, plots, run_page, runs_page
from fastresnet.settings.command_line import Parser


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs: one gets its report.html anew"
    )
    parser.add_argument(
        "--out", default="comparison.html", metavar="HTML", help="page of several runs (a PNG beside it)"
    )
    args = parser.parse_args()
    if len(args.runs) == 1:
        print(run_page.write(args.runs[0]))
        return
    runs = [finished.read(path) for path in args.runs]
    out = runs_page.write(runs, args.out)
    picture = plots.compare({run.name: run.history for run in runs}, Path(out).with_suffix(".png"))
    print(runs_page.text(runs))
    print(f"\n{out} and {picture}")
