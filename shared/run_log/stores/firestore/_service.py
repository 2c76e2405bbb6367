"""The run log's queries on Firestore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from run_log.core import (
    MAX_STATS_SHARDS,
    ConfigurationError,
    Outcome,
    Position,
    RunEvent,
    RunKey,
    Settings,
    StoreError,
    Transition,
    UnreadableRunError,
    check_collection_id,
    document_id,
    original_id,
)
from run_log.stores._committer import Committer
from run_log.stores._documents import (
    PAUSED_STARTED_AT,
    PROJECTION,
    head_from_fields,
    run_from_fields,
)
from run_log.stores._patience import Patience
from run_log.stores._service import Page, RunLogService, StoredRun
from run_log.stores._telemetry import skipped_unreadable

from ._connection import RPC_TIMEOUT_SECONDS, RUNS, VENDOR_ERRORS, Connection, run_reference
from ._documents import SHARDS, FirestoreDocuments, stats_path


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

    Raises:
        ConfigurationError: There is no project, there are no credentials, *root_collection* is no
            collection id, or *stats_shards* is not within 1 and `MAX_STATS_SHARDS`.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        database: str | None = None,
        root_collection: str = "autopilot_runs",
        stats_shards: int = 1,
    ) -> None:
        self._root = check_collection_id(root_collection)
        if not 1 <= stats_shards <= MAX_STATS_SHARDS:
            raise ConfigurationError(f"stats_shards is {stats_shards}, not within 1 and {MAX_STATS_SHARDS}")
        self._connection = Connection(project, database)
        self._patience = Patience()
        documents = FirestoreDocuments(self._connection, root_collection)
        self._committer = Committer(documents, patience=self._patience, stats_shards=stats_shards)

    @classmethod
    def from_env(cls) -> Self:
        """Return the service that the environment describes.

        Raises:
            ConfigurationError: A setting is missing or wrong; the message says which, and what to set.
        """
        return cls.from_settings(Settings.from_env())

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the service that *settings* describe; see the constructor."""
        return cls(
            project=settings.project,
            database=settings.database,
            root_collection=settings.root_collection,
            stats_shards=settings.stats_shards,
        )

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        return await self._committer.apply(events)

    async def close(self) -> None:
        """Close the connection of the running event loop. Closing twice is fine."""
        await self._connection.close()

    async def _save(self, event: RunEvent) -> None:
        await self._committer.save(event)

    async def _page(self, workflow_id: str, after: Position | None, limit: int) -> Page:
        runs = self._runs(workflow_id)
        query = runs.order_by("started_at", direction="DESCENDING").order_by(
            "__name__", direction="DESCENDING"
        )
        if after is not None:
            start = {"started_at": after.started_at, "__name__": runs.document(after.document_id)}
            query = query.start_after(start)
        found = await self._collect(query, limit + 1)
        return Page(runs=found[:limit], more=len(found) > limit)

    async def _read(self, workflow_id: str, run_id: str) -> StoredRun | None:
        snapshot = await self._get(
            run_reference(self._connection.client(), self._root, (workflow_id, run_id))
        )
        return _stored(snapshot, (workflow_id, run_id)) if snapshot.exists else None

    async def _stats(self, workflow_id: str) -> tuple[int, int]:
        snapshot = await self._get(self._workflow(workflow_id))
        first = _fields(snapshot) if snapshot.exists else {}
        try:
            shards = [first, *await self._further_shards(workflow_id, int(first.get(SHARDS, 1)))]
            return (
                sum(int(shard.get("total", 0)) for shard in shards),
                sum(int(shard.get("successful", 0)) for shard in shards),
            )
        except (TypeError, ValueError) as error:
            raise StoreError(f"the stats of workflow {workflow_id!r} are damaged: {error}") from error

    async def _further_shards(self, workflow_id: str, shards: int) -> list[dict[str, Any]]:
        """Return the stats documents of a workflow that has more than its own."""
        if shards <= 1:
            return []
        client = self._connection.client()
        references = [
            client.document(stats_path(self._root, workflow_id, shard)) for shard in range(1, shards)
        ]

        async def get_all() -> list[dict[str, Any]]:
            try:
                found = client.get_all(references, retry=None, timeout=RPC_TIMEOUT_SECONDS)
                return [_fields(snapshot) async for snapshot in found if snapshot.exists]
            except VENDOR_ERRORS as error:
                raise self._connection.error(error) from error

        return await self._patience.run(get_all)

    async def _pending(self) -> Sequence[StoredRun]:
        group = self._connection.client().collection_group(RUNS)
        query = group.order_by(f"{PROJECTION}.{PAUSED_STARTED_AT}", direction="DESCENDING").order_by(
            "__name__", direction="DESCENDING"
        )
        # The group spans every root collection: a rebuild writes one beside the live one.
        own = [item for item in await self._fetch(query) if item.reference.path.split("/")[0] == self._root]
        return _readable(own)

    async def _latest(self, workflow_id: str) -> StoredRun | None:
        query = self._runs(workflow_id).order_by("started_at", direction="DESCENDING")
        found = await self._collect(query.order_by("__name__", direction="DESCENDING"), 1)
        return found[0] if found else None

    async def _history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        key = (workflow_id, run_id)
        snapshot = await self._get(run_reference(self._connection.client(), self._root, key))
        return head_from_fields(_fields(snapshot), key).head.history if snapshot.exists else ()

    async def _collect(self, query: Any, most: int) -> list[StoredRun]:
        """Read readable runs until there are *most* of them or none are left."""
        found: list[StoredRun] = []
        while True:
            wanted = most - len(found)
            snapshots = await self._fetch(query.limit(wanted))
            found += _readable(snapshots)
            if len(snapshots) < wanted or len(found) == most:
                return found
            query = query.start_after(snapshots[-1])

    async def _fetch(self, query: Any) -> list[Any]:
        async def fetch() -> list[Any]:
            try:
                return list(await query.get(retry=None, timeout=RPC_TIMEOUT_SECONDS))
            except VENDOR_ERRORS as error:
                raise self._connection.error(error) from error

        return await self._patience.run(fetch)

    async def _get(self, reference: Any) -> Any:
        async def get() -> Any:
            try:
                return await reference.get(retry=None, timeout=RPC_TIMEOUT_SECONDS)
            except VENDOR_ERRORS as error:
                raise self._connection.error(error) from error

        return await self._patience.run(get)

    def _workflow(self, workflow_id: str) -> Any:
        return self._connection.client().collection(self._root).document(document_id(workflow_id))

    def _runs(self, workflow_id: str) -> Any:
        return self._workflow(workflow_id).collection(RUNS)

    def __repr__(self) -> str:
        """Return where the runs are kept."""
        return (
            f"FirestoreRunLogService(project={self._connection.project!r}, "
            f"database={self._connection.database!r}, root_collection={self._root!r})"
        )


def create_service(settings: Settings) -> FirestoreRunLogService:
    """Return the back end ``firestore``: every save is written at once, without Pub/Sub."""
    return FirestoreRunLogService.from_settings(settings)


def _readable(snapshots: Sequence[Any]) -> list[StoredRun]:
    runs: list[StoredRun] = []
    for snapshot in snapshots:
        workflow, run = snapshot.reference.path.split("/")[-3], snapshot.id
        try:
            runs.append(_stored(snapshot, (original_id(workflow) or workflow, original_id(run) or run)))
        except UnreadableRunError as error:
            skipped_unreadable(error)
    return runs


def _stored(snapshot: Any, key: RunKey) -> StoredRun:
    fields = _fields(snapshot)
    run = run_from_fields(fields, key)
    if [document_id(run.workflow_id), document_id(run.id)] != snapshot.reference.path.split("/")[-3::2]:
        # A copied document: a cursor made from its fields would lead elsewhere, even back.
        raise UnreadableRunError(*key, f"it says that it is run {run.id!r} of workflow {run.workflow_id!r}")
    return StoredRun(run=run, hlc=head_from_fields(fields, key).head.version.hlc)


def _fields(snapshot: Any) -> dict[str, Any]:
    return snapshot.to_dict() or {}
