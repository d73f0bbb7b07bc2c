"""The page of a series, from its folder: its runs beside each other, and what they say together."""

from __future__ import annotations

from pathlib import Path

from fastresnet.reports import finished, runs_page
from fastresnet.series import place, summary


def write(folder: Path) -> Path:
    """Write report.html there. Raises ValueError where it is no series, damaged, or no epoch is finished."""
    made = place.read(folder)
    ended = sorted(made["runs"], key=lambda row: (made["values"].index(row["value"]), row["seed"]))
    paths = [folder / row["name"] for row in ended]
    runs = [finished.read(path) for path in paths if (path / "config.yaml").is_file()]
    return runs_page.write(runs, folder / "report.html", summary.verdict(made))
