"""The run log in one file, for several processes of one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from typing_extensions import override

from run_log.core import (
    ConfigurationError,
    NotFoundError,
    Outcome,
    RunEvent,
    Settings,
    StoreError,
    Version,
    WorkflowRun,
    utc_now,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id
from run_log.core.law import RunHead
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Position, Selection
from run_log.stores.notices import Notice, NoticeKind
from run_log.stores.ports import AUDIT_PAGE
from run_log.stores.retention import Retention
from run_log.stores.saves import SavesUnderWay
from run_log.stores.service import RunLogService
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.reading import (
    Page,
    Sieve,
    StoredRun,
    each_readable,
    head_from_fields,
    id_at,
    readable,
)
from run_log.stores.summaries import WorkflowStats
from run_log.stores.telemetry import skipped_unreadable_stats

from . import _notices
from ._connection import Connection, Reading
from ._projection import Terms, answer, apply, expire, save
from ._queries import (
    COUNTERS,
    HEAD,
    HEAD_COLUMNS,
    RECORD,
    RUN,
    STATE,
    WORKFLOW,
    WORKFLOWS,
    Query,
    Row,
    changed_query,
    count_query,
    counter_from_row,
    fields_from_row,
    placed_query,
    record_from_row,
    run_from_row,
    runs_query,
    stats_from_row,
)
from ._schema import transaction
from ._updates import PAGE, ChangePosition, SQLiteUpdates

if TYPE_CHECKING:
    from ._audit import SQLiteAudit

BUSY_TIMEOUT: Final = timedelta(seconds=10)
"""How long a call waits for the file while others write to it."""

_T = TypeVar("_T")


class SQLiteRunLogService(RunLogService):
    """A run log that outlives its process, in one file of this machine.

    It keeps every run. Several processes may use one file at once, each through a service of its own: one
    writes at a time, and readers wait for nobody. What a call has written is on the disk when it returns.
    Usable from several event loops, and after a fork by parent and child. A closed service opens again when
    it is used.

    Args:
        path: The file, made by the first save where it is not there; until then queries find an empty run
            log, and make nothing. On a disk of this machine, since processes share memory beside it, which a
            network file system does not.
        busy_timeout: How long a call waits for the file while others write to it.
        retention_days: How long after its latest event a run expires that has ended; None keeps all. What has
            expired is deleted by a later write.
        now: The time, to tell which days and hours the summaries count, and which runs have expired.
        clock: Stamps what is saved.

    Raises:
        ConfigurationError: *retention_days* is not within 1 and `MAX_RETENTION_DAYS`, or *path* is none, but
            ``:memory:`` or a URI.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] = "run-log.sqlite3",
        busy_timeout: timedelta = BUSY_TIMEOUT,
        retention_days: int | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: HybridLogicalClock = PROCESS_CLOCK,
    ) -> None:
        super().__init__(clock)
        self._terms = Terms(retention=Retention.of_days(retention_days), now=now, clock=clock)
        # The process may change its directory before the first use.
        self._named = _file(path)
        self._path = os.path.abspath(self._named)  # noqa: PTH100 - Path.absolute() keeps what leads upwards
        self._busy_seconds = busy_timeout.total_seconds()
        self._writer = Connection(self._path, busy_seconds=self._busy_seconds)
        # Of its own, so that no query waits for a write.
        self._reader = Connection(self._path, busy_seconds=self._busy_seconds, writes=False)
        self._saves = SavesUnderWay()

    @classmethod
    @override
    def from_settings(cls, settings: Settings) -> Self:
        """``~`` in the path is the home directory."""
        # Nobody's shell has looked at what a container or a service manager sets.
        path = os.path.expanduser(settings.sqlite_path)  # noqa: PTH111 - an unknown user's stays as it is
        return cls(path=path, retention_days=settings.retention_days)

    @override
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        return await self._writer.run(partial(apply, events=tuple(events), terms=self._terms))

    def audit(self, *, page: int = AUDIT_PAGE) -> SQLiteAudit:
        """Return what checks the counts, and compares the runs, by so many runs at a time."""
        from ._audit import SQLiteAudit  # noqa: PLC0415 - few who read a file audit it

        return SQLiteAudit(self._path, busy_seconds=self._busy_seconds, terms=self._terms, page=page)

    async def expire(self, days: int) -> int:
        """Have all ended runs expire so many *days* after their latest event that do not yet; count them.

        Raises:
            ConfigurationError: *days* is not within 1 and `MAX_RETENTION_DAYS`, or the file cannot be used.
            StoreUnavailableError: The file is locked for long.
        """
        retention = Retention.of_days(days)
        expired = 0
        after: int | None = 0
        while retention is not None and after is not None:
            count, after = await self._writer.run(partial(expire, retention=retention, after=after))
            expired += count
        return expired

    @property
    @override
    def place(self) -> str:
        return self._path

    @override
    async def reach(self, seconds: float) -> None:
        del seconds  # a file is there at once, or it is not
        # First the file itself: a query would log what the error says, also to a command that makes the file.
        if not Reading(self._path, busy_seconds=self._busy_seconds).is_there():
            raise self._not_there()
        log, _ = await self._state()
        if not log:
            raise self._not_there()

    def _not_there(self) -> NotFoundError:
        what = "run in the file" if os.path.exists(self._path) else "file"  # noqa: PTH110 - as its directory
        where = "" if self._named == self._path else f" ({self._path})"
        return NotFoundError(
            f"there is no {what} {self._named!r}{where}; set RUN_LOG_SQLITE_PATH to the one that runs are "
            "recorded into, or record one to make it"
        )

    async def close(self) -> None:
        """End the watches and close the file, after the calls under way. Closing twice is fine."""
        await self._watches.close()
        try:
            await self._reader.close()
        finally:
            await self._writer.close()

    @override
    async def _save(self, event: RunEvent) -> None:
        with self._saves.begun(event) as is_newest:
            await self._writer.run(partial(save, event=event, is_newest=is_newest, terms=self._terms))

    @override
    async def _apply_answer(self, event: RunEvent, asked: Version) -> None:
        await self._writer.run(partial(answer, event=event, asked=asked, terms=self._terms))

    @override
    async def read_page(
        self,
        workflow_id: str | None,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        payloads: bool,
    ) -> Page:
        def read(rows: Iterable[Row]) -> Page:
            sieve = Sieve(selection, limit)
            sieve.take(each_readable(rows, run_from_row, now=self._terms.now()))
            return sieve.page

        found = selection.by_index(of_all=workflow_id is None)
        return await self._query(runs_query(workflow_id, found, after, payloads=payloads), read)

    @override
    async def read_count(self, workflow_id: str | None, selection: Selection) -> int:
        query = count_query(workflow_id, selection, self._terms.now())
        return await self._query(query, lambda rows: sum(count for (count,) in rows))

    @override
    async def read_overall_page(
        self, selection: InboxSelection | StaleSelection, after: Position | None, limit: int
    ) -> Page:
        query = placed_query(selection, after)
        return Page.of(await self._found(query, limit + 1, selection.is_wanted), limit)

    @override
    async def read_latest(self, workflow_id: str, selection: Selection) -> StoredRun | None:
        found = await self._found(runs_query(workflow_id, selection, None), 1)
        return found[0] if found else None

    @override
    async def read_pending(self) -> Sequence[StoredRun]:
        return await self._found(placed_query(InboxSelection(now=utc_now()), None))

    @override
    async def read_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        key = (workflow_id, run_id)
        stored = await self._one(RUN, lambda row: run_from_row(row, key), *map(document_id, key))
        return None if stored is None or stored.is_expired(self._terms.now()) else stored

    @override
    async def read_head(self, workflow_id: str, run_id: str) -> RunHead | None:
        key = (workflow_id, run_id)
        stored = await self._one(
            HEAD,
            lambda row: head_from_fields(fields_from_row(HEAD_COLUMNS, row), key),
            *map(document_id, key),
        )
        return None if stored is None or stored.is_expired(self._terms.now()) else stored.head

    @override
    async def read_record(
        self, workflow_id: str, run_id: str, *, payloads: bool
    ) -> tuple[StoredRun, RunHead] | None:
        key = (workflow_id, run_id)
        found = await self._one(
            RECORD[payloads], lambda row: record_from_row(row, key), *map(document_id, key)
        )
        return None if found is None or found[0].is_expired(self._terms.now()) else (found[0], found[1].head)

    @override
    async def read_stats(self, workflow_id: str) -> WorkflowStats:
        stats = await self._one(WORKFLOW, stats_from_row, document_id(workflow_id))
        return stats or WorkflowStats(workflow_id=workflow_id)

    @override
    async def read_summary(self, workflow_id: str) -> tuple[WorkflowStats, Mapping[SummaryCounter, int]]:
        place = (document_id(workflow_id),)

        def read(connection: sqlite3.Connection) -> tuple[WorkflowStats | None, dict[SummaryCounter, int]]:
            # In one transaction: both are of one moment.
            with transaction(connection, writes=False):
                row = connection.execute(WORKFLOW, place).fetchone()
                rows = connection.execute(COUNTERS, place).fetchall()
            return stats_from_row(row) if row else None, dict(map(counter_from_row, rows))

        stats, counters = await self._reader.run(read)
        return stats or WorkflowStats(workflow_id=workflow_id), counters

    @override
    async def read_workflows(self, after: str | None, most: int) -> list[WorkflowStats]:
        query = Query(WORKFLOWS, (after or "",))
        return await self._query(query, lambda rows: list(islice(_readable_stats(rows), most)))

    @override
    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        now = self._terms.now()
        await self._writer.run(lambda connection: _notices.put(connection, kind, notices, now))

    @override
    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        await self._writer.run(lambda connection: _notices.remove(connection, kind, keys))

    @override
    async def read_notices(self, kind: NoticeKind, most: int) -> list[Any]:
        now = self._terms.now()
        return await self._reader.run(lambda connection: _notices.read(connection, kind, most, now))

    @override
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> SQLiteUpdates:
        return SQLiteUpdates(
            state=self._state,
            page=partial(self._changed, workflow_id),
            update=self._update,
            selection=selection,
            cursor=cursor,
        )

    @override
    async def read_place(self, selection: str) -> str:
        log, last = await self._state()
        return ChangePosition(last + 1).cursor(log, selection)

    async def _state(self) -> tuple[str, int]:
        row: Row = await self._one(STATE, lambda row: row) or (None, None)
        log, last = row
        if not isinstance(log, str) or not isinstance(last, int):
            raise StoreError(f"{self._path} is damaged: it does not say how many changes it has seen")
        return log, last

    async def _changed(
        self, workflow_id: str | None, after: ChangePosition
    ) -> list[tuple[ChangePosition, StoredRun | None]]:
        def read(rows: Iterable[Row]) -> list[tuple[ChangePosition, StoredRun | None]]:
            now = self._terms.now()
            # Nobody could go on after what something else put in the place of a number or an id.
            placed = (row for row in rows if tuple(map(type, row[:3])) == (int, str, str))
            return [
                (ChangePosition(number, *row[:2]), next(iter(readable([row], run_from_row, now=now)), None))
                for number, *row in islice(placed, PAGE)
            ]

        return await self._query(changed_query(workflow_id, after), read)

    async def _found(
        self,
        query: Query,
        most: int | None = None,
        is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True,
    ) -> list[StoredRun]:
        def read(rows: Iterable[Row]) -> list[StoredRun]:
            return readable(rows, run_from_row, most, now=self._terms.now(), is_wanted=is_wanted)

        return await self._query(query, read)

    async def _one(self, sql: str, read: Callable[[Row], _T], *values: str) -> _T | None:
        return await self._query(Query(sql, values), lambda rows: next(map(read, rows), None))

    async def _query(self, query: Query, read: Callable[[Iterable[Row]], _T]) -> _T:
        def work(connection: sqlite3.Connection) -> _T:
            with closing(connection.execute(*query)) as rows:
                return read(rows)

        return await self._reader.run(work)

    def __repr__(self) -> str:
        """Return where the runs are kept."""
        return f"SQLiteRunLogService(path={self._path!r})"


def _readable_stats(rows: Iterable[Row]) -> Iterator[WorkflowStats]:
    for row in rows:
        try:
            yield stats_from_row(row)
        except StoreError as error:
            skipped_unreadable_stats(id_at(str(row[0])), error)


def _file(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not text.strip() or text == ":memory:" or text.startswith("file:") or "\0" in text:
        raise ConfigurationError(
            f"RUN_LOG_SQLITE_PATH is {text!r}, which is no path of a file; set it to one, or set "
            "RUN_LOG_BACKEND=memory to keep runs in the process alone"
        )
    return text


def create_service(settings: Settings) -> SQLiteRunLogService:
    """Return the back end ``sqlite``: every save is written to the file at once."""
    return SQLiteRunLogService.from_settings(settings)
