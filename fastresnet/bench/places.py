"""Where results and records lie: in the checkout that holds the package, else below the working directory."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_IN_CHECKOUT = (_CHECKOUT / "benchmarks" / "results").is_dir()
ROOT = _CHECKOUT if _IN_CHECKOUT else Path.cwd()
BENCHMARKS = ROOT / ("benchmarks" if _IN_CHECKOUT else "runs/benchmarks")
RESULTS = BENCHMARKS / "results"
RECORDS = BENCHMARKS / "records"
UNFINISHED_RECORDS = ROOT / "runs" / "records"  # git ignores it
