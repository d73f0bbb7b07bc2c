"""From the log of all runs to record.json and the page beside it. Measures nothing."""

from __future__ import annotations

from typing import Any

from fastresnet.base import words
from fastresnet.bench.protocol import protocol
from fastresnet.bench.protocol.runlog import RunLog
from fastresnet.machine import hardware, memory, timing
from fastresnet.settings.config import Config

SIGNIFICANT = 0.01  # a target counts as met below this p-value


def assemble(
    cfg: Config,
    log: RunLog,
    prepared: protocol.Prepared,
    machine: dict[str, Any],
    git: dict[str, Any],
    *,
    rival: dict[str, Any] | None,
    published: dict[str, Any] | None,
) -> dict[str, Any]:
    """The record of all runs in `log`, ready for record.write."""
    own, target = log.of("own"), log.header["target"]
    facts = prepared.experiment.splits.info
    return {
        "schema_version": 1,
        "kind": "record",
        "recipe": cfg.recipe,
        "date": log.header["date"],
        "config": log.header["config"],
        "published": published,
        "target": target,
        "runs": own,
        "summary": summarise(own, target),
        "clock": protocol.CLOCK,
        "off_clock_seconds": prepared.off_clock_seconds,
        "warm_caches": ["the operating system's page cache", "the data in memory"]
        + (["compiled kernels of the warm-up"] if prepared.experiment.device.type == "cuda" else []),
        "condition": conditions(own),
        "flops": prepared.flops,
        "matmul_ceiling": prepared.ceiling,
        "mfu": _mean([row.get("mfu") for row in own]),
        "energy_joules": _mean([row.get("energy_joules") for row in own]),
        "peak_memory_bytes": memory.peak_bytes(prepared.experiment.device),
        "precision": prepared.experiment.precision.name,
        "hardware": machine,
        "software": hardware.software(),
        "git": {"commit": git["commit"], "dirty": git["dirty"]},
        "data": {key: facts[key] for key in ("name", "digest", "synthetic", "train_size", "test_size")},
        "rivals": []
        if rival is None
        else [{**rival, "runs": log.of("rival"), "summary": summarise(log.of("rival"), target)}],
    }


def summarise(runs: list[dict[str, Any]], target: float | None) -> dict[str, Any]:
    """Mean, spread, 95 % interval and test over the runs that ended; those that failed are counted beside
    them, and with a failure the target isn't met. The accuracy is the one on the clock: with TTA where there
    is any."""
    ended = [row for row in runs if row["status"] == "ok"]
    used = "accuracy_tta" if any(row["accuracy_tta"] is not None for row in ended) else "accuracy"
    values = [row[used] for row in ended if row[used] is not None]
    seconds = [row["seconds"]["total"] for row in ended if row["seconds"]["total"] is not None]
    p_value = timing.p_value_mean_above(values, target) if target is not None and len(values) > 1 else None
    failed = len(runs) - len(ended)
    accuracy, time = _interval(values), _interval(seconds)
    met = None
    if target is not None and accuracy[0] is not None:
        met = not failed and accuracy[0] >= target and (p_value is None or p_value < SIGNIFICANT)
    return {
        "n": len(ended),
        "failed": failed,
        "accuracy_used": used,
        **dict(zip(("mean", "std", "ci95"), accuracy)),
        "p_value": p_value,
        "target_met": met,
        **dict(zip(("seconds_mean", "seconds_std", "seconds_ci95"), time)),
    }


