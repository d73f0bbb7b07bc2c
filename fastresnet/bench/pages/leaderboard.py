"""The leaderboard: all committed results and records as tables and one page. Writes no files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastresnet.base import words
from fastresnet.bench.pages import plotting
from fastresnet.bench.pages.plotting import Series
from fastresnet.bench.protocol.rows import Summary, judgement
from fastresnet.machine import hardware
from fastresnet.reports import page as look
from fastresnet.runs import record

RECORD_HEAD = (
    "recipe",
    "machine",
    "runs",
    "accuracy ± sd of a run",
    "target",
    "time ± sd of a run",
    "published",
)
RESULT_HEAD = (
    "machine",
    "suite",
    "matrix rate",
    "loader",
    "ResNet-18 step",
    "speednet step",
    "epochs, end to end",
    "date",
)
LOADER_HEAD = (
    "machine",
    "loader",
    "images/s",
    "20th to 80th percentile",
    "n",
    "first batch",
    "of FFCV's",
    "cores busy",
)
NOTHING = "None yet."


def rendered(root: Path) -> dict[Path, str]:
    """What docs/index.html and README.md should hold now. Raises ValueError for an invalid file, or a README without marks."""
    records, results = load(root)
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = between(text, "records", markdown(RECORD_HEAD, record_rows(records)))
    text = between(text, "results", markdown(RESULT_HEAD, result_rows(results)))
    contests = loader_rows(root)
    text = between(text, "loaders", markdown(LOADER_HEAD, contests))
    return {readme: text, root / "docs" / "index.html": page(records, results, contests)}


def load(root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All records and benchmark files, in the order of their paths; each is validated."""
    folder = root / "benchmarks"
    records = [record.read(path, "record") for path in sorted(folder.glob("records/*/record.json"))]
    results = [record.read(path, "benchmark") for path in sorted(folder.glob("results/*.json"))]
    return records, results


def between(text: str, name: str, table: str) -> str:
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md needs the marks {begin} and {end}, once each and in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


# ---- tables ---------------------------------------------------------------------------------


def record_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row a recipe, and one a rival that was timed beside it."""
    rows = []
    for entry in records:
        machine, planned = hardware.short_name(entry["hardware"]), entry.get("runs_planned")
        mark = " (synthetic data)" if entry["data"]["synthetic"] else ""
        rows.append(
            [
                entry["recipe"] + mark,
                machine,
                *_summary(entry["summary"], entry["target"], planned),
                _published(entry["published"]),
            ]
        )
        for rival in entry["rivals"]:
            rows.append([f"{rival['name']} (rival)", machine, *_summary(rival["summary"], entry["target"], planned),
                         _published(rival["published"])])  # fmt: skip
    return rows


def _summary(summary: Summary, target: float | None, planned: int | None) -> list[str]:
    failed = summary.get("failed", 0)
    verdict = "-" if target is None else f"{100 * target:g} % {judgement(summary, target, planned)}"
    return [
        f"{summary['n']}, {failed} failed" if failed else str(summary["n"]),
        _plus_minus(summary["mean"], summary["std"], 100, "%"),
        verdict,
        _plus_minus(summary["seconds_mean"], summary["seconds_std"], 1, "s"),
    ]


def _plus_minus(mean: float | None, spread: float | None, scale: float, unit: str) -> str:
    if mean is None:
        return "-"
    return f"{scale * mean:.2f}" + (f" ±{scale * spread:.2f}" if spread is not None else "") + f" {unit}"


def _published(published: dict[str, Any] | None) -> str:
    if published is None:
        return "-"
    accuracy, seconds = published.get("accuracy"), published.get("seconds")
    figures = [
        words.percent(accuracy) if accuracy is not None else "",
        f"{seconds:g} s" if seconds is not None else "",
    ]
    if not any(figures):
        return str(published["source"])
    where = f" on {published['machine']}" if published["machine"] else ""
    return " in ".join(filter(None, figures)) + f"{where} ({published['source']})"


def result_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row a machine and date: the best of each part, with its settings."""
    rows = []
    for result in results:
        mark = " (synthetic data)" if result["data"] and result["data"]["synthetic"] else ""
        rows.append([
            hardware.short_name(result["hardware"]), result["suite"], _matrix_rate(result), _best(result, "loader") + mark,
            _best(result, "step", model="resnet18", work="step"), _best(result, "step", model="speednet", work="step"),
            _best(result, "endtoend", prefix="epoch/") + mark, result["date"][:10],
        ])  # fmt: skip
    return rows


