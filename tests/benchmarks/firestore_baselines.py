"""What the projection stands beside: a transaction for every event, and writes without any condition.

The last ones are of two kinds: the run documents by the vendor's client, and all that the projection writes,
as prebuilt protocol buffers. No way to make the same writes is faster than that.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.api_core import exceptions as google_errors
from google.cloud import firestore
from google.cloud.firestore import async_transactional
from google.cloud.firestore_v1.types import firestore as firestore_types
from typing_extensions import override

from run_log.core import RunEvent
from run_log.core.ids import document_id
from run_log.core.law import fold
from run_log.stores.committing.committer import MAX_IN_FLIGHT, Committer
from run_log.stores.firestore._documents import FirestoreDocuments
from run_log.stores.firestore.client import Connection, Patience, run_path
from run_log.stores.stored.fields import HISTORY, PROJECTION
from run_log.stores.stored.reading import head_from_fields
from run_log.stores.stored.writing import projection_fields, run_fields, transition_text

ROOT = "baseline"
WAYS = 16
"""Transactions at a time."""

_types: Any = firestore_types
_CommitRequest: Final = _types.CommitRequest.pb()


async def close(client: Any) -> None:
    """Close an asynchronous client, for good: the vendor's own way leaves the channel open."""
    await client._firestore_api.transport.close()


async def transaction_per_event(
    project: str, events: Sequence[RunEvent], *, seconds: float
) -> tuple[int, float]:
    """Commit each of *events* in a transaction that reads its run and its workflow's stats.

    Args:
        project: Where to; without documents so far.
        events: Taken in order, `WAYS` at a time.
        seconds: After so many, no transaction begins or begins again.

    Returns:
        How many were committed, and in how many seconds.
    """
    client: Any = firestore.AsyncClient(project=project)
    waiting = iter(events)
    begun = time.perf_counter()
    deadline = begun + seconds

    async def work() -> int:
        return sum([await _committed(client, event, deadline) for event in waiting])

    committed = sum(await asyncio.gather(*(work() for _ in range(WAYS))))
    elapsed = time.perf_counter() - begun
    await close(client)
    return committed, elapsed


async def _committed(client: Any, event: RunEvent, deadline: float) -> bool:
    """Try until it is committed, or until *deadline*; return whether it is."""
    tries = 0
    while time.perf_counter() < deadline:
        tries += 1
        try:
            # Wrapped anew each time: the wrapper keeps the state of one call.
            await async_transactional(_merge)(client.transaction(max_attempts=1), client, event)
        except (google_errors.GoogleAPIError, ValueError):
            await asyncio.sleep(random.uniform(0, min(2.0, 0.05 * 2**tries)))
        else:
            return True
    return False


async def _merge(transaction: Any, client: Any, event: RunEvent) -> None:
    run = client.document(run_path(ROOT, event.key))
    workflow = client.collection(ROOT).document(document_id(event.run.workflow_id))
    stored: dict[str, Mapping[str, Any]] = {}
    async for snapshot in client.get_all([run, workflow], transaction=transaction):
        if snapshot.exists:
            stored[snapshot.reference.path] = snapshot.to_dict()
    before = head_from_fields(stored[run.path], event.key).head if run.path in stored else None
    change = fold(before, [event])
    if change.winner is not None:
        transaction.set(run, document(event))
    stats = stored.get(workflow.path, {})
    totals = {"total": change.delta.total, "successful": change.delta.successful}
    transaction.set(workflow, {name: stats.get(name, 0) + count for name, count in totals.items()})


def document(event: RunEvent) -> dict[str, Any]:
    """Return the run's document as the projection stores it after this one event."""
    change = fold(None, [event])
    history = [transition_text(transition) for transition in change.added]
    projection = projection_fields(event, change.after.counted)
    return {**run_fields(event.run), PROJECTION: {**projection, HISTORY: history}}


async def raw_writes(project: str, events: Sequence[RunEvent], *, per_commit: int) -> float:
    """Write the document of each of *events*, of distinct runs, unconditionally; return the seconds taken.

    The documents are made beforehand: only what the vendor's client and the emulator do is timed.
    """
    client: Any = firestore.AsyncClient(project=project)
    writes = [(client.document(run_path(ROOT, event.key)), document(event)) for event in events]
    begun = time.perf_counter()
    for start in range(0, len(writes), per_commit):
        batch = client.batch()
        for reference, fields in writes[start : start + per_commit]:
            batch.set(reference, fields)
        await batch.commit(retry=None)
    elapsed = time.perf_counter() - begun
    await close(client)
    return elapsed


async def prebuilt_commits(project: str, events: Sequence[RunEvent], *, per_apply: int) -> list[bytes]:
    """Project *events*, so many at a time, and return what each commit asked for, without its conditions.

    They are of documents in *project*, which is left as the projection has made it.
    """
    connection = _KeptCommits(project)
    committer = Committer(FirestoreDocuments(connection, ROOT), patience=Patience())
    for start in range(0, len(events), per_apply):
        await committer.apply(events[start : start + per_apply])
    await connection.close()
    return connection.commits


async def replayed(project: str, commits: Sequence[bytes]) -> float:
    """Make *commits* of `prebuilt_commits`, as many at a time as the projection; return the seconds taken.

    Args:
        project: The one that they were made for; without documents.
        commits: They are parsed beforehand: only what gRPC and the emulator do is timed.
    """
    client: Any = firestore.AsyncClient(project=project)
    requests = [_types.CommitRequest.wrap(_CommitRequest.FromString(commit)) for commit in commits]
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            await client._firestore_api.commit(request=request, metadata=client._rpc_metadata, retry=None)

    gc.collect()
    gc.freeze()
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(MAX_IN_FLIGHT)))
    elapsed = time.perf_counter() - begun
    gc.unfreeze()
    await close(client)
    return elapsed


class _KeptCommits(Connection):
    """Keeps what each commit asked for, once it was made."""

    def __init__(self, project: str) -> None:
        super().__init__(project, None)
        self.commits: list[bytes] = []
        """Serialized: thousands of messages would be in the way of the garbage collector."""

    @override
    async def commit(self, writes: Iterable[Any]) -> list[Any]:
        made = list(writes)
        marks = await super().commit(made)
        request = _CommitRequest(database=self.database_name, writes=made)
        for write in request.writes:
            write.ClearField("current_document")
        self.commits.append(request.SerializeToString())
        return marks