def _interval(values: list[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    found = timing.confidence_interval(values)
    return (found.mean, found.std, found.half_width) if found.n > 1 else (found.mean, None, None)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def conditions(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all runs: every throttle reason seen, and the range of load, clock, power and temperature."""
    seen = [row.get("condition") or {} for row in runs]
    ranges = {}
    for name in ("load_1min", "clock_mhz", "power_watts", "temperature_celsius"):
        values = [one[name] for one in seen if one.get(name) is not None]
        if values:
            ranges[name] = [min(values), max(values)]
    known = [one["throttle"] for one in seen if one.get("throttle") is not None]
    return {**ranges, "throttle": sorted(set().union(*known)) if known else None}


def judgement(summary: dict[str, Any]) -> str:
    """Whether the target was met, in words."""
    if summary["target_met"] is None:
        return "not judged"
    if not summary["target_met"]:
        return "not met"
    return "met" if summary["p_value"] is not None else "reached in the one run"


# ---- the page -------------------------------------------------------------------------------------


def page(made: dict[str, Any]) -> str:
    """README.md of a record: what, where, how it went, run by run."""
    summary, commit = made["summary"], (made["git"]["commit"] or "unknown")[:12]
    lines = [f"# {made['recipe']} on {hardware.short_name(made['hardware'])}", ""]
    if made["data"]["synthetic"]:
        lines += ["**Synthetic data: says nothing about CIFAR-10.**", ""]
    if made["git"]["dirty"]:
        lines += ["**Measured from uncommitted code: no record.**", ""]
    lines += [
        f"{made['date']}, commit {commit}, PyTorch {made['software']['torch']}, {made['precision']}. "
        f"Seeds 0 to {len(made['runs']) - 1}, all of them, last weights.",
        "",
    ]
    lines += [
        "| who | runs | failed | accuracy | 95 % interval | seconds | 95 % interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        _row(made["recipe"], summary),
        *(_row(rival["name"], rival["summary"]) for rival in made["rivals"]),
        "",
    ]
    if made["target"] is not None:
        p = f", p = {summary['p_value']:.2g}" if summary["p_value"] is not None else ""
        lines += [f"Target {100 * made['target']:g} %: {judgement(summary)}{p}.", ""]
    lines += [f"Published: {told['source']}" for told in (made["published"],) if told]
    lines += [
        f"{rival['name']}, published: {rival['published']['source']}"
        for rival in made["rivals"]
        if rival["published"]
    ]
    lines += [
        "",
        f"On the clock: {made['clock']['on']}. Off it: {made['clock']['off']} "
        f"({', '.join(f'{name} {value:.1f} s' for name, value in made['off_clock_seconds'].items())}). "
        f"Warm: {', '.join(made['warm_caches'])}.",
        "",
    ]
    lines += [
        f"{made['flops']['train'] / 1e15:.4f} PFLOP of training a run"
        + (f", {100 * made['mfu']:.0f} % of the measured matrix rate" if made["mfu"] else "")
        + (f", {made['energy_joules']:,.0f} J" if made["energy_joules"] else "")
        + ".",
        "",
    ]
    throttle = made["condition"].get("throttle")
    lines += [f"Throttled during the runs: {', '.join(throttle)}.", ""] if throttle else []
    lines += _runs_table(made["runs"])
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _row(name: str, summary: dict[str, Any]) -> str:
    cells = [
        name,
        str(summary["n"]),
        str(summary["failed"]),
        words.percent(summary["mean"], summary["std"]),
        "unknown" if summary["ci95"] is None else f"±{words.percent(summary['ci95'])}",
        _number(summary["seconds_mean"], summary["seconds_std"]),
        "unknown" if summary["seconds_ci95"] is None else f"±{_number(summary['seconds_ci95'])}",
    ]
    return f"| {' | '.join(cells)} |"


def _runs_table(runs: list[dict[str, Any]]) -> list[str]:
    named = {name for row in runs for name in row["seconds"]}
    parts = [name for name in ("init", "augment", "train", "eval", "total") if name in named]
    lines = [
        f"| seed | accuracy | with TTA | {' | '.join(f'{part} (s)' for part in parts)} |",
        f"|{' --- |' * (3 + len(parts))}",
    ]
    for row in runs:
        plain = words.percent(row["accuracy"]) if row["status"] == "ok" else "diverged"
        seconds = [_number(row["seconds"].get(part)) for part in parts]
        tta = words.percent(row["accuracy_tta"])
        lines.append(f"| {' | '.join([str(row['seed']), plain, tta, *seconds])} |")
    return lines


def _number(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    digits = 2 if value < 100 else 1
    return f"{value:.{digits}f}" + (f" ±{spread:.{digits}f}" if spread is not None else "")
