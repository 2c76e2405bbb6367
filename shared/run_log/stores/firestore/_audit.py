"""Firestore's part of an audit: reads as of one moment, and the repair that adds what was wrong then.

``{root}/{workflow}/repairs/last`` counts the repairs of a workflow. Each is written together with it, on the
condition that nobody has written it since the moment of the reads: so two never add the same difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from google.api_core import exceptions as google_errors
from typing_extensions import override

from run_log.core import StoreError, WorkflowRun, utc_now
from run_log.core.clock import moment_of
from run_log.core.errors import GuessRefusedError
from run_log.core.ids import document_id, original_id
from run_log.core.stats import StatsDelta
from run_log.stores.audit.port import (
    WHOLE_PAGE,
    Audit,
    CountsRepair,
    RunDocument,
    StoredCounts,
    WorkflowSnapshot,
)
from run_log.stores.committing.commits import MAX_STATS_CHANGES, StatsWrite
from run_log.stores.retention import Retention
from run_log.stores.stored.fields import EXPIRE_AT, PAYLOADS, PROJECTION

from ._documents import FirestoreDocuments, further_stats_paths, summed
from .client import RUNS, Connection, Patience, fields_of

REPAIRS: Final = "repairs"
"""The collection below a workflow's document that holds how often its counts were repaired."""

_WITHOUT_PAYLOADS: Final = (
    *(name for name in WorkflowRun.model_fields if name not in PAYLOADS),
    EXPIRE_AT,
    PROJECTION,
)


class FirestoreAudit(Audit):
    """Checks a root collection, one workflow as of one moment. Reads *page* documents at a time."""

    def __init__(
        self,
        connection: Connection,
        root: str,
        *,
        patience: Patience,
        retention: Retention | None = None,
        now: Callable[[], datetime] = utc_now,
        page: int,
    ) -> None:
        self.connection = connection
        self.root = root
        self.patience = patience
        self._retention = retention
        self._now = now
        self.page = page

    @property
    @override
    def retention(self) -> timedelta | None:
        return self._retention.keeps if self._retention else None

    @override
    def now(self) -> datetime:
        return self._now()

    @override
    async def workflows(self) -> AsyncGenerator[str]:
        token = ""
        while True:
            # Missing ones too: whose document was deleted may have runs.
            names, token = await self.patience.run(
                partial(self.connection.names, self.root, size=self.page, token=token)
            )
            for name in names:
                yield name.rpartition("/")[2]
            if not token:
                return

    async def store_now(self) -> datetime:
        """Return Firestore's time."""
        # It takes a moment to read at in whole microseconds only, and answers in nanoseconds.
        return moment_of(await self.patience.run(partial(self.connection.now, self.root)) // 1_000)

    @contextlib.asynccontextmanager
    @override
    async def snapshot(
        self, workflow: str, *, at: datetime | None = None
    ) -> AsyncGenerator[FirestoreSnapshot]:
        yield FirestoreSnapshot(self, workflow, await self.store_now() if at is None else at)


class FirestoreSnapshot(WorkflowSnapshot):
    """A workflow, by its document id, as Firestore had it at a moment of whole microseconds."""

    def __init__(self, audit: FirestoreAudit, workflow: str, at: datetime) -> None:
        self._audit = audit
        self._connection = audit.connection
        self._workflow = workflow
        self._at = at
        self._path = f"{audit.root}/{workflow}"
        self._guard = f"{self._path}/{REPAIRS}/last"
        self._seen: list[Any] = []
        """The mark of the guard, once it was read: None where it was not there."""

    @property
    @override
    def at(self) -> datetime:
        return self._at

    @override
    async def counts(self) -> StoredCounts:
        found = await self._documents([self._path, self._guard])
        if not self._seen:
            # Together with the counts, so that no repair is in the one and not in the other.
            guard = found.get(self._guard)
            self._seen.append(None if guard is None else guard.update_time)
        if self._path not in found:
            return StoredCounts()
        fields = fields_of(found[self._path].fields)
        said = fields.get("workflow_id", original_id(self._workflow))
        if not isinstance(said, str) or not said or document_id(said) != self._workflow:
            return StoredCounts(problem=f"their document says that it is of workflow {said!r}")
        further = await self._documents(further_stats_paths(self._audit.root, said, fields))
        documents = [fields, *(fields_of(shard.fields) for shard in further.values())]
        try:
            stats, counters = summed(said, documents)
        except StoreError as error:
            return StoredCounts(problem=str(error))
        return StoredCounts(
            workflow_id=said,
            total=stats.total,
            successful=stats.successful,
            by_status=stats.by_status,
            counters=counters,
        )

    @override
    async def documents(self, *, whole: bool) -> AsyncGenerator[Sequence[RunDocument]]:
        size = min(self._audit.page, WHOLE_PAGE) if whole else self._audit.page
        after: str | None = None
        while True:
            page = await self._audit.patience.run(partial(self._runs, after, size, whole=whole))
            if page:
                yield page
                after = page[-1].id
            if len(page) < size:
                return

    @override
    async def repair(self, change: CountsRepair) -> bool:
        if not self._seen:
            await self.counts()
        (mark,) = self._seen
        # Differences, not the recount itself: what projectors have added since the moment stays.
        documents = FirestoreDocuments(self._connection, self._audit.root)
        for part in _parts(change):

            async def add(part: StatsWrite = part, mark: Any = mark) -> Any:
                try:
                    return await documents.repair(part, guard=self._guard, expected=mark)
                except GuessRefusedError as error:
                    if isinstance(error.__cause__, google_errors.Aborted):
                        raise self._connection.error(error.__cause__) from error  # locks were not to be had
                    return None

            mark = await self._audit.patience.run(add)
            if mark is None:
                return False
        return True

    async def _documents(self, paths: Sequence[str]) -> dict[str, Any]:
        """Return those of the documents at *paths* that are there."""
        if not paths:
            return {}
        found = await self._audit.patience.run(partial(self._connection.documents, paths, at=self._at))
        return {self._connection.path(document): document for document in found}

    async def _runs(self, after: str | None, size: int, *, whole: bool) -> list[RunDocument]:
        client = self._connection.client()
        runs = client.document(self._path).collection(RUNS)
        # By names, which every document has: in the order of a field, one that lacks it would not be seen.
        query = (runs if whole else runs.select(_WITHOUT_PAYLOADS)).order_by("__name__").limit(size)
        if after is not None:
            query = query.start_after({"__name__": runs.document(after)})
        return [
            RunDocument(id=document.name.rpartition("/")[2], fields=fields_of(document.fields))
            for document in await self._connection.query(query, at=self._at)
        ]


def _parts(change: CountsRepair) -> Iterator[StatsWrite]:
    """Yield *change* as writes that Firestore takes, all that is not in the summary first."""
    first = StatsWrite(workflow_id=change.workflow_id, shard=0, delta=change.delta, as_of=change.as_of)
    # Several commits where there are many. A repair that is cut short has added some of them, and the next
    # recount finds what is left.
    counters = list(change.counters.items())
    room = MAX_STATS_CHANGES - first.changes
    for start in range(0, max(len(counters), 1), room):
        part = replace(first, counters=dict(counters[start : start + room]))
        yield part if start == 0 else replace(part, delta=StatsDelta())
