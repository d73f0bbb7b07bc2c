"""What the operating system tells in small files and through its commands; nothing where it is silent."""

from __future__ import annotations

import subprocess
from pathlib import Path


def lines(path: Path) -> list[str]:
    """The lines of a small system file; none where it can't be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def output(*command: str | Path) -> str:
    """What a command prints; nothing where there is no such command, it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
