"""The leaderboard: all committed results and records, as tables of README.md and a page. Writes no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastresnet.bench.pages import plotting, records_table, results_table, tables
from fastresnet.bench.pages.records_table import Entry, Published
from fastresnet.bench.pages.tables import Row
from fastresnet.reports import page as look

CHART = ("Error over time", "test error, %: lower left is better")
INTRODUCTION = (
    "Every figure comes from a file in the repository, made by the measuring protocol there: what depends on "
    "data or seed is on the clock, every run counts, sd is the standard deviation of one run. "
    "~ marks a noisy figure."
)


def rendered(root: Path) -> dict[Path, str]:
    """What docs/index.html and README.md should hold now.

    Raises ValueError for an invalid file, or a README without marks.
    """
    records, results = records_table.load(root), results_table.load(root)
    contests = results_table.loader_rows(root)
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = between(text, "records", tables.markdown(records_table.HEAD, records_table.rows(records)))
    text = between(text, "results", tables.markdown(results_table.HEAD, results_table.result_rows(results)))
    text = between(text, "loaders", tables.markdown(results_table.LOADER_HEAD, contests))
    published = records_table.load_published(root)
    return {readme: text, root / "docs" / "index.html": page(records, published, results, contests)}


def between(text: str, name: str, table: str) -> str:
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md needs the marks {begin} and {end}, once each and in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def page(
    records: Sequence[Entry],
    published: Sequence[Published],
    results: Sequence[dict[str, Any]],
    contests: Sequence[Row],
) -> str:
    """docs/index.html: the same tables, a picture of error over time, and what others published, apart."""
    found = records_table.points(records, published)
    others = tables.folded(
        "What others published",
        f"{len(published)} figures, of their machines; none of it was measured here",
        tables.html(records_table.HEAD, records_table.published_rows(published), "others"),
    )
    body = [
        tables.style_sheet("pages.css"),
        "<h1>fastresnet: measured speeds</h1>",
        f'<p class="soft">{INTRODUCTION}</p>',
        look.section(
            "Time to accuracy",
            tables.html(records_table.HEAD, records_table.rows(records, "../")),
            others,
            f'<div class="chart">{plotting.plot(*CHART, found, "seconds")}</div>' if found else "",
        ),
        look.section("Machines", tables.html(results_table.HEAD, results_table.result_rows(results))),
        look.section("Loaders against each other", tables.html(results_table.LOADER_HEAD, contests)),
    ]
    return look.document("fastresnet: measured speeds", "\n".join(body))
