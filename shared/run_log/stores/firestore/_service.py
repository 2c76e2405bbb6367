"""The run log's queries on Firestore."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Self

from typing_extensions import override

from run_log.core import (
    ConfigurationError,
    Outcome,
    RunEvent,
    Settings,
    StoreError,
    UnreadableRunError,
    Version,
    WorkflowRun,
    utc_now,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id, original_id
from run_log.core.law import FoldedRun, RunHead
from run_log.core.settings import MAX_STATS_SHARDS, check_collection_id
from run_log.stores.committing.committer import Committer
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Position, Selection
from run_log.stores.notices import Notice, NoticeKind
from run_log.stores.ports import AUDIT_PAGE
from run_log.stores.retention import Retention
from run_log.stores.service import RunLogService
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import ACTIVE_SINCE, PAUSED_DEADLINE, PAUSED_STARTED_AT, PROJECTION
from run_log.stores.stored.reading import (
    Page,
    Sieve,
    StoredRun,
    at_its_place,
    head_from_fields,
    readable,
    stored_run,
)
from run_log.stores.summaries import WorkflowStats
from run_log.stores.telemetry import skipped_unreadable_stats
from run_log.stores.watch import RunUpdate

from ._audit import FirestoreAudit
from ._documents import (
    STATS_FIELDS,
    FirestoreDocuments,
    further_stats_paths,
    stats_path,
    summed,
)
from ._notices import FirestoreNotices
from .client import RUNS, Connection, Patience, fields_of, run_path
from .queries import BUT_PAYLOADS, check_counted, indexed, placed_query, runs_query
from .watch.changes import Bounds, Change, ChangedDocuments, ChangePosition, WatchPosition
from .watch.feed import Feed, FirestoreUpdates

_SORTED_BY: Final = (PAUSED_STARTED_AT, PAUSED_DEADLINE, ACTIVE_SINCE)


class FirestoreRunLogService(RunLogService):
    """A run log that outlives its process, in Firestore.

    ``{root_collection}/{workflow}`` holds a workflow's stats, ``{root_collection}/{workflow}/runs/{run}``
    each run. Usable from several event loops, one after another or at once.

    Args:
        project: Google Cloud project; None takes ``GOOGLE_CLOUD_PROJECT``, then the credentials' own.
        database: Firestore database; None is ``(default)``.
        root_collection: The collection that holds the projection.
        stats_shards: Over how many documents a workflow's stats are spread when they are written. Readers
            add up as many as there are, whatever this says. Raise it where one workflow ends more runs
            than one document takes changes.
        retention_days: How long after its latest event a run expires that has ended; None keeps all. What has
            expired is not seen any more, and is deleted by Firestore's TTL policy on ``expire_at``.
        now: The time, to tell which days and hours the summaries count, and which runs have expired.
        clock: Stamps what is saved.

    Raises:
        ConfigurationError: There is no project, there are no credentials, *root_collection* is no
            collection id, *stats_shards* is not within 1 and `MAX_STATS_SHARDS`, or *retention_days* not
            within 1 and `MAX_RETENTION_DAYS`.
    """

    is_projected = True

    def __init__(
        self,
        *,
        project: str | None = None,
        database: str | None = None,
        root_collection: str = "autopilot_runs",
        stats_shards: int = 1,
        retention_days: int | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: HybridLogicalClock = PROCESS_CLOCK,
    ) -> None:
        super().__init__(clock)
        self._root = check_collection_id(root_collection)
        if not 1 <= stats_shards <= MAX_STATS_SHARDS:
            raise ConfigurationError(f"stats_shards is {stats_shards}, not within 1 and {MAX_STATS_SHARDS}")
        self._connection = Connection(project, database)
        self._patience = Patience()
        self._retention = Retention.of_days(retention_days)
        self._committer = Committer(
            FirestoreDocuments(self._connection, root_collection),
            patience=self._patience,
            stats_shards=stats_shards,
            retention=self._retention,
            wall_now=now,
        )
        self._now = now
        # A query is given up after a while. A watch waits for as long as the store is away.
        self._endless = Patience(math.inf)
        self._bounds = Bounds()
        # Weak, for a loop that has ended comes to no close().
        self._feeds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = weakref.WeakKeyDictionary()

    @property
    def path(self) -> str:
        """The full name of the collection that holds the projection."""
        return f"{self._connection.documents_name}/{self._root}"

    @property
    def where(self) -> str:
        """``emulator at HOST:PORT``, or ``Google Cloud``."""
        return self._connection.where

    @classmethod
    @override
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            project=settings.project,
            database=settings.database,
            root_collection=settings.root_collection,
            stats_shards=settings.stats_shards,
            retention_days=settings.retention_days,
        )

    @override
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        return await self._committer.apply(events)

    def audit(self, *, page: int = AUDIT_PAGE) -> FirestoreAudit:
        """Return what checks the counts, and compares the runs, by so many documents at a time."""
        return FirestoreAudit(
            self._connection,
            self._root,
            patience=self._patience,
            retention=self._retention,
            now=self._now,
            page=page,
        )

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """Merge what another projection holds of *runs*, each once; return what became of its newest event.

        Afterwards each is as if its events had been applied here; the newest 50 of them, where they are more.
        Repeats and order change nothing. It raises what `ProjectionStore.apply` does, and as safe to repeat.
        """
        return await self._committer.merge(runs)

    @property
    @override
    def place(self) -> str:
        return str(self._connection)

    @override
    async def reach(self, seconds: float) -> None:
        """Reads one document."""
        await self._connection.reach(self._root, seconds)

    async def close(self) -> None:
        """End the watches, and close the connection of the running event loop. Closing twice is fine."""
        await self._watches.close()
        await self._connection.close()

    @override
    async def _save(self, event: RunEvent) -> None:
        await self._committer.save(event, clock=self.version_clock)

    @override
    async def _apply_answer(self, event: RunEvent, asked: Version) -> None:
        await self._committer.answer(event, asked)

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
        of_all = workflow_id is None
        runs = self._all_runs() if workflow_id is None else self._runs(workflow_id)
        root = self._root if of_all else None
        query = runs_query(runs, indexed(selection, of_all=of_all), root, payloads=payloads)
        if after is not None:
            # By both: most runs share their start with another, and a time alone would skip or repeat these.
            place = self._run_at(after) if of_all else runs.document(after.run)
            query = query.start_after({"started_at": after.moment, "__name__": place})
        sieve = Sieve(selection, limit)
        asked = sieve.wanted
        last = None
        while True:
            documents = await self._fetch(query.limit(asked), last, "started_at")
            wanted = sieve.wanted
            sieve.take(self._readable(documents))
            if sieve.is_done or len(documents) < asked:
                return sieve.page
            # Where many are passed over, each call reads more of them: it takes its time, too.
            is_sparse = sieve.passed_over or sieve.wanted == wanted
            asked = min(2 * asked, sieve.left) if is_sparse else sieve.wanted
            last = documents[-1]

    @override
    async def read_count(self, workflow_id: str | None, selection: Selection) -> int:
        of_all = workflow_id is None
        check_counted(selection, of_all=of_all)
        runs = self._all_runs() if workflow_id is None else self._runs(workflow_id)
        query = runs_query(runs, selection, self._root if of_all else None)
        return await self._patience.run(partial(self._connection.count, query))

    @override
    async def read_workflows(self, after: str | None, most: int) -> list[WorkflowStats]:
        workflows = self._connection.client().collection(self._root)
        query = workflows.select(STATS_FIELDS).order_by("__name__")
        if after is not None:
            query = query.start_after({"__name__": workflows.document(after)})
        found: list[WorkflowStats] = []
        last = None
        while True:
            wanted = most - len(found)
            documents = await self._fetch(query.limit(wanted), last)
            own = {
                workflow_id: fields
                for document in documents
                if (workflow_id := _workflow_of(document, fields := fields_of(document.fields))) is not None
            }
            for workflow_id, counts in (await self._stats_documents(own, STATS_FIELDS)).items():
                try:
                    found.append(summed(workflow_id, counts)[0])
                except StoreError as error:
                    skipped_unreadable_stats(workflow_id, error)
            if len(documents) < wanted or len(found) == most:
                return found
            last = documents[-1]

    @override
    async def read_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        found = await self._run(workflow_id, run_id)
        if found is None:
            return None
        stored = stored_run(
            fields_of(found.fields),
            (workflow_id, run_id),
            place=(document_id(workflow_id), document_id(run_id)),
        )
        return None if stored.is_expired(self._now()) else stored

    @override
    async def read_stats(self, workflow_id: str) -> WorkflowStats:
        return summed(workflow_id, await self._workflow_documents(workflow_id, STATS_FIELDS))[0]

    @override
    async def read_summary(self, workflow_id: str) -> tuple[WorkflowStats, Mapping[SummaryCounter, int]]:
        return summed(workflow_id, await self._workflow_documents(workflow_id, ()))

    async def _workflow_documents(self, workflow_id: str, fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return all documents that hold the stats of a workflow; of each those *fields*, or all."""
        found = await self._get([stats_path(self._root, workflow_id, 0)], fields)
        own = {workflow_id: fields_of(found[0].fields) if found else {}}
        return (await self._stats_documents(own, fields))[workflow_id]

    async def _stats_documents(
        self, workflows: Mapping[str, Mapping[str, Any]], fields: Sequence[str]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """Return all documents that hold the stats of *workflows*, whose own are given."""
        further = {
            path: workflow_id
            for workflow_id, own in workflows.items()
            for path in further_stats_paths(self._root, workflow_id, own)
        }
        documents = {workflow_id: [own] for workflow_id, own in workflows.items()}
        # One call for all shards of all workflows: a call each would make a page as slow as it is long.
        for shard in await self._get(list(further), fields) if further else ():
            documents[further[self._connection.path(shard)]].append(fields_of(shard.fields))
        return documents

    @override
    async def read_pending(self) -> Sequence[StoredRun]:
        everything = InboxSelection(assignee=None, overdue=None, workflow_id=None, now=utc_now())
        return self._readable(await self._fetch(placed_query(self._all_runs(), everything, self._root)))

    @override
    async def read_overall_page(
        self, selection: InboxSelection | StaleSelection, after: Position | None, limit: int
    ) -> Page:
        if selection.workflow_id is None:
            query = placed_query(self._all_runs(), selection, self._root)
        else:
            query = placed_query(self._runs(selection.workflow_id), selection)
        sorted_by = f"{PROJECTION}.{selection.sorted_by}"
        if after is not None:
            query = query.start_after({sorted_by: after.moment, "__name__": self._run_at(after)})
        return Page.of(await self._collect(query, limit + 1, sorted_by, selection.is_wanted), limit)

    @override
    async def read_latest(self, workflow_id: str, selection: Selection) -> StoredRun | None:
        found = await self._collect(runs_query(self._runs(workflow_id), selection), 1, "started_at")
        return found[0] if found else None

    @override
    async def read_head(self, workflow_id: str, run_id: str) -> RunHead | None:
        found = await self._run(workflow_id, run_id)
        if found is None:
            return None
        stored = head_from_fields(fields_of(found.fields), (workflow_id, run_id))
        return None if stored.is_expired(self._now()) else stored.head

    @override
    async def read_record(
        self, workflow_id: str, run_id: str, *, payloads: bool
    ) -> tuple[StoredRun, RunHead] | None:
        key = (workflow_id, run_id)
        found = await self._get([run_path(self._root, key)], () if payloads else BUT_PAYLOADS)
        if not found:
            return None
        fields = fields_of(found[0].fields)
        stored = stored_run(fields, key, place=(document_id(workflow_id), document_id(run_id)))
        head = head_from_fields(fields, key).head
        return None if stored.is_expired(self._now()) else (stored, head)

    async def _collect(
        self,
        query: Any,
        most: int,
        sorted_by: str,
        is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True,
    ) -> list[StoredRun]:
        """Read readable runs, in the order of a field, until there are *most* of them or none are left."""
        found: list[StoredRun] = []
        asked = most
        last = None
        while True:
            documents = await self._fetch(query.limit(asked), last, sorted_by)
            news = self._readable(documents, is_wanted)
            found += news
            if len(documents) < asked or len(found) >= most:
                return found[:most]
            # Many in a row may be others', and each call takes its time.
            asked = most - len(found) if news else min(2 * asked, most)
            last = documents[-1]

    async def _fetch(self, query: Any, after: Any = None, sorted_by: str | None = None) -> list[Any]:
        return await self._patience.run(
            partial(self._connection.query, query, after=after, sorted_by=sorted_by)
        )

    async def _get(self, paths: Sequence[str], fields: Sequence[str] = ()) -> list[Any]:
        return await self._patience.run(partial(self._connection.documents, paths, fields))

    async def _run(self, workflow_id: str, run_id: str) -> Any | None:
        found = await self._get([run_path(self._root, (workflow_id, run_id))])
        return found[0] if found else None

    @override
    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        await self._notices().put(kind, notices)

    @override
    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        await self._notices().remove(kind, keys)

    @override
    async def read_notices(self, kind: NoticeKind, most: int) -> list[Any]:
        return await self._notices().read(kind, most, self._now())

    def _notices(self) -> FirestoreNotices:
        return FirestoreNotices(self._connection, self._root, self._patience)

    @override
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> FirestoreUpdates:
        def update(change: Change, place: WatchPosition) -> RunUpdate | None:
            workflow, run = change.place.path.split("/")
            if workflow_id is not None and workflow != document_id(workflow_id):
                return None
            seen = readable([fields_of(change.document.fields)], at_its_place(workflow, run), now=self._now())
            return self._update(seen[0], place.cursor(self._root, selection)) if seen else None

        return FirestoreUpdates(
            documents=ChangedDocuments(self._connection, self._root, workflow_id, page=self._bounds.page),
            opening=self._patience,
            patience=self._endless,
            feed=self._feed,
            place=None if cursor is None else WatchPosition.of(cursor, self._root, selection),
            root=self.path,
            update=update,
        )

    @override
    async def read_place(self, selection: str) -> str:
        now = await self._patience.run(partial(self._connection.now, self._root))
        return WatchPosition(seen=ChangePosition.after_all_at(now)).cursor(self._root, selection)

    def _feed(self) -> Feed:
        # For each event loop one: a listener belongs to its loop, and wakes the watches there.
        loop = asyncio.get_running_loop()
        feed = self._feeds.get(loop)
        if feed is None:
            feed = Feed(self._connection, self.path, bounds=self._bounds, patience=self._endless)
            self._feeds[loop] = feed
        return feed

    def _workflow(self, workflow_id: str) -> Any:
        return self._connection.client().collection(self._root).document(document_id(workflow_id))

    def _runs(self, workflow_id: str) -> Any:
        return self._workflow(workflow_id).collection(RUNS)

    def _run_at(self, place: Position) -> Any:
        workflows = self._connection.client().collection(self._root)
        return workflows.document(place.workflow).collection(RUNS).document(place.run)

    def _all_runs(self) -> Any:
        # Of every root collection in the database, for Firestore knows no other group; see `CHANGED_SHARD`.
        return self._connection.client().collection_group(RUNS)

    def _readable(
        self, documents: Sequence[Any], is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True
    ) -> list[StoredRun]:
        # Of documents of earlier versions, a query over all workflows finds those of every root collection.
        own = (one for one in documents if _ids(one)[-4] == self._root)
        return readable(own, _stored_at_its_place, now=self._now(), is_wanted=is_wanted)

    def __repr__(self) -> str:
        """Return where the runs are kept."""
        return (
            f"FirestoreRunLogService(project={self._connection.project!r}, "
            f"database={self._connection.database!r}, root_collection={self._root!r})"
        )


def create_service(settings: Settings) -> FirestoreRunLogService:
    """Return the back end ``firestore``: every save is written at once, without Pub/Sub."""
    return FirestoreRunLogService.from_settings(settings)


def _stored_at_its_place(document: Any) -> StoredRun:
    *_, workflow, _, run = _ids(document)
    stored = at_its_place(workflow, run)(fields_of(document.fields))
    for name in _SORTED_BY:
        # Firestore sorts what is none apart from timestamps, and a cursor made of it would lead nowhere.
        if name in stored.projection and not isinstance(moment := stored.projection[name], datetime):
            raise UnreadableRunError(*stored.run.key, f"{name} is {moment!r:.100}, not a timestamp")
    return stored


def _workflow_of(document: Any, fields: Mapping[str, Any]) -> str | None:
    """Return the workflow whose stats these are; None where a cursor made from that would lead elsewhere."""
    name = _ids(document)[-1]
    for candidate in (fields.get("workflow_id"), original_id(name)):
        if isinstance(candidate, str) and candidate and document_id(candidate) == name:
            return candidate
    skipped_unreadable_stats(name, StoreError("its document says that it is another workflow's"))
    return None


def _ids(document: Any) -> list[str]:
    """Return the ids in a document's name: of collections and documents, in turn."""
    return str(document.name).split("/")
