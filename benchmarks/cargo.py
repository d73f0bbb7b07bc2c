"""Pack what a lent machine lacks, and unpack it there. See fastresnet/bench/commands/cargo.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout's own package, installed or not

from fastresnet.base.exits import exit_code
from fastresnet.bench.commands.cargo import main

if __name__ == "__main__":
    sys.exit(exit_code(main))
