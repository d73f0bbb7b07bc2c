"""Where results and records lie: in the checkout that holds the package, else below the working directory."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "benchmarks" / "results").is_dir() else Path.cwd()
RESULTS = ROOT / "benchmarks" / "results"
RECORDS = ROOT / "benchmarks" / "records"
UNFINISHED_RECORDS = ROOT / "runs" / "records"  # git ignores it
