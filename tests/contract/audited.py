"""The stores that can be audited, with counts and runs that a test can spoil."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud import firestore

from run_log.core import RunEvent, RunStatus, Settings
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id
from run_log.stores.firestore._documents import counter_path
from run_log.testing import a_run, an_event

from .adapters import SpoilableFirestore, SpoilableSQLite


class AuditedFirestore(SpoilableFirestore):
    """Firestore with counts and runs that can be spoilt."""

    async def set_field(self, workflow_id: str, run_id: str, field: str, value: str) -> None:
        """Put *value* in the place of a field of a stored run."""
        await self._runs(workflow_id).document(document_id(run_id)).update({field: value})

    async def set_every_field(self, workflow_id: str, field: str, value: str) -> None:
        """Put *value* in the place of a field of all runs of a workflow."""
        documents = [one async for one in self._runs(workflow_id).list_documents()]
        for start in range(0, len(documents), 400):
            batch = self._connection.client().batch()
            for document in documents[start : start + 400]:
                batch.update(document, {field: value})
            await batch.commit()

    async def forget_counts(self, workflow_id: str) -> None:
        """Delete all that is counted of a workflow."""
        await self._workflow(workflow_id).delete()

    async def add_runs(self, workflow_id: str, status: RunStatus, by: int) -> None:
        """Count so many runs more in that status, and in all, that are not there."""
        paths = ["total", f"by_status.{status.value}"]
        if status is RunStatus.SUCCESS:
            paths.append("successful")
        await self._add(workflow_id, paths, by)

    async def add_count(self, workflow_id: str, counter: SummaryCounter, by: int) -> None:
        """Add to a counter of the summary what no run stands for."""
        await self._add(workflow_id, [counter_path(counter)], by)

    async def _add(self, workflow_id: str, paths: Sequence[str], by: int) -> None:
        vendor: Any = firestore  # published without annotations
        await self._workflow(workflow_id).update(dict.fromkeys(paths, vendor.Increment(by)))


class AuditedSQLite(SpoilableSQLite):
    """A file with counts and runs that can be spoilt."""

    async def set_field(self, workflow_id: str, run_id: str, field: str, value: str) -> None:
        """Put *value* in the place of a field of a stored run."""
        place = (document_id(workflow_id), document_id(run_id))
        await self._execute(f"UPDATE runs SET {field} = ? WHERE workflow = ? AND run = ?", value, *place)  # noqa: S608

    async def set_every_field(self, workflow_id: str, field: str, value: str) -> None:
        """Put *value* in the place of a field of all runs of a workflow."""
        sql = f"UPDATE runs SET {field} = ? WHERE workflow = ?"  # noqa: S608
        await self._execute(sql, value, document_id(workflow_id))

    async def forget_counts(self, workflow_id: str) -> None:
        """Delete all that is counted of a workflow."""
        for table in ("workflows", "counters"):
            await self._execute(f"DELETE FROM {table} WHERE workflow = ?", document_id(workflow_id))  # noqa: S608

    async def add_runs(self, workflow_id: str, status: RunStatus, by: int) -> None:
        """Count so many runs more in that status, and in all, that are not there."""
        sql = f"UPDATE workflows SET {status.value} = {status.value} + ? WHERE workflow = ?"  # noqa: S608
        await self._execute(sql, by, document_id(workflow_id))

    async def add_count(self, workflow_id: str, counter: SummaryCounter, by: int) -> None:
        """Add to a counter of the summary what no run stands for."""
        sql = (
            "INSERT INTO counters VALUES (?1, ?2, ?3, ?4, ?5) "
            "ON CONFLICT (workflow, scope, slot, name) DO UPDATE SET count = count + ?5"
        )
        place = (document_id(workflow_id), counter.scope.value, counter.slot, counter.name)
        await self._execute(sql, *place, by)

    async def _execute(self, sql: str, *values: object) -> None:
        await self._writer.run(lambda connection: connection.execute(sql, values))


AuditedStore = AuditedFirestore | AuditedSQLite
OpenPair = Callable[[], Awaitable[tuple[AuditedStore, AuditedStore]]]
"""Opens two stores of a kind, in the event loop of the test."""


async def firestore_pair() -> tuple[AuditedStore, AuditedStore]:
    """Return two projections in the database that the environment names."""
    settings = Settings.from_env()
    beside = settings.model_copy(update={"root_collection": "rebuilt"})
    return AuditedFirestore.from_settings(settings), AuditedFirestore.from_settings(beside)


async def sqlite_pair() -> tuple[AuditedStore, AuditedStore]:
    """Return the file that the environment names, and another one."""
    settings = Settings.from_env()
    beside = settings.model_copy(update={"sqlite_path": f"{settings.sqlite_path}.rebuilt"})
    return AuditedSQLite.from_settings(settings), AuditedSQLite.from_settings(beside)


def lives(
    count: int, *, workflow_id: str = "w", seed: int = 1, until: datetime | None = None
) -> list[RunEvent]:
    """Return the events of so many runs that started within a hundred hours, in order."""
    chance = random.Random(seed)
    until = until or datetime.now(UTC)
    events: list[RunEvent] = []
    for number in range(count):
        started_at = until - timedelta(hours=chance.random() * 100)
        ends = (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED)
        for status in (RunStatus.PENDING, RunStatus.RUNNING, chance.choice(ends)):
            run = a_run(
                id=f"r{number:03}",
                workflow_id=workflow_id,
                started_at=started_at,
                status=status,
                duration_ms=chance.random() * 10_000,
                result={"n": number},
            )
            events.append(an_event(run, occurred_at=started_at))
    return events
