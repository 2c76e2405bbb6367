"""Every query of the embedded file has its index: nothing is scanned, nothing is sorted."""

from __future__ import annotations

import asyncio
import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from run_log.core import RunRef, RunStatus, TriggerType
from run_log.stores import SQLiteRunLogService
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Position, Selection
from run_log.stores.sqlite._projection import DELETE_EXPIRED, FORGET_COUNTERS, FORGET_LABELS
from run_log.stores.sqlite._queries import (
    BARE_COLUMNS,
    COUNTERS,
    DOCUMENT_COLUMNS,
    HEAD,
    REPAIRS,
    RUN,
    WORKFLOW,
    WORKFLOWS,
    Query,
    changed_query,
    count_query,
    documents_query,
    next_workflow_query,
    placed_query,
    runs_query,
)
from run_log.stores.sqlite._schema import migrate
from run_log.stores.sqlite._updates import ChangePosition
from run_log.stores.stale import StaleSelection
from run_log.testing import an_event

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
ENDED: Final = (RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.SKIPPED)
PLACE: Final = Position(NOON, "r", "w")
POSITION: Final = Position(NOON, "r")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Yield an empty database with the tables and indexes of today."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        migrate(opened, "memory")
        yield opened


def plan(connection: sqlite3.Connection, query: Query) -> list[str]:
    """Return what SQLite says it will do, step by step."""
    rows = connection.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.values)
    return [detail for *_, detail in rows]


def listings() -> Iterator[tuple[Selection, Position | None]]:
    """Yield every shape of a workflow's listing."""
    several = (RunStatus.FAILED, RunStatus.SKIPPED, RunStatus.PAUSED)
    for statuses, trigger, since, until, order, after in itertools.product(
        (None, several[:1], several),
        (None, TriggerType.MANUAL),
        (None, NOON),
        (None, NOON),
        Order,
        (None, POSITION),
    ):
        yield (
            Selection(statuses=statuses, trigger_type=trigger, since=since, until=until, order=order),
            after,
        )


def places() -> Iterator[tuple[InboxSelection | StaleSelection, Position | None]]:
    """Yield every shape of the inbox, and of what is stale."""
    for workflow_id, after in itertools.product((None, "w"), (None, PLACE)):
        yield StaleSelection(before=NOON, workflow_id=workflow_id), after
        for assignee, overdue in itertools.product((None, "mei"), (None, True, False)):
            yield (
                InboxSelection(assignee=assignee, overdue=overdue, workflow_id=workflow_id, now=NOON),
                after,
            )


def test_listings(connection: sqlite3.Connection) -> None:
    """A listing with any filters, from any place, is searched in one index and read in its order."""
    for selection, after in listings():
        steps = plan(connection, runs_query("w", selection, after))

        searches = [step for step in steps if step.startswith("SEARCH runs USING INDEX runs_by_")]
        merges = [step for step in steps if step.startswith(("MERGE", "LEFT", "RIGHT"))]
        assert len(selection.statuses or "1") == len(searches)
        assert len(steps) == len(searches) + len(merges)
        # From the place on, or to it: not from the workflow's end.
        assert all("(started_at,run)" in step for step in searches) or after is None
        # And from or to the times that are asked for, where no place bounds that end.
        for bound, moment, order in (
            ("started_at>?", selection.since, Order.OLDEST),
            ("started_at<?", selection.until, Order.NEWEST),
        ):
            is_free = after is None or selection.order is not order
            assert all((bound in step) == (moment is not None and is_free) for step in searches)


FOUND: Final = {
    "start": Selection(),
    "status": Selection(statuses=(RunStatus.FAILED,)),
    "statuses": Selection(statuses=(RunStatus.FAILED, RunStatus.PAUSED)),
    "label": Selection(labels=(("customer", "acme"),)),
    "parent": Selection(parent=RunRef("w", "r")),
    "error_type": Selection(error_type="ValueError"),
}


