"""From the log of all runs to record.json and the page beside it. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypedDict

from fastresnet.base import words
from fastresnet.base.sinks import for_markdown
from fastresnet.bench.protocol import protocol
from fastresnet.bench.protocol.rival import OWN, sides, timed_by
from fastresnet.bench.protocol.runlog import RunLog
from fastresnet.machine import hardware, memory
from fastresnet.runs import record
from fastresnet.series.rows import Row, Summary, conditions, judgement, mean_of, summarise

ANSWER = (
    "That is the interpreter's start, imports, data, build, warm-up, and the mean of a run. Cold: with empty "
    "folders for betons and compiled kernels; what the operating system holds of files stays."
)


class Published(TypedDict):
    """What its authors say, where, and on which machine."""

    source: str
    machine: str | None


class Rival(TypedDict):
    """A rival's name and its published figure."""

    name: str
    published: Published | None


def assemble(
    log: RunLog, prepared: protocol.Prepared, *, rivals: Sequence[Rival], published: Published | None
) -> dict[str, Any]:
    """The record of all runs in `log`, ready for record.write."""
    own, header, experiment = log.of(OWN), log.header, prepared.experiment
    facts, target, planned = experiment.splits.info, header["target"], header["runs"]
    summed = partial(summarise, target=target, resolution=1 / facts["test_size"])
    turns = header["turns"]
    theirs = [log.of(who) for who in sides(header["versus"])]
    ended = [row for row in own if row["status"] == "ok"]
    return {
        "schema_version": record.SCHEMA_VERSION,
        "kind": "record",
        "recipe": header["recipe"],
        "date": header["date"],
        "config": header["config"],
        "published": published,
        "target": target,
        "runs_planned": planned,
        "runs_done": len(own),
        "runs": own,
        "summary": summed(own, planned=planned),
        "clock": protocol.CLOCK,
        "off_clock_seconds": prepared.off_clock_seconds,
        **{key: header[key] for key in ("start_up_s",) if key in header},
        "warm_caches": [
            "the operating system's page cache",
            "the data in memory",
            "kernels compiled by the discarded run",
        ],
        "condition": conditions(own),
        "flops": prepared.flops,
        "matmul_ceiling": prepared.ceiling,
        "mfu": mean_of(row.get("mfu") for row in ended),
        "energy_joules": mean_of(row.get("energy_joules") for row in ended),
        "peak_memory_bytes": memory.peak_bytes(experiment.device),
        "precision": experiment.precision.name,
        "device": experiment.device.type,
        "world_size": experiment.place.size,
        **hardware.circumstances(),
        "git": {"commit": header["commit"], "dirty": header["dirty"]},
        "data": {key: facts[key] for key in ("name", "digest", "synthetic", "train_size", "test_size")},
        "rivals": [
            {**rival, "runs_planned": turns, "runs": runs, "summary": summed(runs, planned=turns)}
            for rival, runs in zip(rivals, theirs, strict=True)
        ],
    }


# ---- the page ----------------------------------------------------------------------------------------------


