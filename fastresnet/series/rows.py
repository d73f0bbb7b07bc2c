"""What one run leaves, a row, and what all rows together say: mean, spread and whether the target is met.

Refuses to leave a run out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

from fastresnet.base import statistics, words

Reading = Literal["load_1min", "clock_mhz", "power_watts", "temperature_celsius", "runs_at_once"]
SIGNIFICANT = 0.01  # a target counts as met below this p-value


class Row(TypedDict, total=False):
    """One run.

    accuracy, accuracy_tta:  shares; the one that decides is on the clock, None where there is none
    seconds:                 of init, augment (CPU only), train, eval; total is the whole clock
    message:                 why it failed
    flops, settings:         of a search's run: its training FLOPs, and what was drawn
    condition:               the machine's state right after it, and how many runs were under way side by side
    clock:                   of a rival's run: its own, or the whole call
    """

    seed: int
    status: Literal["ok", "failed"]
    message: str
    accuracy: float | None
    accuracy_tta: float | None
    seconds: dict[str, float | None]
    energy_joules: float | None
    mfu: float | None
    flops: float
    clock: str
    settings: dict[str, Any]
    condition: Mapping[str, Any]


class Summary(TypedDict):
    """Over `n` runs that ended, beside `failed` ones; std of one run, ci95 half the mean's interval."""

    n: int
    failed: int
    accuracy_used: str
    mean: float | None
    std: float | None
    ci95: float | None
    p_value: float | None
    target_met: bool | None
    seconds_mean: float | None
    seconds_std: float | None
    seconds_ci95: float | None


def accuracy_of(row: Row) -> float:
    """The accuracy that decides; 0 for a failed run."""
    if row["status"] == "failed":
        return 0.0
    deciding = row["accuracy_tta"] if row["accuracy_tta"] is not None else row["accuracy"]
    return float(deciding or 0.0)


def summarise(
    rows: Sequence[Row],
    target: float | None,
    planned: int | None = None,
    *,
    clock: str = "total",
    resolution: float = 0.0,
) -> Summary:
    """The summary of all rows; the accuracy is the one on the clock, with TTA where there is any.

    clock:       which of a row's seconds count
    resolution:  what accuracies are multiples of, an image's share of the test set: runs that agree more
                 closely than that say nothing of how runs differ

    The target is met when all planned runs are done, none failed, and the one-sided t test of the mean says
    p < 0.01. None: not judged, as runs are missing, or one run reached it, which proves nothing.
    """
    ended = [row for row in rows if row["status"] == "ok"]
    used: Literal["accuracy", "accuracy_tta"] = "accuracy"
    if any(row["accuracy_tta"] is not None for row in ended):
        used = "accuracy_tta"
    accuracy = _known(row[used] for row in ended)
    seconds = _known(row["seconds"][clock] for row in ended)
    p_value = None
    if target is not None and len(accuracy) > 1:
        p_value = statistics.p_value_mean_above(accuracy, target, resolution)
    failed = len(rows) - len(ended)
    mean, std, ci95 = statistics.spread(accuracy, resolution)
    seconds_mean, seconds_std, seconds_ci95 = statistics.spread(seconds)
    return {
        "n": len(ended),
        "failed": failed,
        "accuracy_used": used,
        "mean": mean,
        "std": std,
        "ci95": ci95,
        "p_value": p_value,
        "target_met": _met(accuracy, target, p_value, failed) if len(rows) >= (planned or 0) else None,
        "seconds_mean": seconds_mean,
        "seconds_std": seconds_std,
        "seconds_ci95": seconds_ci95,
    }


def _met(accuracy: list[float], target: float | None, p_value: float | None, failed: int) -> bool | None:
    if target is None:
        return None
    if failed or not accuracy:  # a rival may tell none
        return False if failed else None
    if p_value is None:
        return None if accuracy[0] >= target else False
    return p_value < SIGNIFICANT


def judgement(summary: Summary, target: float, planned: int | None = None) -> str:
    """Whether the target was met, in words: `met, p=0.0018`, `not met: 2 of 5 runs failed`."""
    n, failed, p_value, mean = summary["n"], summary.get("failed", 0), summary["p_value"], summary["mean"]
    if failed:
        return f"not met: {failed} of {n + failed} runs failed"
    if n < (planned or 0):
        return f"not judged: {n} of {planned} runs done"
    if p_value is None:
        return "not judged" if mean is None else f"{'reached' if mean >= target else 'missed'} in one run"
    return f"{'met' if p_value < SIGNIFICANT else 'not met'}, {words.chance(p_value)}"


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the known values, None where there is none."""
    known = _known(values)
    return sum(known) / len(known) if known else None


def conditions(rows: Sequence[Row]) -> dict[str, Any]:
    """Over all runs: every throttle reason seen, and the range of each reading."""
    seen = [row["condition"] for row in rows if "condition" in row]
    ranges: dict[str, Any] = {}
    for name in get_args(Reading):
        values = _known(one.get(name) for one in seen)
        if values:
            ranges[name] = [min(values), max(values)]
    known = [reasons for one in seen if (reasons := one.get("throttle")) is not None]
    return {**ranges, "throttle": sorted({reason for some in known for reason in some}) if known else None}


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
