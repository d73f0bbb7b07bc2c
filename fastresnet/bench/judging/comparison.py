"""Benchmark files case by case beside the first of them, which is the base. What doesn't compare says why.

Ratios are speeds: 2.0 means twice as fast as the base. Refuses to average what differs in data or settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastresnet.bench.judging import bounds, significance
from fastresnet.bench.judging.significance import Ratio
from fastresnet.bench.measuring.file import Benchmark, Row, number, observations, unfinished
from fastresnet.machine import hardware

# parts that work on random numbers: the data set plays no part in their figures
WITHOUT_DATA = ("ceilings", "step")
# figures that must agree as the settings must: how much was measured, and by which clock
AS_SETTINGS = ("batch_size", "timed_on_device")
# figures that say how a machine did what the settings leave to it
HOW = ("precision", "loader", "kernel")
# of PyTorch's switches, those that a process has from its start
SWITCHES = ("threads", "allocator")
# how several processes, turns and a gate of both are asked for, and how many processes a gate needs
ASK = "fastresnet bench --processes 5"
TURNS = "fastresnet bench --against OTHER measures in turns"
GATE = "fastresnet bench --gate 5%"
FEWEST_PROCESSES = 3


@dataclass(frozen=True)
class Entry:
    """One case in one file, beside the base.

    verdict:  base, faster, slower, noise (within it), one process (not judged), or why there is no ratio
    why:      what the machines did differently, and which ceiling explains the difference
    """

    row: Row | None
    ratio: Ratio | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """`labels` name the files; `cases` maps a case's id to one entry a file, base first."""

    files: list[Benchmark]
    labels: list[str]
    cases: dict[str, list[Entry]]
    warnings: list[str]


@dataclass(frozen=True)
class Slower:
    """A case of the file `label` that fails a gate."""

    label: str
    case: str
    ratio: Ratio


def names(files: Sequence[Benchmark], paths: Sequence[str]) -> list[str]:
    """A short name for each file: its machine where these differ, else the file's own."""
    machines = [hardware.used_name(file) for file in files]
    stems = [Path(path).stem for path in paths]
    if len(set(machines)) == len(machines):
        return machines
    return stems if len(set(stems)) == len(stems) else [f"{stem} ({i + 1})" for i, stem in enumerate(stems)]


def compare(files: Sequence[Benchmark], labels: Sequence[str]) -> Comparison:
    """All cases of all files beside the base's. Raises ValueError for files of different scales."""
    if len({file["scale"] for file in files}) > 1:
        raise ValueError(
            "a file of scale tiny and one of scale normal don't compare: tiny only checks that all runs"
        )
    base = {row["id"]: row for row in files[0]["cases"]}
    ids = dict.fromkeys(row["id"] for file in files for row in file["cases"])
    columns = [_column(files[0], file, ids) for file in files[1:]]
    cases = {name: [_base_entry(base.get(name)), *(column[name] for column in columns)] for name in ids}
    return Comparison(list(files), list(labels), cases, list(_warnings(files, labels)))


def _base_entry(row: Row | None) -> Entry:
    return Entry(row, None, "base" if row and row["status"] == "ok" else _missing(row))


def _column(base: Benchmark, file: Benchmark, ids: Sequence[str] | dict[str, None]) -> dict[str, Entry]:
    """A file's entries beside the base."""
    own, rows = ({row["id"]: row for row in one["cases"]} for one in (base, file))
    reasons = {name: _no_ratio(base, file, own.get(name), rows.get(name)) for name in ids}
    pairs = [(own[name], rows[name]) for name in ids if not reasons[name]]
    first, second = ([observations(pair[side]) for pair in pairs] for side in (0, 1))
    lower = [one["better"] == "lower" for one, _ in pairs]
    ratios = significance.compare(first, second, lower, in_turns=in_turns(base, file))
    found = {name: Entry(rows.get(name), None, reason) for name, reason in reasons.items()}
    for (one, two), ratio in zip(pairs, ratios):
        found[one["id"]] = _judged(base, file, one, two, ratio)
    return found


def in_turns(base: Benchmark, file: Benchmark) -> bool:
    """Whether two files were measured together, process by process."""
    return base.get("turns") is not None and base.get("turns") == file.get("turns")


def _judged(base: Benchmark, file: Benchmark, own: Row, row: Row, ratio: Ratio) -> Entry:
    otherwise = list(_otherwise(own, row))
    if not ratio.judged or ratio.within_noise:
        return Entry(row, ratio, "noise" if ratio.judged else "one process", "; ".join(otherwise))
    verdict = "faster" if ratio.ratio > 1 else "slower"
    why = [*otherwise, bounds.explain(base, file, own, row, ratio.ratio)]
    return Entry(row, ratio, verdict, "; ".join(filter(None, why)))


def _otherwise(own: Row, row: Row) -> Iterator[str]:
    """What the machines did differently by the same settings, and by how much accuracies differ."""
    for name in HOW:
        there, here = (one["figures"].get(name) for one in (own, row))
        if there != here and None not in (there, here):
            yield f"{name} {here}, {there} on the base"
    before, after = (number(one, "accuracy") for one in (own, row))
    gained = 0.0 if before is None or after is None else round(100 * (after - before), 2)
    if gained:
        yield f"accuracy {gained:+.2f} points"


def _missing(row: Row | None) -> str:
    """Why a case has no figure."""
    return "not measured" if row is None else row["status"]


def _no_ratio(base: Benchmark, file: Benchmark, own: Row | None, row: Row | None) -> str:
    """Why a case has no ratio, or nothing."""
    if row is None or row["status"] != "ok":
        return _missing(row)
    if own is None or own["status"] != "ok":
        return "base has none"
    if min(*own["samples"], *row["samples"]) <= 0:
        return "too short for the clock"
    return _incomparable(base, file, own, row)