def page(made: dict[str, Any]) -> str:
    """README.md of a record: what, where, how it went, run by run."""
    parts = [
        f"# {made['recipe']} on {hardware.used_name(made)}",
        *_warnings(made),
        _made_of(made),
        _side_by_side(made),
        _sides_table(made),
        _shares(made),
        _target(made),
        _published(made),
        _clock(made),
        _answer(made),
        _arithmetic(made),
        _runs_table(made["runs"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _made_of(made: dict[str, Any]) -> str:
    commit, torch = (made["git"]["commit"] or "unknown")[:12], made["software"]["torch"]
    seeds = f"Seeds 0 to {len(made['runs']) - 1}, all of them, last weights."
    return f"{made['date']}, commit {commit}, PyTorch {torch}, {made['precision']}. {seeds}"


def _side_by_side(made: dict[str, Any]) -> str:
    """Where several runs were under way at once: how many, and whether each had a device of its own."""
    counts = made["condition"].get("runs_at_once")
    if not counts:
        return ""
    timed = any(row["seconds"].get("total") is not None for row in made["runs"])
    how = "each on a device of its own" if timed else "on devices that they share, so not timed"
    return f"{' to '.join(dict.fromkeys(map(str, counts)))} runs side by side, {how}."


def _warnings(made: dict[str, Any]) -> list[str]:
    throttle, planned, done = made["condition"].get("throttle"), made["runs_planned"], made["runs_done"]
    found = {
        "**Synthetic data: says nothing about CIFAR-10.**": made["data"]["synthetic"],
        f"**Cut off: {done} of {planned} runs done, so the target isn't judged.**": done < planned,
        "**Measured from uncommitted code: no record.**": made["git"]["dirty"],
        f"Throttled during the runs: {', '.join(throttle or [])}.": throttle,
    }
    return [text for text, holds in found.items() if holds]


def _sides_table(made: dict[str, Any]) -> str:
    within = "mean within (95 %)"
    heads = ["who", "runs", "failed", "accuracy ± sd", within, "time ± sd", within]
    rivals = [_side(rival["name"], rival["summary"]) for rival in made["rivals"]]
    return "\n".join(words.markdown([heads, _side(made["recipe"], made["summary"]), *rivals]))


def _side(name: str, summary: Summary) -> list[str]:
    return [
        name,
        str(summary["n"]),
        str(summary["failed"]),
        words.percent(summary["mean"], summary["std"]),
        "unknown" if summary["ci95"] is None else f"±{words.percent(summary['ci95'])}",
        words.seconds(summary["seconds_mean"], summary["seconds_std"]),
        "unknown" if summary["seconds_ci95"] is None else f"±{words.seconds(summary['seconds_ci95'])}",
    ]


def _shares(made: dict[str, Any]) -> str:
    """Of each rival's time, what ours is: the mean of the one over that of the other."""
    ours = made["summary"]["seconds_mean"]
    timed = [(rival["name"], rival["summary"]["seconds_mean"]) for rival in made["rivals"]]
    told = [f"{ours / theirs:.2f} of the time of {name}" for name, theirs in timed if ours and theirs]
    return f"{made['recipe']} takes {', '.join(map(for_markdown, told))}." if told else ""


def _target(made: dict[str, Any]) -> str:
    if made["target"] is None:
        return ""
    verdict = judgement(made["summary"], made["target"], made["runs_planned"])
    return f"Target {100 * made['target']:g} %: {verdict}."


def _published(made: dict[str, Any]) -> str:
    lines = [f"Published: {made['published']['source']}"] if made["published"] else []
    told = [(rival["name"], rival["published"]) for rival in made["rivals"] if rival["published"]]
    lines += [f"{name}, published: {published['source']}" for name, published in told]
    return "\n".join(map(for_markdown, lines))


def _clock(made: dict[str, Any]) -> str:
    off = ", ".join(f"{name} {value:.1f} s" for name, value in made["off_clock_seconds"].items())
    clock, warm = made["clock"], ", ".join(made["warm_caches"])
    told = [(for_markdown(rival["name"]), timed_by(rival["runs"])) for rival in made["rivals"]]
    own = f"On the clock: {clock['on']}. Off it: {clock['off']} ({off}). Warm: {warm}."
    return own + "".join(f" {name}: {text}." for name, text in told if text)


def _answer(made: dict[str, Any]) -> str:
    """From the command to the answer: what comes before the first run, as far as it is known, and a run."""
    found, off = made.get("start_up_s", {}), made["off_clock_seconds"]
    run, own = made["summary"].get("seconds_mean"), sum(off.values()) if "start" in off else None
    starts = {"with warm caches": found.get("warm"), "with cold caches": found.get("cold")}
    starts["in the record's own process"] = own
    known = {how: run + start for how, start in starts.items() if None not in (run, start)}
    told = ", ".join(f"{words.seconds(value)} {how}" for how, value in known.items())
    failed = f"Cold and warm starts weren't both timed: {found['message']}." if "message" in found else ""
    answer = f"From the command to the answer: {told}. {ANSWER}" if told else ""
    return " ".join(filter(None, [answer, for_markdown(failed)]))


def _arithmetic(made: dict[str, Any]) -> str:
    text = f"{made['flops']['train'] / 1e15:.4f} PFLOP of training a run"
    text += f", {100 * made['mfu']:.0f} % of the measured matrix rate" if made["mfu"] else ""
    return text + (f", {made['energy_joules']:,.0f} J" if made["energy_joules"] else "") + "."


def _runs_table(runs: Sequence[Row]) -> str:
    named = {name for row in runs for name in row["seconds"]}
    parts = [name for name in ("init", "augment", "train", "eval", "total") if name in named]
    rows = [["seed", "accuracy", "with TTA", *parts]]
    for row in runs:
        plain = words.percent(row["accuracy"]) if row["status"] == "ok" else "diverged"
        seconds = [words.seconds(row["seconds"].get(part)) for part in parts]
        rows.append([str(row["seed"]), plain, words.percent(row["accuracy_tta"]), *seconds])
    return "\n".join(words.markdown(rows))
