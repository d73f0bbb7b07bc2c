"""What the runs of a series say together: each value's mean and spread, and if the best is beyond chance.

Numbers in, numbers and words out; reads and writes no file.
"""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

from fastresnet.base import statistics, strict_yaml, words
from fastresnet.data import Info
from fastresnet.machine import hardware
from fastresnet.machine.devices import choose_device
from fastresnet.machine.hardware import Circumstances
from fastresnet.reports.finished import Result
from fastresnet.runs import record
from fastresnet.series.plan import Member, Plan
from fastresnet.series.rows import Row, Summary, accuracy_of, judgement, summarise

BY_CHANCE = 0.05  # a value is ahead of another beyond chance below this p-value


class Ran(Row, total=False):
    """One run; `name` is its folder inside the series', `value` that of the swept setting."""

    name: str
    value: object
    images_per_second: float | None


class Group(Summary):
    """The runs with one value of the swept setting, None without one; seconds are of training alone."""

    value: object


class Over(TypedDict):
    """What the best value is ahead of another by; see schemas/series.schema.json."""

    value: object
    gain: float
    p_value: float | None


class SeriesResult(Circumstances):
    """What series.json holds; schemas/series.schema.json says it field by field."""

    schema_version: int
    kind: str
    recipe: str
    config: dict[str, dict[str, object]]
    setting: str | None
    values: list[object]
    seeds: list[int]
    target: float | None
    runs_planned: int
    runs: list[Ran]
    groups: list[Group]
    summary: Group
    over: list[Over]
    data: Info
    device: str


def row_of(member: Member, result: Result | None, message: str = "") -> Ran:
    """A run by its record; one without, which failed, by what it said."""
    row: Ran = {
        "name": member.name,
        "seed": member.seed,
        "value": member.value,
        "status": "ok",
        "accuracy": None,
        "accuracy_tta": None,
        "seconds": {"train": None},
        "images_per_second": None,
    }
    if result is None:
        row["status"], row["message"] = "failed", message
        return row
    row["accuracy"], row["accuracy_tta"] = result["accuracy"]["test"], result["accuracy"]["test_tta"]
    row["seconds"] = cast(dict[str, float | None], dict(result["seconds"]))
    row["images_per_second"] = result["images_per_second"]
    return row


def assemble(plan: Plan, rows: Sequence[Ran], data: Info) -> SeriesResult:
    """The series so far; `data`: what its runs are trained and tested on."""
    by_value = [[row for row in rows if row["value"] == value] for value in plan.values]
    resolution = 1 / data["test_size"]
    groups = [_group(plan, value, some, resolution) for value, some in zip(plan.values, by_value)]
    first = max(range(len(groups)), key=lambda index: _rank(groups[index]))
    return {
        "schema_version": record.SCHEMA_VERSION,
        "kind": "series",
        "recipe": plan.cfg.recipe,
        "config": plan.cfg.to_dict(),
        "setting": plan.key,
        "values": list(plan.values),
        "seeds": list(plan.seeds),
        "target": plan.cfg.eval.target,
        "runs_planned": len(plan.seeds) * len(plan.values),
        "runs": list(rows),
        "groups": groups,
        "summary": groups[first],
        "over": _over(by_value, first, resolution),
        "data": data,
        "device": choose_device(plan.cfg.run.device).type,
        **hardware.circumstances(),
    }


def _group(plan: Plan, value: object, rows: Sequence[Ran], resolution: float) -> Group:
    target, planned = plan.cfg.eval.target, len(plan.seeds)
    return {**summarise(rows, target, planned, clock="train", resolution=resolution), "value": value}


def _rank(group: Group) -> tuple[bool, float]:
    """A value with a failed run comes after all that are whole: its mean leaves that run out."""
    return not group["failed"], -1.0 if group["mean"] is None else group["mean"]


def _over(by_value: Sequence[Sequence[Ran]], first: int, resolution: float) -> list[Over]:
    """What the first is ahead of each other value by, seed by seed.

    The best was chosen after the runs, so p-values are multiplied by the number of pairs (Bonferroni).
    """
    ended = [{row["seed"]: accuracy_of(row) for row in some if row["status"] == "ok"} for some in by_value]
    pairs = math.comb(len([some for some in ended if some]), 2)
    found: list[Over] = []
    for index, other in enumerate(ended):
        both = sorted(ended[first].keys() & other.keys())
        if index == first or not both:
            continue
        ours, theirs = ([some[seed] for seed in both] for some in (ended[first], other))
        gain = sum(ours) / len(both) - sum(theirs) / len(both)
        p_value = statistics.p_value_paired(ours, theirs, resolution) if len(both) > 1 else None
        bounded = None if p_value is None else min(1.0, pairs * p_value)
        found.append({"value": by_value[index][0]["value"], "gain": gain, "p_value": bounded})
    return found


