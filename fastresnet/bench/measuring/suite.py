"""A suite: its cases measured one after the other, and the file that holds what was measured so far."""

from __future__ import annotations

import datetime
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastresnet.base import words
from fastresnet.base.sinks import slug
from fastresnet.bench import places
from fastresnet.bench.measuring import harness
from fastresnet.bench.measuring.cases import PARTS
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.file import Benchmark, Row, median_of, number, read, unfinished, value_of
from fastresnet.machine import hardware, meters, software, timing
from fastresnet.runs import record

# a case at scale tiny: does it run?
TINY_SECONDS = 0.02
# seconds, hard; by suite, on a CPU and on a GPU
BUDGETS = {"quick": (115.0, 115.0), "standard": (720.0, 870.0), "full": (4 * 3600.0, 3 * 3600.0)}
VARIANT = ("model", "work", "batch_size", "precision", "memory_format", "compile")


@dataclass
class Suite:
    """What is measured, and for how long.

    only:    parts of the suite; all of them where none is named
    budget:  seconds that it may take
    began:   timing.turns().clock() where they start to count
    """

    context: Context
    only: Sequence[str]
    budget: float
    began: float

    def __post_init__(self) -> None:
        self.cases = [case for part in self.only or PARTS for case in PARTS[part](self.context)]
        self.rows: list[Row] = []
        self.overhead = harness.overhead()
        self.before = meters.condition(self.context.device)

    def measure(self) -> Iterator[tuple[Row, float]]:
        """(row, seconds left) after each case; `file()` is whole and valid at each of these moments."""
        schedule = harness.Schedule(self.cases, self.budget, self.began)
        most = TINY_SECONDS if self.context.tiny else math.inf
        for case in self.cases:
            seconds, limit = schedule.slice(case)
            row = harness.run_case(case, self.context.device, min(seconds, most), limit)
            row = row if self.context.tiny else believable(row)
            self.rows.append(row)
            add_speedups(self.rows)
            yield row, max(schedule.left(), 0.0)

    def file(self) -> Benchmark:
        """All that was measured so far."""
        now = datetime.datetime.now(datetime.timezone.utc)
        device, here = self.context.device, hardware.circumstances()
        seen = {reason for row in self.rows for reason in row["condition"].get("throttle") or []}
        return {
            "schema_version": record.SCHEMA_VERSION,
            "kind": "benchmark",
            "suite": self.context.suite,
            "scale": "tiny" if self.context.tiny else "normal",
            "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(timing.turns().clock() - self.began, 1),
            "budget_seconds": self.budget,
            "device": device.type,
            "hardware": here["hardware"],
            "software": here["software"],
            "git": here["git"],
            "speed_settings": software.speed_settings(),
            "data": self.context.data_info(),
            "condition": {"before": self.before, "after": meters.condition(device), "throttle": sorted(seen)},
            "harness": self.overhead,
            "cases": self.rows,
            "cases_planned": len(self.cases),
        }


def believable(row: Row) -> Row:
    """The row; as failed and without its figures where it claims more arithmetic than the machine can do."""
    mfu = number(row, "mfu")
    if mfu is None or mfu <= 1:
        return row
    why = f"its MFU would be {mfu:.2f}: images or FLOPs are miscounted, or the machine's ceiling is"
    nothing: Row = {**row, "samples": [], "quantiles": None, "figures": {}, "noisy": False, "noise": None}
    return {**nothing, "status": "failed", "message": why}


def add_speedups(rows: Sequence[Row]) -> None:
    """To each whole step: how much faster than eager and contiguous, in the same precision and in fp32."""
    steps = [row for row in rows if row["part"] == "step" and row["status"] == "ok"]
    done = {tuple(row["settings"][key] for key in VARIANT): median_of(row) for row in steps}
    for row in steps:
        where = row["settings"]
        for name, precision in (("same_precision", where["precision"]), ("fp32", "fp32")):
            plain = {**where, "precision": precision, "memory_format": "contiguous", "compile": "off"}
            base = done.get(tuple(plain[key] for key in VARIANT))
            if base:
                row["figures"][f"speedup_over_eager_contiguous_{name}"] = base / median_of(row)


# ---- telling -----------------------------------------------------------------------------------------------


def default_name(file: Benchmark, folder: Path | None = None) -> Path:
    """<machine>-<suite>-<date>.json, numbered where a whole file of that name is there; else it is replaced.

    folder:  None: benchmarks/results, or runs/tiny for what only checks that all runs
    """
    machine = slug(hardware.used_name(file))
    folder = folder or (places.RESULTS if file["scale"] == "normal" else places.ROOT / "runs" / "tiny")
    first = folder / f"{machine}-{file['suite']}-{file['date'][:10]}.json"
    numbered = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], numbered) if not _is_whole(path))


def _is_whole(path: Path) -> bool:
    return path.exists() and unfinished(read(path)) is None


def describe(row: Row, room: int | None = None) -> str:
    """A row in a line; where it has no room for more, its value alone."""
    name = f"{row['id']:<45}"
    if row["status"] != "ok":
        return f"{name} {row['status']}: {row['message']}"
    mfu = number(row, "mfu")
    used = f"  mfu {words.percent(mfu, digits=0)}" if mfu else ""
    short = f"{name} {value_of(row):>{max(62 - len(name), 0)}}"
    whole = short + used + (f"  ~ {row['noise']}" if row["noisy"] else "")
    return whole if room is None or len(whole) <= room else short + " ~" * row["noisy"]


def summary(file: Benchmark) -> str:
    """What came out, in a line."""
    counts = Counter(row["status"] for row in file["cases"])
    facts = [f"{count} {status}" for status, count in counts.items()]
    facts.append(f"{sum(row['noisy'] for row in file['cases'])} noisy")
    cut = unfinished(file)
    facts += [f"CUT SHORT: {cut}"] if cut else []
    mark = "  SYNTHETIC DATA" if file["data"] and file["data"]["synthetic"] else ""
    where = hardware.used_name(file)
    return f"{file['suite']}  {', '.join(facts)}  {file['seconds']:.0f} s  {where}{mark}"
