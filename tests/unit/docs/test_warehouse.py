"""The warehouse's page: its queries run on the trace, and its tables have what they return."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Final

import pytest
from tests.e2e.trace_file import BESIDE, FILE_VARIABLE, read_trace, trace_path
from tests.e2e.trace_lives import PART, lives
from tests.unit.infra.terraform_module import TerraformModule
from tests.warehouse import Warehouse, views

from run_log.core import RunEvent, encode_event

from .repository import blocks, codes, fenced, one_line, read, table

PAGE: Final = read("docs/warehouse.md")
DATASET: Final = "run_log."
QUERIES: Final = blocks(PAGE, "sql")
RESULT: Final = re.compile(r"\n((?:\|.*\n)+)")


@pytest.fixture(scope="module")
def events() -> list[RunEvent]:
    """Return the events that the page is about."""
    if trace_path() is None:
        pytest.skip(f"the trace is not at {BESIDE}; {FILE_VARIABLE} can name another place")
    return lives(read_trace(1.0))


@pytest.fixture(scope="module")
def warehouse(events: list[RunEvent]) -> Iterator[Warehouse]:
    """Yield a warehouse with these events."""
    made = Warehouse()
    made.load(map(encode_event, events), published_at=datetime(2026, 1, 1, tzinfo=UTC))
    yield made
    made.close()


def _shown(value: object) -> str:
    if isinstance(value, datetime) and value.time() == time():
        # Truncated to weeks, what is a date in BigQuery is a timestamp in DuckDB.
        return value.date().isoformat()
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_query_has_the_result_that_the_page_shows(warehouse: Warehouse, query: str) -> None:
    """Each query of the page runs on the trace, and the table below it is what it returns."""
    rows = warehouse.rows(query.replace(DATASET, ""))
    assert rows
    if query is QUERIES[0]:
        return

    result = RESULT.match(PAGE.partition(f"{query}```\n")[2])
    assert result is not None
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in result[1].splitlines()
    ]
    assert [head, *lines] == [list(rows[0]), *(list(map(_shown, row.values())) for row in rows)]


def test_what_the_page_says_of_the_runs(events: list[RunEvent]) -> None:
    """The page says how many runs there are, and which part of the trace they are."""
    ids = {event.key for event in events}
    years = sorted({event.run.started_at.year for event in events})

    assert PART == 10
    assert f"one in ten instances of a real trace: {len(ids):,} runs" in one_line(PAGE)
    assert f"in {' and '.join(map(str, years))}" in one_line(PAGE)


def test_views_and_variables() -> None:
    """The page lists every view, and switches the warehouse on as the Terraform module does."""
    listed = [name for row in table(PAGE, "view") for name in codes(row[0])]
    module = TerraformModule()

    assert sorted(views()) == sorted(listed)
    assert "warehouse_enabled = true" == fenced(PAGE, "hcl").strip()
    assert module.variables["warehouse_enabled"]["default"] is False
    assert DATASET == f"{module.value('${var.name}').replace('-', '_')}."
