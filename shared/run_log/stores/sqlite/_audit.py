"""SQLite's part of an audit: reads in one transaction, and the repair in another, of its own."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from run_log.core import InvalidArgumentError, StoreError, StoreUnavailableError
from run_log.stores._commits import StatsWrite
from run_log.stores._retention import Retention
from run_log.stores.audit._port import WHOLE_PAGE, CountsRepair, RunDocument, StoredCounts

from ._connection import Connection
from ._queries import COUNTERS, HAS_REPAIRS, NEXT_WORKFLOW, REPAIRS, WORKFLOW, Query, documents_query
from ._rows import (
    ADD_TO_COUNTER,
    ADD_TO_WORKFLOW,
    COUNT_REPAIR,
    counter_from_row,
    counter_rows,
    document_from_row,
    stats_from_row,
    workflow_row,
)
from ._schema import transaction

_T = TypeVar("_T")

_FIRST: Final = ""
"""No document id is empty: all come after it."""


class SQLiteAudit:
    """See `Audit`.

    Args:
        path: The file.
        busy_seconds: How long a call waits for it while others write to it.
        retention: How long ended runs are kept; None keeps all.
        now: The time.
        page: How many runs are read at a time.
    """

    def __init__(
        self,
        path: str,
        *,
        busy_seconds: float,
        retention: Retention | None,
        now: Callable[[], datetime],
        page: int,
    ) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._retention = retention
        self._now = now
        self._page = page

    @property
    def retention(self) -> timedelta | None:
        """See `Audit.retention`."""
        return self._retention.keeps if self._retention else None

    def now(self) -> datetime:
        """See `Audit.now`."""
        return self._now()

    async def workflows(self) -> AsyncGenerator[str]:
        """See `Audit.workflows`."""
        async with self._connected() as connection:
            workflow = await connection.run(partial(_next_workflow, after=_FIRST))
            while workflow is not None:
                yield workflow
                workflow = await connection.run(partial(_next_workflow, after=workflow))

    @contextlib.asynccontextmanager
    async def snapshot(self, workflow: str, *, at: datetime | None = None) -> AsyncGenerator[SQLiteSnapshot]:
        """See `Audit.snapshot`.

        Raises:
            InvalidArgumentError: *at* is given: a file cannot be read as it was.
        """
        if at is not None:
            raise InvalidArgumentError("a file cannot be read as it was: at has to be None")
        # Of their own, so that no other call of the service is in the transaction, nor waits for its end.
        async with self._connected() as reader, self._connected(writes=True) as writer:
            repairs = await reader.run(partial(_begin, workflow=workflow))
            yield SQLiteSnapshot(reader, writer, workflow, repairs=repairs, page=self._page)

    @contextlib.asynccontextmanager
    async def _connected(self, *, writes: bool = False) -> AsyncGenerator[Connection]:
        connection = Connection(self._path, busy_seconds=self._busy_seconds, writes=writes)
        try:
            yield connection
        finally:
            await connection.close()


class SQLiteSnapshot:
    """See `WorkflowSnapshot`.

    Args:
        reader: A connection that has begun its transaction.
        writer: One for repairs.
        workflow: The workflow's document id.
        repairs: How often its counts were repaired before.
        page: How many runs are read at a time.
    """

    def __init__(
        self, reader: Connection, writer: Connection, workflow: str, *, repairs: int, page: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._workflow = workflow
        self._repairs = repairs
        self._page = page

    @property
    def at(self) -> datetime | None:
        """See `WorkflowSnapshot.at`."""
        return None

    async def counts(self) -> StoredCounts:
        """See `WorkflowSnapshot.counts`."""
        return await self._read(partial(_counts, workflow=self._workflow))

    async def documents(self, *, whole: bool) -> AsyncGenerator[Sequence[RunDocument]]:
        """See `WorkflowSnapshot.documents`."""
        size = min(self._page, WHOLE_PAGE) if whole else self._page
        after = _FIRST
        while True:
            query = documents_query(self._workflow, after, whole=whole, most=size)
            page = await self._read(partial(_documents, query=query, whole=whole))
            if page:
                yield page
                after = page[-1].id
            if len(page) < size:
                return

    async def repair(self, change: CountsRepair) -> bool:
        """See `WorkflowSnapshot.repair`."""
        return await self._writer.run(
            partial(_repair, workflow=self._workflow, expected=self._repairs, change=change)
        )

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def within(connection: sqlite3.Connection) -> _T:
            if not connection.in_transaction:
                # A fork has closed it, and what is open now would see another moment.
                raise StoreUnavailableError("the transaction that read the file was cut short; try again")
            return work(connection)

        return await self._reader.run(within)


def _next_workflow(connection: sqlite3.Connection, after: str) -> str | None:
    (workflow,) = connection.execute(NEXT_WORKFLOW, (after,)).fetchone()
    return None if workflow is None else str(workflow)


def _begin(connection: sqlite3.Connection, workflow: str) -> int:
    """Begin to read, and return how often the workflow's counts were repaired before."""
    connection.execute("BEGIN")
    # A file from before there were repairs is read as it is.
    (knows_repairs,) = connection.execute(HAS_REPAIRS).fetchone()
    return _repaired(connection, workflow) if knows_repairs else 0


def _repaired(connection: sqlite3.Connection, workflow: str) -> int:
    row = connection.execute(REPAIRS, (workflow,)).fetchone()
    return int(row[0]) if row else 0


def _counts(connection: sqlite3.Connection, workflow: str) -> StoredCounts:
    row = connection.execute(WORKFLOW, (workflow,)).fetchone()
    rows = connection.execute(COUNTERS, (workflow,)).fetchall()
    try:
        stats = stats_from_row(row) if row else None
        counters = dict(map(counter_from_row, rows))
    except StoreError as error:
        return StoredCounts(problem=str(error))
    if stats is None:
        return StoredCounts(counters=counters)
    return StoredCounts(
        workflow_id=stats.workflow_id,
        total=stats.total,
        successful=stats.successful,
        by_status=stats.by_status,
        counters=counters,
    )


def _documents(connection: sqlite3.Connection, query: Query, *, whole: bool) -> list[RunDocument]:
    rows = connection.execute(query.sql, query.values).fetchall()
    return [
        RunDocument(id=run, fields=fields)
        for run, fields in map(partial(document_from_row, whole=whole), rows)
    ]


def _repair(connection: sqlite3.Connection, workflow: str, expected: int, change: CountsRepair) -> bool:
    write = StatsWrite(
        workflow_id=change.workflow_id,
        shard=0,
        delta=change.delta,
        counters=change.counters,
        as_of=change.as_of,
    )
    with transaction(connection):
        if _repaired(connection, workflow) != expected:
            return False
        connection.execute(COUNT_REPAIR, (workflow,))
        connection.execute(ADD_TO_WORKFLOW, workflow_row(write))
        connection.executemany(ADD_TO_COUNTER, counter_rows(write))
    return True