def _incomparable(base: Benchmark, file: Benchmark, own: Row, row: Row) -> str:
    """Why these two rows mean different things, or nothing."""
    first, second = _as_measured(own), _as_measured(row)
    if first != second or own["unit"] != row["unit"]:
        changed = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
        return f"other settings ({', '.join(changed) or 'unit'})"
    return "" if row["part"] in WITHOUT_DATA else _other_data(base, file)


def _as_measured(row: Row) -> dict[str, object]:
    """The settings, and in place of `largest` what that came to; by which clock."""
    known = {name: row["figures"].get(name) for name in AS_SETTINGS}
    return row["settings"] | {name: round(it) for name, it in known.items() if isinstance(it, (int, float))}


def _other_data(base: Benchmark, file: Benchmark) -> str:
    first, second = base["data"], file["data"]
    if first is None or second is None:
        return "" if first == second else "data unknown"
    if first["synthetic"] != second["synthetic"]:
        return "synthetic against real data"
    same = all(first[key] == second[key] for key in ("name", "digest", "train_size", "test_size"))
    return "" if same else "other data"


def _warnings(files: Sequence[Benchmark], labels: Sequence[str]) -> Iterator[str]:
    for file, label in zip(files, labels):
        yield from (f"{label}: {text}" for text in _warnings_of(file))
    if len({file["git"]["commit"] for file in files}) > 1:
        yield "the files come from different commits of the code"
    if len(suites := dict.fromkeys(file["suite"] for file in files)) > 1:
        yield f"the files are of other suites ({', '.join(suites)}), which give their cases unlike times"
    if unlike := _other_versions(files):
        yield f"measured with other versions or switches: {'; '.join(unlike)}"
    for file, label in zip(files[1:], labels[1:]):
        alike = hardware.used_name(file) == hardware.used_name(files[0])
        if alike and processes(file) > 1 and not in_turns(files[0], file):
            yield f"{label}: measured apart from {labels[0]}, a drift looks like a change: {TURNS}"


def _other_versions(files: Sequence[Benchmark]) -> list[str]:
    """`torch 2.6.0, 2.13.0`: versions and switches that aren't the same in all."""
    told = [_versions(file) for file in files]
    names = dict.fromkeys(name for one in told for name in one)
    values = {name: dict.fromkeys(str(one.get(name)) for one in told) for name in names}
    return [f"{name} {', '.join(some)}" for name, some in values.items() if len(some) > 1]


def _versions(file: Benchmark) -> dict[str, object]:
    switches = {name: value for name, value in file["speed_settings"].items() if name in SWITCHES}
    return {**file["software"], "driver": file["hardware"]["driver"], **switches}


def _warnings_of(file: Benchmark) -> Iterator[str]:
    if file["data"] and file["data"]["synthetic"]:
        yield "synthetic data, its accuracies say nothing about CIFAR-10"
    if file["condition"]["throttle"]:
        yield f"the GPU was held back ({', '.join(file['condition']['throttle'])})"
    noisy = sum(row["noisy"] for row in file["cases"])
    measured = sum(row["status"] == "ok" for row in file["cases"])
    if noisy > measured / 4:
        yield f"{noisy} of {measured} cases are noisy, the machine was busy or unsteady"
    if file["git"]["dirty"]:
        yield "measured with uncommitted changes"
    if cut := unfinished(file):
        yield f"the suite was cut short: {cut}"
    if processes(file) < 2:
        yield f"one process only, so no difference is told from noise: measure with {ASK}"


def processes(file: Benchmark) -> int:
    """Fresh processes that measured the whole suite."""
    return file.get("processes_done", 1)


# ---- the gate ----------------------------------------------------------------------------------------------


def gate(compared: Comparison, allowed: float) -> tuple[list[Slower], int]:
    """(cases slower than the base by more than `allowed` beyond noise, number of cases judged).

    Of all cases of all files together: where nothing became slower, at most one gate in twenty names any.
    Raises ValueError where a file has too few processes to tell or is of another machine, device or suite,
    and where nothing compares.
    """
    for file, label in zip(compared.files, compared.labels):
        _check_gated(file, label, compared.files[0])
    known = [
        Slower(label, name, ratio)
        for index, label in enumerate(compared.labels[1:], start=1)
        for name, entries in compared.cases.items()
        if (ratio := entries[index].ratio) is not None
    ]
    slow = significance.slower_beyond_noise([one.ratio for one in known], allowed)
    judged = sum(one.ratio.judged for one in known)
    if not judged:
        raise ValueError("--gate: no case of the files compares, so nothing was judged")
    return [one for one, is_slow in zip(known, slow) if is_slow], judged


def _check_gated(file: Benchmark, label: str, base: Benchmark) -> None:
    """ValueError where the gate can't judge a file beside the base."""
    if processes(file) < FEWEST_PROCESSES:
        suite = f"--suite {file['suite']}"
        raise ValueError(
            f"--gate needs {FEWEST_PROCESSES} processes or more a file, {label} has {processes(file)}: "
            f"measure with {ASK} {suite}, or this checkout and the last commit in turns with {GATE} {suite}"
        )
    for what, own, wanted in (
        ("machine", hardware.used_name(file), hardware.used_name(base)),
        ("device", file["device"], base["device"]),
        ("suite", file["suite"], base["suite"]),
    ):
        if own != wanted:
            raise ValueError(
                f"--gate tells changes of the code: {label} is of another {what} ({own}, not {wanted})"
            )