# ---- in words ----------------------------------------------------------------------------------------------


def told(made: SeriesResult, value: object) -> str:
    """`optim.lr=0.1`."""
    return f"{made['setting']}={strict_yaml.write(value)}"


def verdict(made: SeriesResult) -> str:
    """What the series says, in a sentence or two."""
    best, over = made["summary"], made["over"]
    if best["mean"] is None:
        return "no run ended: nothing is known"
    accuracy = words.percent(best["mean"], best["std"])
    if made["setting"] is None:
        return f"{accuracy} (mean ± sd, n={best['n']}{_interval(best)})"
    said = f"best {told(made, best['value'])}: {accuracy}, n={best['n']}"
    if not over or any(one["p_value"] is None for one in over):
        return f"{said}. One seed tells nothing about chance: add --seeds=3"
    clear = [one for one in over if cast(float, one["p_value"]) < BY_CHANCE]
    open_ = [one for one in over if one not in clear]
    parts = [f"beyond chance over {_list(clear)}"] if clear else []
    parts += [f"not beyond chance over {_list(open_)}: more seeds can tell"] if open_ else []
    return f"{said}. Paired by seed it is {'; '.join(parts)}"


def _interval(group: Group) -> str:
    return "" if group["ci95"] is None else f"; the mean's 95 % interval ±{100 * group['ci95']:.2f}"


def _list(some: Sequence[Over]) -> str:
    told = [(strict_yaml.write(one["value"]), 100 * one["gain"], cast(float, one["p_value"])) for one in some]
    return ", ".join(f"{value} ({gain:+.2f} points, {words.chance(p)})" for value, gain, p in told)


def table(made: SeriesResult) -> list[str]:
    """A line a value, the best first: `0.1   85.20 ±0.14 %   n=2   71 ±1 s`, within 80 columns."""
    ranked = sorted(made["groups"], key=_rank, reverse=True)
    names = [strict_yaml.write(group["value"])[:28] for group in ranked]
    width = max(map(len, [str(made["setting"]), *names]))
    lines = [f"{made['setting']!s:<{width}}  accuracy ± sd      runs  training ± sd"]
    for name, group in zip(names, ranked):
        runs = f"{group['n']}" + (f" and {group['failed']} failed" if group["failed"] else "")
        accuracy = words.percent(group["mean"], group["std"])
        seconds = words.seconds(group["seconds_mean"], group["seconds_std"])
        lines.append(f"{name:<{width}}  {accuracy:<17}  {runs:<4}  {seconds}")
    return lines


def ending(made: SeriesResult, folder: Path) -> str:
    """The series for a person at a terminal, as reports.telling tells a run."""
    best, target, sweep = made["summary"], made["target"], made["setting"] is not None
    lines = ["", *table(made), ""] if sweep else [""]
    said = f"accuracy  {verdict(made)}"
    lines.append(textwrap.fill(said, 80, subsequent_indent=" " * 10, break_on_hyphens=False))
    if target is not None and not sweep:  # the best of several was chosen: no test of it is fair
        met = judgement(best, target, len(made["seeds"]))
        lines.append(f"target    {words.percent(target)}: {met}")
    lines.append(f"time      {words.seconds(best['seconds_mean'], best['seconds_std'])} of training a run")
    lines.append(f"runs      {folder}{_failures(made)}")
    page = folder / "report.html"
    lines += [f"report    {page}"] if page.exists() else []
    ended = [row["name"] for row in made["runs"] if row["status"] == "ok"]
    if sweep:
        again = shlex.quote("--" + told(made, best["value"]))
        lines.append(f"{words.NEXT}train with {again}")
    elif ended:
        lines.append(words.then("evaluate", f"--checkpoint={folder / ended[0]}"))
    return "\n".join(lines)


def _failures(made: SeriesResult) -> str:
    names = [row["name"] for row in made["runs"] if row["status"] == "failed"]
    return f", failed: {', '.join(names)}" if names else ""