@pytest.mark.parametrize("of_all", [False, True])
@pytest.mark.parametrize("name", FOUND)
def test_what_runs_are_found_by(connection: sqlite3.Connection, name: str, *, of_all: bool) -> None:
    """Runs of one workflow and of all, by anything, from any place, are searched in one index."""
    for order, since, until, after, payloads in itertools.product(
        Order, (None, NOON), (None, NOON), (None, PLACE if of_all else POSITION), (True, False)
    ):
        selection = replace(FOUND[name], order=order, since=since, until=until)
        assert selection == selection.by_index(of_all=of_all)
        steps = plan(
            connection,
            runs_query(None if of_all else "w", selection, after, payloads=payloads),
        )

        index = f"{'all' if of_all else 'runs'}_by_{name.replace('statuses', 'status')}"
        table = "labels" if name == "label" else "runs"
        reads = [
            step for step in steps if f"USING INDEX {index}" in step or f"COVERING INDEX {index}" in step
        ]
        merges = [step for step in steps if step.startswith(("MERGE", "LEFT", "RIGHT"))]
        joined = ["SEARCH runs USING INDEX sqlite_autoindex_runs_1 (workflow=? AND run=?)"]
        others = [step for step in steps if step not in (*reads, *merges)]
        assert len(selection.statuses or "1") == len(reads)
        assert (joined if name == "label" else []) == others
        is_whole = of_all and name == "start" and (after, since, until) == (None, None, None)
        assert all(step.startswith(f"{'SCAN' if is_whole else 'SEARCH'} {table} ") for step in reads)
        assert after is None or all(
            f"({'began' if name == 'label' else 'started_at'}," in step for step in reads
        )


EXPIRED: Final = ["SEARCH runs USING COVERING INDEX expired (expire_at<?)"]


@pytest.mark.parametrize("of_all", [False, True])
@pytest.mark.parametrize("name", FOUND)
def test_counts(connection: sqlite3.Connection, name: str, *, of_all: bool) -> None:
    """A count searches the index of its listing and reads no run, but for one of a label to be its own."""
    for since, until in itertools.product((None, NOON), (None, NOON)):
        selection = replace(FOUND[name], since=since, until=until)
        first, *others = _counting(connection, selection, of_all=of_all)

        index = f"{'all' if of_all else 'runs'}_by_{name.replace('statuses', 'status')}"
        table, start = ("labels", "began") if name == "label" else ("runs", "started_at")
        joined = ["SEARCH runs USING INDEX sqlite_autoindex_runs_1 (workflow=? AND run=?)"]
        is_whole = of_all and name == "start" and (since, until) == (None, None)
        way = "SCAN" if is_whole else "SEARCH"
        assert first.startswith(f"{way} {table} USING COVERING INDEX {index}")
        assert (since is not None, until is not None) == (f"{start}>" in first, f"{start}<" in first)
        assert [*joined * (name == "label"), *EXPIRED] == others


def test_counts_by_several_filters(connection: sqlite3.Connection) -> None:
    """A count by more than an index has reads the runs that this finds, and looks up each further label."""
    everything = Selection(
        statuses=ENDED,
        trigger_type=TriggerType.MANUAL,
        labels=(("customer", "acme"), ("team", "a")),
        error_type="ValueError",
    )
    of_labels = ["SEARCH labels USING PRIMARY KEY (of_workflow=? AND of_run=? AND label=?)"]

    first, _, *others = _counting(connection, everything, of_all=False)
    by_parent, *further = _counting(connection, replace(everything, parent=RunRef("w", "r")), of_all=True)

    assert "SEARCH labels USING COVERING INDEX runs_by_label (of_workflow=? AND label=?)" == first
    assert [*EXPIRED, *of_labels] == others
    assert by_parent.startswith("SEARCH runs USING INDEX all_by_parent (parent_workflow_id=? AND ")
    assert [*EXPIRED, *of_labels, *of_labels] == further


def _counting(connection: sqlite3.Connection, selection: Selection, *, of_all: bool) -> list[str]:
    steps = plan(connection, count_query(None if of_all else "w", selection, NOON))
    return [step for step in steps if "SUBQUERY" not in step]


def test_the_inbox_and_the_stale(connection: sqlite3.Connection) -> None:
    """The inbox and what is stale, with any filters, from any place, is searched in an index of its own."""
    for selection, after in places():
        (step,) = plan(connection, placed_query(selection, after))

        prefix = "stale" if isinstance(selection, StaleSelection) else "inbox"
        assert step.startswith(f"SEARCH runs USING INDEX {prefix}")
        assert ("workflow=?" in step) == (selection.workflow_id is not None)
        assert f"({selection.sorted_by}," in step or after is None
        if isinstance(selection, InboxSelection):
            assert ("paused_assignee=?" in step) == (selection.assignee is not None)
            assert (f"{selection.sorted_by}<?" in step) == bool(selection.overdue)
            is_first = selection.overdue is False and after is None
            assert f"{selection.sorted_by}>?" in step or not is_first


