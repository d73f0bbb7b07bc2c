"""Render all committed results and records to docs/index.html and the tables of README.md.

`--check` writes nothing and exits 1 where the page or a table is not what the files say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastresnet.base import files
from fastresnet.bench import places
from fastresnet.bench.pages import leaderboard
from fastresnet.settings.command_line import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Render, or with --check compare."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where docs/index.html or README.md is stale"
    )
    parser.add_argument("--root", type=Path, default=places.ROOT, help="the repository")
    options = parser.parse_args(argv)
    rendered = leaderboard.rendered(options.root)
    stale = [path for path, text in rendered.items() if not path.is_file() or path.read_text("utf-8") != text]
    if options.check:
        for path in stale:
            print(f"stale: {path} (run python benchmarks/leaderboard.py)", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        files.write_text(path, rendered[path])
    print(f"{len(stale)} files changed")
    return 0
