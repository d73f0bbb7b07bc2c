"""What a benchmark file holds: a row a case, what was measured on, and how a row reads. Measures nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from fastresnet.base import words
from fastresnet.base.statistics import Quantiles
from fastresnet.data import Info
from fastresnet.machine import meters
from fastresnet.machine.hardware import Circumstances
from fastresnet.machine.software import SpeedSettings
from fastresnet.runs import record

if TYPE_CHECKING:
    from typing import NotRequired  # Python 3.11's

Figure = float | str | bool | None


class Row(TypedDict):
    """One case, measured or not.

    id:         part/name, the same on every machine
    settings:   what was run: two rows compare only where these agree
    samples:    raw, in the unit, in the order measured
    processes:  how many of the samples each fresh process gave, in order; without it, one process gave all
    quantiles:  of the samples; the median of several processes is the geometric mean of theirs
    figures:    what follows from the samples, and what was seen beside them
    """

    id: str
    part: str
    name: str
    settings: dict[str, object]
    status: str
    message: str | None
    unit: str
    better: str
    samples: list[float]
    quantiles: Quantiles | None
    noisy: bool
    noise: str | None
    figures: dict[str, Figure]
    condition: meters.Condition
    seconds: float
    processes: NotRequired[list[int]]


class Condition(TypedDict):
    """The machine's state before and after, and every reason seen for a clock held down."""

    before: meters.Condition
    after: meters.Condition
    throttle: list[str]


class Benchmark(Circumstances):
    """One machine, one date. With fewer cases or processes done than planned, it was cut short.

    turns:  the same in files whose processes took turns on the machine, one of each file a round
    """

    schema_version: int
    kind: str
    suite: str
    scale: str
    date: str
    seconds: float
    budget_seconds: float
    device: str
    speed_settings: SpeedSettings
    data: Info | None
    condition: Condition
    harness: dict[str, float]
    cases: list[Row]
    cases_planned: NotRequired[int]
    processes_planned: NotRequired[int]
    processes_done: NotRequired[int]
    turns: NotRequired[str]


def read(path: str | Path) -> Benchmark:
    """Read and validate. Raises RecordError, naming the file, where it is no benchmark."""
    return cast(Benchmark, record.read(path, "benchmark"))


def write(path: str | Path, file: Benchmark) -> None:
    """Validate, then replace `path` at once: a reader finds the old file or the new one, whole."""
    record.write(path, dict(file))


def observations(row: Row) -> list[list[float]]:
    """The samples of a row, process by process."""
    samples, found = iter(row["samples"]), []
    for count in row.get("processes", [len(row["samples"])]):
        found.append([next(samples) for _ in range(count)])
    return found


def good(file: Benchmark, part: str) -> list[Row]:
    """The rows of a part that went well."""
    return [row for row in file["cases"] if row["part"] == part and row["status"] == "ok"]


def number(row: Row, name: str) -> float | None:
    """A figure of the row; None where it has none, or where the figure is no number."""
    value = row["figures"].get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def figure(row: Row, name: str) -> float:
    """A figure that the row is known to have."""
    value = number(row, name)
    assert value is not None, f"{row['id']} has no {name}"
    return value


def median_of(row: Row) -> float:
    """The value that the row is judged by. Only a row that went well has one."""
    assert row["quantiles"] is not None, row["id"]
    return row["quantiles"]["median"]


def value_of(row: Row) -> str:
    """A row's result as a person wants it: images/s, accuracy reached and when, or the samples' median."""
    rate, accuracy = number(row, "images_per_second"), number(row, "accuracy")
    if rate:
        return f"{rate:,.0f} images/s" if rate >= 100 else f"{rate:.1f} images/s"
    middle = words.amount(median_of(row), row["unit"])
    if accuracy is None:
        return middle
    return f"{words.percent(accuracy)} in {middle}, n={figure(row, 'runs'):.0f}"


def unfinished(file: Benchmark) -> str | None:
    """What of the plan is missing, in a few words; None where all was done."""
    done, planned = len(file["cases"]), file.get("cases_planned", 0)
    if done < planned:
        return f"{done} of {planned} cases"
    rounds, wanted = file.get("processes_done", 1), file.get("processes_planned", 1)
    return f"{rounds} of {wanted} processes" if rounds < wanted else None
