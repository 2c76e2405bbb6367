"""What the projection stands beside: a transaction for every event, and writes without any condition."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from google.api_core import exceptions as google_errors
from google.cloud import firestore
from google.cloud.firestore import async_transactional

from run_log.core import RunEvent
from run_log.core.ids import document_id
from run_log.core.law import fold
from run_log.stores.firestore.client import run_path
from run_log.stores.stored.fields import HISTORY, PROJECTION
from run_log.stores.stored.reading import head_from_fields
from run_log.stores.stored.writing import projection_fields, run_fields, transition_text

ROOT = "baseline"
WAYS = 16
"""Transactions at a time."""


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
