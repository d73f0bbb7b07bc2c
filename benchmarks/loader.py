"""Time the loaders against each other. See fastresnet/bench/commands/loaders.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout's own package, installed or not

from fastresnet.base.exits import run_main
from fastresnet.bench.commands.loaders import main

if __name__ == "__main__":
    run_main(main)
