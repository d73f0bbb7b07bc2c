"""Benchmark this machine: `python benchmarks/run.py --suite quick|standard|full [--only loader,step,...]
[--out FILE]`."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # the suite's time includes the imports below

import argparse
import datetime
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastresnet.base import words
from fastresnet.bench import places
from fastresnet.bench.judging import compare
from fastresnet.bench.measuring import accuracy, ceilings, endtoend, harness, loading, profiles, step
from fastresnet.bench.measuring.context import SUITES, Context
from fastresnet.machine import hardware, meters, software
from fastresnet.machine.devices import choose_device
from fastresnet.runs import record

PARTS = ("ceilings", "loader", "step", "endtoend", "accuracy")
TINY_SECONDS = 0.02  # a case at scale tiny: does it run?
BUDGETS = {  # seconds, hard; by suite on a CPU and on a GPU
    "quick": (115.0, 115.0),
    "standard": (720.0, 870.0),
    "full": (4 * 3600.0, 3 * 3600.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and write its file. The exit code is 1 where every case failed."""
    options = parse(argv)
    device = choose_device(options.device, option="--device")
    context = Context(device, options.suite, options.scale == "tiny")
    budget = options.budget or BUDGETS[options.suite][device.type != "cpu"]
    found = collect(context, options.only)
    schedule = harness.Schedule(found, budget, BEGAN if argv is None else time.perf_counter())
    say(
        f"{options.suite} suite on {hardware.short_name(hardware.describe())}: {len(found)} cases, "
        f"at most {budget // 60:.0f}:{budget % 60:02.0f}"
    )
    before = meters.condition(device)
    rows = run_all(schedule, device, most=TINY_SECONDS if context.tiny else math.inf)
    add_speedups(rows)
    result = assemble(context, rows, before, budget, time.perf_counter() - schedule.began)
    out = Path(options.out) if options.out else default_name(result)
    record.write(out, result)
    if options.profile:
        profiles.write(context, Path(options.profile), say)
    print(summary(result))
    print(f"written: {out}")
    return 0 if any(row["status"] == "ok" for row in rows) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Exits with 2 on a wrong one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--suite", choices=SUITES, default="quick", help="quick: 2 minutes; standard: about 12; full: hours"
    )
    parser.add_argument("--only", default="", help=f"parts, with commas: {','.join(PARTS)}")
    parser.add_argument(
        "--out", help="result file (default: benchmarks/results/<machine>-<suite>-<date>.json)"
    )
    parser.add_argument(
        "--profile", metavar="DIR", help="also write a Chrome trace and a table of kernels there"
    )
    parser.add_argument(
        "--scale", choices=("normal", "tiny"), default="normal", help="tiny: does everything run? for CI"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--budget", type=float, default=0.0, metavar="SECONDS", help="another time limit")
    options = parser.parse_args(argv)
    options.only = [part.strip() for part in options.only.split(",") if part.strip()]
    unknown = [part for part in options.only if part not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: the parts are {', '.join(PARTS)}")
    if options.budget < 0:
        parser.error(f"--budget must be above 0 seconds, got {options.budget:g}")
    return options


def collect(context: Context, only: Sequence[str]) -> list[harness.Case]:
    """The cases of the suite, in the order in which they run."""
    wanted = only or PARTS
    found: list[harness.Case] = []
    if "ceilings" in wanted:
        for device in ceiling_devices(context.device):
            found += ceilings.cases(device, tiny=context.tiny)
    for name, part in (("loader", loading), ("step", step), ("endtoend", endtoend), ("accuracy", accuracy)):
        if name in wanted:
            found += part.cases(context)
    return found


def ceiling_devices(device: torch.device) -> list[torch.device]:
    """The device, its siblings where there are several GPUs, and the CPU that feeds them."""
    gpus = (
        [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if device.type == "cuda" else []
    )
    return list(dict.fromkeys([device, *gpus, torch.device("cpu")]))


def run_all(schedule: harness.Schedule, device: torch.device, most: float) -> list[dict[str, Any]]:
    """One row a case, sampled for at most `most` seconds; a line of progress for each, with the time left."""
    rows = []
    for index, case in enumerate(schedule.cases):
        seconds, limit = schedule.slice(case)
        row = harness.run_case(case, device, min(seconds, most), limit)
        rows.append(row)
        left = max(schedule.left(), 0.0)
        say(
            f"[{index + 1:>2}/{len(schedule.cases)}] {left // 60:.0f}:{left % 60:02.0f} left  {describe(row)}"
        )
    return rows


def describe(row: dict[str, Any]) -> str:
    """A row in a line."""
    if row["status"] != "ok":
        return f"{row['id']:<52} {row['status']}: {row['message']}"
    rate = row["figures"].get("images_per_second")
    mark = f"  ~ {row['noise']}" if row["noisy"] else ""
    if rate:
        mfu = row["figures"].get("mfu")
        return (
            f"{row['id']:<52} {rate:>12,.1f} images/s"
            + (f"  mfu {words.percent(mfu, digits=0)}" if mfu else "")
            + mark
        )
    return f"{row['id']:<52} {compare.value_of(row):>21}{mark}"


def add_speedups(rows: list[dict[str, Any]]) -> None:
    """To each whole step: how much faster than the eager contiguous step of the same model, batch and
    precision, and than that in fp32."""
    done = {
        tuple(
            row["settings"].get(k)
            for k in ("model", "work", "batch_size", "precision", "memory_format", "compile")
        ): row["quantiles"]["median"]
        for row in rows
        if row["part"] == "step" and row["status"] == "ok"
    }
    for row in rows:
        if row["part"] != "step" or row["status"] != "ok":
            continue
        where = row["settings"]
        for name, precision in (("same_precision", where["precision"]), ("fp32", "fp32")):
            base = done.get(
                (where["model"], where["work"], where["batch_size"], precision, "contiguous", "off")
            )
            if base:
                row["figures"][f"speedup_over_eager_contiguous_{name}"] = base / row["quantiles"]["median"]


def assemble(
    context: Context, rows: list[dict[str, Any]], before: meters.Condition, budget: float, took: float
) -> dict[str, Any]:
    """The result file's content."""
    seen = {reason for row in rows for reason in row["condition"].get("throttle") or []}
    info = context.data_info()
    return {
        "schema_version": record.SCHEMA_VERSION,
        "kind": "benchmark",
        "suite": context.suite,
        "scale": "tiny" if context.tiny else "normal",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(took, 1),
        "budget_seconds": budget,
        "device": context.device.type,
        "hardware": hardware.describe(),
        "software": software.versions(),
        "speed_settings": software.speed_settings(),
        "git": software.git_state(),
        "data": info,
        "condition": {"before": before, "after": meters.condition(context.device), "throttle": sorted(seen)},
        "harness": harness.overhead(),
        "cases": rows,
    }


def default_name(result: dict[str, Any]) -> Path:
    """benchmarks/results/<machine>-<suite>-<date>.json"""
    words = hardware.short_name(result["hardware"]).lower()
    machine = "-".join("".join(c if c.isalnum() else " " for c in words).split())
    return places.RESULTS / f"{machine}-{result['suite']}-{result['date'][:10]}.json"


def summary(result: dict[str, Any]) -> str:
    """What came out, in a line."""
    counts: dict[str, int] = {}
    for row in result["cases"]:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    noisy = sum(row["noisy"] for row in result["cases"])
    mark = "  SYNTHETIC DATA" if result["data"] and result["data"]["synthetic"] else ""
    return (
        f"{result['suite']}  "
        + ", ".join(f"{n} {status}" for status, n in counts.items())
        + (f", {noisy} noisy  {result['seconds']:.0f} s  {hardware.short_name(result['hardware'])}{mark}")
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