def loader_rows(root: Path) -> list[list[str]]:
    """A row a loader of each file that benchmarks/loader.py wrote into benchmarks/results/loaders."""
    rows = []
    for path in sorted((root / "benchmarks" / "results" / "loaders").glob("*.json")):
        made = json.loads(path.read_text(encoding="utf-8"))
        machine = f"{hardware.short_name(made['hardware'])}, {made['dtype']}, batch {made['batch_size']}"
        speeds = {row["name"]: row["images_per_second"] for row in made["rows"]}
        for row in made["rows"]:
            speed, rival = row["images_per_second"], speeds.get("ffcv")
            if speed is None:
                rows.append([machine, row["name"], row["status"], *["-"] * (len(LOADER_HEAD) - 3)])
                continue
            rows.append([
                machine, row["name"], f"{speed['median']:,.0f}", f"{speed['p20']:,.0f} to {speed['p80']:,.0f}",
                str(speed["n"]), f"{row['first_batch_seconds']:.2f} s",
                f"{speed['median'] / rival['median']:.2f} times" if rival else "-", f"{row['host_cpu_cores']:.2f}",
            ])  # fmt: skip
    return rows


def _good(result: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return [row for row in result["cases"] if row["part"] == part and row["status"] == "ok"]


def _matrix_rate(result: dict[str, Any]) -> str:
    rows = [row for row in _good(result, "ceilings") if row["name"].startswith(f"{result['device']}/matmul-")]
    if not rows:
        return "-"
    best = max(rows, key=lambda row: row["quantiles"]["median"])
    return f"{words.amount(best['quantiles']['median'], 'FLOP/s')} ({best['name'].rsplit('-', 1)[1]})"


def _best(result: dict[str, Any], part: str, prefix: str = "", **settings: str) -> str:
    rows = [row for row in _good(result, part) if row["name"].startswith(prefix) and row["figures"].get("images_per_second")
            and all(row["settings"].get(key) == value for key, value in settings.items())]  # fmt: skip
    if not rows:
        return "-"
    best = max(rows, key=lambda row: row["figures"]["images_per_second"])
    s = best["settings"]
    how = f" (batch {s['batch_size']}, {s['precision']})" if part == "step" else f" ({best['name']})"
    rate = best["figures"]["images_per_second"]
    return f"{rate:,.0f} images/s{how}" + (" ~" if best["noisy"] else "")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, or a sentence where there are no rows."""
    if not rows:
        return NOTHING
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(
        lines + ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    )


# ---- the page -------------------------------------------------------------------------------


def page(
    records: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], contests: Sequence[Sequence[str]]
) -> str:
    """docs/index.html: the same tables, and a picture of error over time."""
    points = []
    for index, entry in enumerate(records):
        summary = entry["summary"]
        if summary["mean"] is not None and summary["seconds_mean"]:
            name = f"{entry['recipe']}, {hardware.short_name(entry['hardware'])}"
            points.append(
                Series(name, [(summary["seconds_mean"], 100 * (1 - summary["mean"]))], index, line=False)
            )
    body = [
        "<h1>fastresnet: measured speeds</h1>",
        '<p class="soft">Every figure comes from a file in the repository (benchmarks/records and benchmarks/results), made by '
        "the measuring protocol there. Times have the data-dependent work on the clock; ~ marks a noisy figure.</p>",
        look.section("Time to accuracy", _table(RECORD_HEAD, record_rows(records)),
                     plotting.plot("Error over time", "test error, %: lower left is better", points, "seconds") if points else ""),
        look.section("Machines", _table(RESULT_HEAD, result_rows(results))),
        look.section("Loaders against each other", _table(LOADER_HEAD, contests)),
    ]  # fmt: skip
    return look.document("fastresnet: measured speeds", "\n".join(body))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return look.table(head, rows, numbers_from=len(head)) if rows else f"<p>{escape(NOTHING)}</p>"
