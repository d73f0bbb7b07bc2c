"""The leaderboard: all committed results and records, as tables of README.md and a page. Writes no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastresnet.bench.pages import predicted, records_table, results_table, tables
from fastresnet.bench.pages.records_table import Entry
from fastresnet.bench.pages.results_table import Measured
from fastresnet.reports import charts


def rendered(root: Path) -> dict[Path, str]:
    """What docs/index.html and README.md should hold now.

    Raises ValueError for an invalid file, or a README without marks.
    """
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    records, results = records_table.load(root), results_table.load(root)
    contests = results_table.loader_rows(root)
    text = between(text, "records", tables.markdown(records_table.HEAD, records_table.rows(records)))
    text = between(text, "results", tables.markdown(results_table.HEAD, results_table.result_rows(results)))
    text = between(text, "loaders", tables.markdown(results_table.LOADER_HEAD, contests))
    return {readme: text, root / "docs" / "index.html": page(root, records, results)}


def between(text: str, name: str, table: str) -> str:
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md needs the marks {begin} and {end}, once each and in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def page(root: Path, records: Sequence[Entry], results: Sequence[Measured]) -> str:
    """docs/index.html: the same tables, error over time, and what was published or predicted, apart."""
    published = records_table.load_published(root)
    expected = predicted.load(root, [one.made for one in results])
    series = [*records_table.points(records, published), predicted.points(expected)]
    values = {
        "head": records_table.HEAD,
        "records": records_table.rows(records, "../"),
        "published_head": records_table.HEAD_PUBLISHED,
        "published": records_table.published_rows(published),
        "predicted_head": predicted.HEAD,
        "predicted": predicted.rows(expected),
        "basis": predicted.basis(expected),
        "chart": charts.chart(
            "Error over time", "test error, %: lower left is better", series, "seconds", log=True
        ),
        "results_head": results_table.HEAD,
        "results": results_table.result_rows(results, "../"),
        "loaders_head": results_table.LOADER_HEAD,
        "loaders": results_table.loader_rows(root, "../"),
    }
    return str(tables.render("leaderboard.html", values))
