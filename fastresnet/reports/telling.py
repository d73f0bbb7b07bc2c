"""What a run or a record reached, in words: one aligned line, or an ending for a person at a terminal.

Refuses to write, to judge and to know files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastresnet.base import strict_yaml, words
from fastresnet.machine import hardware


def line(record: Mapping[str, Any]) -> str:
    """One aligned line: `speed94  n=200  acc 94.02 ±0.14 %  time 0.71 ±0.01 s  1x H200`."""
    machine = hardware.used_name(record)
    mark = "  SYNTHETIC DATA" if record["data"]["synthetic"] else ""
    several = record.get("kind") in ("record", "series")
    fields = _record_fields(record) if several else _result_fields(record)
    return "  ".join([f"{record['recipe']:<10}", *fields, machine]) + mark


def ending(record: Mapping[str, Any], run_dir: Path) -> str:
    """A result for a person at a terminal: what was reached, what it took, where to look, what to do next."""
    accuracy, seconds, rate = record["accuracy"], record["seconds"], record["images_per_second"]
    target = record["config"]["eval"].get("target")
    with_tta = accuracy["test_tta"]
    lines = [f"accuracy  {words.percent(accuracy['test'])}"]
    if with_tta is not None:
        lines[0] += f", {words.percent(with_tta)} with test-time augmentation"
    if target:
        reached = accuracy["test"] if with_tta is None else with_tta
        told = "reached in this run" if reached >= target else "missed"
        lines.append(f"target    {words.percent(target)}: {told}")
    lines.append(f"time      {words.duration(seconds['train'])} of {words.duration(seconds['wall'])} in all")
    lines += [f"speed     {rate:,.0f} images/s"] if rate else []
    page = run_dir / "report.html"
    lines += [f"report    {page}"] if page.exists() else []
    lines.append(words.then("evaluate", f"--checkpoint={run_dir}"))
    return "\n".join(["", *lines])


def _record_fields(record: Mapping[str, Any]) -> list[str]:
    summary = record["summary"]
    swept = record.get("setting")
    return [
        *([f"{swept}={strict_yaml.write(summary['value'])}"] if swept else []),
        f"n={summary['n']}",
        f"acc {words.percent(summary['mean'], summary['std'])}",
        f"time {words.seconds(summary['seconds_mean'], summary['seconds_std'])}",
    ]


def _result_fields(record: Mapping[str, Any]) -> list[str]:
    accuracy, seconds = record["accuracy"], record["seconds"]
    fields = [f"seed {record['seed']}", f"acc {words.percent(accuracy['test'])}"]
    if accuracy["test_tta"] is not None:
        fields.append(f"tta {words.percent(accuracy['test_tta'])}")
    fields.append(f"time {words.seconds(seconds['train'])}")
    if record["images_per_second"] is not None:
        fields.append(f"{record['images_per_second']:,.0f} images/s")
    if record["mfu"] is not None:
        fields.append(f"mfu {100 * record['mfu']:.0f} %")
    return fields
