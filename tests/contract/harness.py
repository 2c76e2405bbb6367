"""What the contract suite needs of an adapter: a run log, its store, and two things no caller can do."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar, Unpack

from run_log.core import RunStatus, WorkflowRun, utc_now
from run_log.stores import ProjectionStore, RunLog, RunLogService
from run_log.stores.listings import RunFilters
from run_log.testing import a_run, an_event

T = TypeVar("T")


class Clock:
    """The time, which stands still, so that no hour or day ends within a test, until a test sets it ahead."""

    def __init__(self) -> None:
        self._begun = utc_now()
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        """Return the time."""
        return self._begun + self.ahead


class Spoilable(Protocol):
    """What something else than run-log may do to a store."""

    clock: Clock

    async def spoil(self, workflow_id: str, run_id: str) -> None:
        """Make a stored run unreadable."""
        ...

    async def delete(self, workflow_id: str, run_id: str) -> None:
        """Delete a run as the store does some time after it has expired: its counts stay."""
        ...


class Harness:
    """One adapter under test, empty at first; here a store used directly: what is saved is visible at once.

    Args:
        store: Where the adapter's projection is written.
        spoilable: Itself.
    """

    def __init__(self, store: RunLogService, spoilable: Spoilable) -> None:
        self.service: RunLog = store
        self.store: ProjectionStore = store
        self.clock = spoilable.clock
        self.delete = spoilable.delete
        self._spoil = spoilable.spoil
        self._numbers = itertools.count(1)

    async def settle(self) -> None:
        """Make everything saved so far visible."""

    async def plant_unreadable(
        self, workflow_id: str, started_at: datetime, *, status: RunStatus = RunStatus.SUCCESS
    ) -> str:
        """Store a run that cannot be read, at that place in the listing; return its id."""
        run_id = f"unreadable-{next(self._numbers)}"
        run = a_run(workflow_id=workflow_id, id=run_id, started_at=started_at, status=status)
        await self.store.apply([an_event(run)])
        await self._spoil(workflow_id, run_id)
        return run_id

    async def close(self) -> None:
        """Let go of everything."""
        await self.service.close()


OpenHarness = Callable[[], Awaitable[Harness]]
"""An adapter's factory, called in the event loop of the test."""


async def save(harness: Harness, *runs: Any) -> None:
    """Save *runs* in order, and make them visible."""
    for run in runs:
        await harness.service.save_run(run)
    await harness.settle()


async def pages(
    query: Callable[..., Awaitable[tuple[list[T], str | None]]], **arguments: Any
) -> list[list[T]]:
    """Return every page of a listing: what *query* returns for *arguments*, one cursor after another."""
    found, cursor = await query(**arguments)
    walked = [found]
    while cursor is not None:
        found, cursor = await query(**arguments, start_after=cursor)
        walked.append(found)
    return walked


async def walk(
    service: RunLog, workflow_id: str | None, limit: int, **filters: Unpack[RunFilters]
) -> list[list[WorkflowRun]]:
    """Return every page of a workflow's listing, or of that of all workflows."""
    return await pages(partial(service.list_runs, workflow_id), limit=limit, **filters)


def ids(runs: list[WorkflowRun]) -> list[str]:
    """Return the ids of *runs*, in order."""
    return [run.id for run in runs]
