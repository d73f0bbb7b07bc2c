"""Search for faster recipes. See fastresnet/bench/commands/search.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout's own package, installed or not

from fastresnet.__main__ import run

if __name__ == "__main__":
    sys.exit(run("search"))
