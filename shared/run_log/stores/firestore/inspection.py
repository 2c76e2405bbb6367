"""How Firestore is set up, as far as queries cannot tell.

Every function raises `StoreUnavailableError` where Firestore does not answer, and `ConfigurationError` where
it is not there, or does not let us in.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from google.cloud.firestore_admin_v1 import FirestoreAdminClient
from google.cloud.firestore_v1.base_query import FieldFilter

from run_log.core.clock import moment_of
from run_log.core.ids import original_id
from run_log.stores.stored.fields import EXPIRE_AT

from ._audit import FirestoreAudit
from .client import RPC_TIMEOUT_SECONDS, RUNS, Connection, Patience, fields_of

WORKFLOWS_LOOKED_AT: Final = 20
"""Workflows whose documents are looked at: two documents and twice `MOST_COUNTED` index entries of each, at
most 22 reads (https://firebase.google.com/docs/firestore/pricing#aggregation_queries)."""

MOST_COUNTED: Final = 10_000
"""Documents of a workflow that are counted: beyond, one without a start may stay unseen."""

_STARTED_AT: Final = "started_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenRuns:
    """Documents below a workflow that no query by time sees, as something else than run-log stored them."""

    workflow_id: str
    count: int
    """How many, at least."""
    path: str
    """Of one of them, or of their collection."""
    fault: str
    """What is wrong with it."""


async def find_unseen(connection: Connection, root_collection: str) -> tuple[int, UnseenRuns | None]:
    """Look for runs whose start is no timestamp, at a bounded cost.

    Returns:
        At how many workflows it looked, and what is in the first that has some.
    """
    audit = FirestoreAudit(connection, root_collection, patience=Patience(), page=WORKFLOWS_LOOKED_AT)
    looked_at = 0
    async with aclosing(audit.workflows()) as workflows:
        async for workflow in workflows:
            found = await _unseen(connection, root_collection, workflow)
            looked_at += 1
            if found is not None or looked_at == WORKFLOWS_LOOKED_AT:
                return looked_at, found
    return looked_at, None


async def _unseen(connection: Connection, root_collection: str, workflow: str) -> UnseenRuns | None:
    runs = connection.client().collection(root_collection).document(workflow).collection(RUNS)
    seen = runs.where(filter=FieldFilter(_STARTED_AT, ">=", datetime.min.replace(tzinfo=UTC)))
    with connection.translated():
        count = await _count(runs) - await _count(seen)
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
    if odd is None and count <= 0:
        return None
    return UnseenRuns(
        workflow_id=original_id(workflow) or workflow,
        count=max(count, 1),
        path=f"{root_collection}/{workflow}/{RUNS}" if odd is None else odd,
        fault="they have no started_at" if odd is None else f"started_at is {starts[odd]!r}, not a timestamp",
    )


async def _count(query: Any) -> int:
    # Bounded, for it is billed as a read for each 1,000 entries of the index that it looks at.
    ((counted,),) = await query.limit(MOST_COUNTED).count().get(retry=None, timeout=RPC_TIMEOUT_SECONDS)
    return int(counted.value)


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
