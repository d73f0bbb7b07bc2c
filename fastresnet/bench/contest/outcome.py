"""What a contest came to: a table, the targets hit and missed, a picture. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from fastresnet.base import words
from fastresnet.bench.contest.contestants import Row
from fastresnet.reports import plots

HEAD = ("loader", "images/s", "p20", "p80", "n", "first s", "cores", "per cpu s", "MiB")
# resident at least so many times the rival
CPU_TARGETS = (("ffcv", 4.0), ("torchvision", 20.0))
# images/s, and times the fastest rival
GPU_TARGET, GPU_RATIO = 100e6, 10.0
# seconds, imports apart
FIRST_BATCH_TARGET = 2.0


class Verdict(TypedDict):
    """A target, what was reached of it, and whether that is enough."""

    target: str
    reached: float
    hit: bool


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """Aligned lines, a contestant each, within a terminal's width if it is told; then who couldn't run."""
    lines = words.columns([HEAD, *filter(None, map(_cells, rows))], range(1, len(HEAD)), width=width)
    return "\n".join(lines + [f"{row['name']}: {row['status']}" for row in rows if not _cells(row)])


def _cells(row: Row) -> list[str]:
    speed = row["images_per_second"]
    if speed is None:
        return []
    rates = [f"{rate:,.0f}" for rate in (speed["median"], speed["p20"], speed["p80"])]
    used = [
        f"{row['host_cpu_cores']:.2f}",
        f"{row['images_per_cpu_second']:,.0f}",
        f"{row['memory_mib']:.0f}",
    ]
    return [row["name"], *rates, str(speed["n"]), f"{row['first_batch_seconds']:.2f}", *used]


def verdicts(rows: Sequence[Row], device: str) -> list[Verdict]:
    """Each target with what was reached; none where no resident loader ran."""
    speeds = {row["name"]: q["median"] for row in rows if (q := row["images_per_second"]) is not None}
    best = next((row for row in rows if row["name"] in speeds and row["name"].startswith("resident")), None)
    if best is None:
        return []
    goals = _gpu_goals(rows, speeds, best) if device == "cuda" else _cpu_goals(speeds, best)
    if "stream" in speeds and (ffcv := _fastest(speeds, "ffcv")):
        goals.append(("stream no slower than ffcv", speeds["stream"] / ffcv, 1.0))
    found: list[Verdict] = [
        {"target": text, "reached": reached, "hit": reached >= goal} for text, reached, goal in goals
    ]
    first = best["first_batch_seconds"] or 0.0
    text = f"first batch within {FIRST_BATCH_TARGET:g} s"
    return [*found, {"target": text, "reached": first, "hit": first <= FIRST_BATCH_TARGET}]


def _cpu_goals(speeds: dict[str, float], best: Row) -> list[tuple[str, float, float]]:
    ours = speeds[best["name"]]
    return [
        (f"{best['name']} at least {ratio:g} times {rival}", ours / theirs, ratio)
        for rival, ratio in CPU_TARGETS
        if (theirs := _fastest(speeds, rival))
    ]


def _fastest(speeds: dict[str, float], rival: str) -> float | None:
    """Of a rival that ran in several ways."""
    return max((speed for name, speed in speeds.items() if name.split()[0] == rival), default=None)


def _gpu_goals(rows: Sequence[Row], speeds: dict[str, float], best: Row) -> list[tuple[str, float, float]]:
    """By the batch that training uses, and by an epoch at once."""
    names = [name for name in speeds if name.startswith(best["name"])]
    goals = [(f"{name} at least {GPU_TARGET:,.0f} images/s", speeds[name], GPU_TARGET) for name in names]
    rivals = [speeds[row["name"]] for row in rows if row["name"] in speeds and not row["ours"]]
    if rivals:
        ratio = speeds[best["name"]] / max(rivals)
        goals.append((f"at least {GPU_RATIO:g} times the fastest rival", ratio, GPU_RATIO))
    return goals


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """A bar a contestant on a logarithmic axis, with the 20th to 80th percentile."""
    shown = [(row, q) for row in rows if (q := row["images_per_second"]) is not None][::-1]
    middle = [q["median"] for _, q in shown]
    spread = [[q["median"] - q["p20"] for _, q in shown], [q["p80"] - q["median"] for _, q in shown]]
    colors = ["tab:blue" if row["ours"] else "tab:gray" for row, _ in shown]
    limits = (min(middle) / 2, max(middle) * 6)
    with plots.drawing(path, 7, 0.5 * len(shown) + 1.4) as figure:
        axes = figure.add_subplot()
        bars = axes.barh([row["name"] for row, _ in shown], middle, xerr=spread, color=colors)
        axes.bar_label(bars, [f" {value:,.0f}" for value in middle])
        axes.set(xscale="log", xlabel="augmented images a second", title=title, xlim=limits)
