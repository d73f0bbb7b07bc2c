"""The page of a run, built again from its folder, or a page that compares several runs."""

from pathlib import Path

from fastresnet import comparison, plots, report
from fastresnet.arguments import Parser
from fastresnet.cli import run_main


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
        print(report.write(args.runs[0]))
        return
    runs = [report.read(path) for path in args.runs]
    out = comparison.write(runs, args.out)
    picture = plots.compare({run.name: run.history for run in runs}, Path(out).with_suffix(".png"))
    print(comparison.text(runs))
    print(f"\n{out} and {picture}")


if __name__ == "__main__":
    run_main(main)
