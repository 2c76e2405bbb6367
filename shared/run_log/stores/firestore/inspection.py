"""How Firestore is set up, as far as queries cannot tell.

Every function raises `StoreUnavailableError` where Firestore does not answer, and `ConfigurationError` where
it is not there, or does not let us in.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from google.cloud.firestore_admin_v1 import FirestoreAdminClient
from google.cloud.firestore_v1.base_query import FieldFilter

from run_log.core.clock import moment_of
from run_log.core.ids import original_id
from run_log.stores.stored.fields import CHANGED_SHARD, EXPIRE_AT, PROJECTION

from ._audit import FirestoreAudit
from .client import RPC_TIMEOUT_SECONDS, RUNS, Connection, Patience, fields_of
from .queries import changed_query

WORKFLOWS_LOOKED_AT: Final = 20
"""Workflows whose documents are looked at: two documents and three times `MOST_COUNTED` index entries of
each, at most 32 reads (https://firebase.google.com/docs/firestore/pricing#aggregation_queries)."""

MOST_COUNTED: Final = 10_000
"""Documents of a workflow that are counted: beyond, one that an index does not have may stay unseen."""

_STARTED_AT: Final = "started_at"
_FIRST_MOMENT: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenRuns:
    """Documents below a workflow that queries do not see."""

    workflow_id: str
    count: int
    """How many, at least."""
    path: str
    """Of one of them, or of their collection."""
    fault: str
    """What is wrong with it."""
    of_all: bool = False
    """Whether only queries over all workflows do not see them."""


async def find_unseen(connection: Connection, root_collection: str) -> tuple[int, UnseenRuns | None]:
    """Look for runs that no query by time sees, or none over all workflows, at a bounded cost.

    Something else than run-log stored those whose start is no timestamp. A version from before there were
    watches stored those that have no place in an index over all workflows, or somebody copied them from
    another root collection: they get one with their next event.

    Returns:
        At how many workflows it looked, and what is in the first that has some.
    """
    audit = FirestoreAudit(connection, root_collection, patience=Patience(), page=WORKFLOWS_LOOKED_AT)
    # All counts as of one moment: what comes or expires meanwhile would make a difference.
    at = await server_time(connection, root_collection)
    looked_at = 0
    async with aclosing(audit.workflows()) as workflows:
        async for workflow in workflows:
            found = await _unseen(connection, root_collection, workflow, at)
            looked_at += 1
            if found is not None or looked_at == WORKFLOWS_LOOKED_AT:
                return looked_at, found
    return looked_at, None


async def _unseen(
    connection: Connection, root_collection: str, workflow: str, at: datetime
) -> UnseenRuns | None:
    runs = connection.client().collection(root_collection).document(workflow).collection(RUNS)
    # There is no query for what lacks a field, but such a document is in no index on that.
    timed = runs.where(filter=FieldFilter(_STARTED_AT, ">=", _FIRST_MOMENT))
    placed = changed_query(runs, root_collection, _FIRST_MOMENT)
    # Bounded, for it is billed as a read for each 1,000 entries of the index that it looks at.
    stored, with_time, with_place = [
        await connection.count(query.limit(MOST_COUNTED), at=at) for query in (runs, timed, placed)
    ]
    # Values come by type: whatever is no timestamp stands at one of the ends.
    ends: list[Any] = [
        document
        for direction in ("DESCENDING", "ASCENDING")
        for document in await connection.query(
            runs.order_by(_STARTED_AT, direction=direction).select([_STARTED_AT]).limit(1)
        )
    ]
    starts = {connection.path(one): fields_of(one.fields)[_STARTED_AT] for one in ends}
    odd = next((path for path, start in starts.items() if not isinstance(start, datetime)), None)
    found = UnseenRuns(
        workflow_id=original_id(workflow) or workflow,
        count=max(stored - with_time, 1),
        path=f"{root_collection}/{workflow}/{RUNS}",
        fault="they have no started_at",
    )
    if odd is not None:
        return replace(found, path=odd, fault=f"started_at is {starts[odd]!r}, not a timestamp")
    if stored > with_time:
        return found
    if stored > with_place:
        fault = f"{PROJECTION}.{CHANGED_SHARD} is missing, or of another root collection"
        return replace(found, count=stored - with_place, fault=fault, of_all=True)
    return None


async def server_time(connection: Connection, root_collection: str) -> datetime:
    """Return the time by Firestore's clock, at which it answered a read."""
    return moment_of(await connection.now(root_collection) // 1_000)


async def ttl_is_active(connection: Connection) -> bool:
    """Return whether Firestore deletes runs that have expired; its emulator never does.

    To see that takes roles/datastore.indexAdmin or a viewer.
    """
    return await asyncio.to_thread(_ttl_is_active, connection)


def _ttl_is_active(connection: Connection) -> bool:
    name = f"{connection.database_name}/collectionGroups/{RUNS}/fields/{EXPIRE_AT}"
    admin: Any = FirestoreAdminClient(credentials=connection.credentials)
    with admin, connection.translated():
        field: Any = admin.get_field(name=name, retry=None, timeout=RPC_TIMEOUT_SECONDS)
    return bool(field.ttl_config.state.name == "ACTIVE")
