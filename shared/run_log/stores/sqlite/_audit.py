"""SQLite's part of an audit: reads in one transaction, and the repair in another, of its own."""

from __future__ import annotations

import contextlib
import reprlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from typing_extensions import override

from run_log.core import InvalidArgumentError, StoreError, StoreUnavailableError
from run_log.stores.audit.port import (
    WHOLE_PAGE,
    Audit,
    CountsRepair,
    RunDocument,
    StoredCounts,
    WorkflowSnapshot,
)
from run_log.stores.committing.commits import StatsWrite
from run_log.stores.sqlite._projection import Terms, add_counts
from run_log.stores.stored.reading import id_at

from ._connection import Connection
from ._queries import (
    BARE_COLUMNS,
    COUNT_RUNS,
    COUNTERS,
    DOCUMENT_COLUMNS,
    HAS_REPAIRS,
    IS_TEXT,
    REPAIRS,
    WORKFLOW,
    counter_from_row,
    documents_query,
    fields_from_row,
    next_workflow_query,
    stats_from_row,
)
from ._schema import transaction

_COUNT_REPAIR = (
    "INSERT INTO repairs (workflow, count) VALUES (?, 1) "
    "ON CONFLICT (workflow) DO UPDATE SET count = count + 1"
)

_T = TypeVar("_T")

# A workflow's document id, and whether it is a text.
_Found = tuple[object, bool]


class SQLiteAudit(Audit):
    """Checks a file, each workflow in a transaction of its own. Reads *page* runs at a time."""

    def __init__(self, path: str, *, busy_seconds: float, terms: Terms, page: int) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._terms = terms
        self._page = page
        self._odd: dict[str, _Found] = {}
        """Document ids that are no text, by the names that were given to them."""

    @property
    @override
    def retention(self) -> timedelta | None:
        return self._terms.retention.keeps if self._terms.retention else None

    @override
    def now(self) -> datetime:
        return self._terms.now()

    @override
    async def workflows(self) -> AsyncGenerator[str]:
        async with self._connected() as connection:
            found = await connection.run(partial(_next_workflow, after=(None, True)))
            while found[0] is not None:
                yield self._name(found)
                found = await connection.run(partial(_next_workflow, after=found))

    @contextlib.asynccontextmanager
    @override
    async def snapshot(self, workflow: str, *, at: datetime | None = None) -> AsyncGenerator[SQLiteSnapshot]:
        if at is not None:
            raise InvalidArgumentError("a file cannot be read as it was: at has to be None")
        # Of their own, so that no other call of the service is in the transaction, nor waits for its end.
        async with self._connected() as reader, self._connected(writes=True) as writer:
            if workflow in self._odd:
                count = await reader.run(partial(_count_runs, found=self._odd[workflow]))
                raise StoreError(
                    f"its id in the file, {reprlib.repr(self._odd[workflow][0])}, is no text: no query finds "
                    f"it, nor its {count} runs; correct the id, or delete them"
                )
            repairs = await reader.run(partial(_begin, workflow=workflow))
            yield SQLiteSnapshot(reader, writer, workflow, repairs=repairs, page=self._page)

    def _name(self, found: _Found) -> str:
        """Return a document id; where it is no text, a name that no document has and `snapshot` knows."""
        if isinstance(found[0], str):
            return found[0]
        name = f"{'text' if found[1] else 'bytes'}/{found[0]!r}"
        self._odd[name] = found
        return name

    @contextlib.asynccontextmanager
    async def _connected(self, *, writes: bool = False) -> AsyncGenerator[Connection]:
        connection = Connection(self._path, busy_seconds=self._busy_seconds, writes=writes)
        try:
            yield connection
        finally:
            await connection.close()


class SQLiteSnapshot(WorkflowSnapshot):
    """A workflow as one transaction reads it, which *reader* has begun; *writer* is for repairs.

    *repairs* says how often the counts were repaired before.
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
    @override
    def at(self) -> datetime | None:
        return None

    @override
    async def counts(self) -> StoredCounts:
        return await self._read(partial(_counts, workflow=self._workflow))

    @override
    async def documents(self, *, whole: bool) -> AsyncGenerator[Sequence[RunDocument]]:
        columns = DOCUMENT_COLUMNS if whole else BARE_COLUMNS
        size = min(self._page, WHOLE_PAGE) if whole else self._page
        query = documents_query(self._workflow, columns)
        # One cursor for all pages: it moves on by itself, whatever ids something else put there.
        rows = await self._read(lambda connection: connection.execute(*query))
        after: str | None = None
        while found := await self._read(lambda _: rows.fetchmany(size)):
            for run in (row[1] for row in found if isinstance(row[1], str)):
                if after is not None and run <= after:
                    raise StoreError(
                        f"the file is damaged: run {id_at(run)!r} comes again after {id_at(after)!r}; "
                        "restore it from a copy"
                    )
                after = run
            yield [RunDocument(id=str(row[1]), fields=fields_from_row(columns, row)) for row in found]

    @override
    async def repair(self, change: CountsRepair) -> bool:
        return await self._writer.run(
            partial(_repair, workflow=self._workflow, expected=self._repairs, change=change)
        )

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def within(connection: sqlite3.Connection) -> _T:
            if not connection.in_transaction:
                # A fork has closed the connection, and the one that is open now would see another moment.
                raise StoreUnavailableError("the transaction that read the file was cut short; try again")
            return work(connection)

        return await self._reader.run(within)


def _next_workflow(connection: sqlite3.Connection, after: _Found) -> _Found:
    workflow, is_text = connection.execute(*next_workflow_query(after[0], is_text=after[1])).fetchone()
    return workflow, bool(is_text)


def _count_runs(connection: sqlite3.Connection, found: _Found) -> int:
    (count,) = connection.execute(COUNT_RUNS.format(IS_TEXT[found[1]]), found[:1]).fetchone()
    return int(count)


def _begin(connection: sqlite3.Connection, workflow: str) -> int:
    connection.execute("BEGIN")
    # A file from before there were repairs is read as it is.
    (knows_repairs,) = connection.execute(HAS_REPAIRS).fetchone()
    return _repaired(connection, workflow) if knows_repairs else 0


def _repaired(connection: sqlite3.Connection, workflow: str) -> int:
    row = connection.execute(REPAIRS, (workflow,)).fetchone()
    if row is None:
        return 0
    if not isinstance(row[0], int):
        raise StoreError(f"its repairs are damaged: {reprlib.repr(row[0])} is no count; set it to 0")
    return row[0]


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
        connection.execute(_COUNT_REPAIR, (workflow,))
        add_counts(connection, [write])
    return True