@pytest.mark.parametrize(
    ("sql", "values", "step"),
    [
        (RUN, ("w", "r"), "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (workflow=? AND run=?)"),
        (HEAD, ("w", "r"), "SEARCH runs USING INDEX sqlite_autoindex_runs_1 (workflow=? AND run=?)"),
        (WORKFLOW, ("w",), "SEARCH workflows USING PRIMARY KEY (workflow=?)"),
        (WORKFLOWS, ("w",), "SEARCH workflows USING PRIMARY KEY (workflow>?)"),
        (COUNTERS, ("w",), "SEARCH counters USING PRIMARY KEY (workflow=?)"),
    ],
)
def test_single_rows(connection: sqlite3.Connection, sql: str, values: tuple[str, ...], step: str) -> None:
    """A run, a head and a workflow are found by their key, and workflows come by it."""
    assert [step] == plan(connection, Query(sql=sql, values=values))


def test_what_is_over(connection: sqlite3.Connection) -> None:
    """What has expired is found by an index, and the hours that are over and labels by their key."""
    labels, expired = (plan(connection, Query(sql=sql, values=(0, 100))) for sql in DELETE_EXPIRED)
    forgotten = plan(connection, Query(sql=re.sub(r":\w+", "?", FORGET_LABELS), values=("w", "r")))
    hours = plan(connection, Query(sql=FORGET_COUNTERS, values=("w", "hour", 5)))

    assert ["SEARCH counters USING PRIMARY KEY (workflow=? AND scope=? AND slot<?)"] == hours
    assert "SEARCH runs USING COVERING INDEX expired (expire_at>? AND expire_at<?)" in expired
    assert "SEARCH labels USING PRIMARY KEY (of_workflow=? AND of_run=?)" in labels
    assert ["SEARCH labels USING PRIMARY KEY (of_workflow=? AND of_run=?)"] == forgotten
    assert not any(step.startswith(("SCAN runs", "SCAN labels")) for step in (*expired, *labels))


def test_what_has_changed(connection: sqlite3.Connection) -> None:
    """Runs changed after a transaction are found by an index, in the order of their changes."""
    after = ChangePosition(7, "w", "r")

    assert [
        ["SEARCH runs USING INDEX runs_by_change ((changed,workflow,run)>(?,?,?))"],
        ["SEARCH runs USING INDEX runs_of_workflow_by_change (workflow=? AND (changed,run)>(?,?))"],
    ] == [plan(connection, changed_query(workflow_id, after)) for workflow_id in (None, "w")]


@pytest.mark.search
def test_no_more_is_read_than_wanted(tmp_path: Path) -> None:
    """A page makes SQLite do as much in a workflow of ten thousand runs as in one of a hundred."""
    steps = {count: _steps(tmp_path / str(count), count) for count in (100, 10_000)}

    assert steps[100] == steps[10_000]


def _steps(path: Path, count: int) -> list[int]:
    """Return how many hundreds of instructions of its machine SQLite takes for some pages of ten."""

    async def fill() -> None:
        service = SQLiteRunLogService(path=path)
        await service.apply(
            [
                an_event(workflow_id="w", id=f"r{n:06}", status=ENDED[n % 3], hlc=n, started_at=NOON)
                for n in range(count)
            ]
        )
        await service.close()

    asyncio.run(fill())
    selections = (Selection(), Selection(statuses=ENDED[:2]))
    after = Position(NOON, f"r{count // 2:06}")
    return [_steps_of(path, runs_query("w", selection, after)) for selection in selections]


def _steps_of(path: Path, query: Query) -> int:
    done = itertools.count()
    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(lambda: next(done) < 0, 1)
        with closing(connection.execute(query.sql, query.values)) as rows:
            assert 10 == len(list(itertools.islice(rows, 10)))
    return next(done) // 100


@pytest.mark.parametrize("columns", [BARE_COLUMNS, DOCUMENT_COLUMNS], ids=["bare", "whole"])
def test_audits(connection: sqlite3.Connection, columns: Sequence[str]) -> None:
    """An audit reads a workflow's runs in the order of an index, and skips from one workflow to the next."""
    (runs,) = plan(connection, documents_query("w", columns))
    workflows = [plan(connection, next_workflow_query("w", is_text=is_text)) for is_text in (True, False)]
    (repairs,) = plan(connection, Query(sql=REPAIRS, values=("w",)))

    assert runs.startswith("SEARCH runs USING INDEX sqlite_autoindex_runs_1 (workflow=?)")
    for steps in workflows:
        assert 2 == sum("(workflow>?)" in step for step in steps)
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN runs") for step in steps)
    assert repairs.startswith("SEARCH repairs USING PRIMARY KEY (workflow=?)")
