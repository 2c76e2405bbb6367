"""What the contract suite needs of an adapter: a run log, its store, and two things no caller can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

from run_log.core import RunStatus, Transition, WorkflowRun
from run_log.stores import ProjectionStore


class RunLog(Protocol):
    """What callers use: `RunLogProtocol`, and the history."""

    async def save_run(self, run: Any) -> None:
        """See `RunLogProtocol.save_run`."""
        ...

    async def list_runs(
        self, workflow_id: str, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowRun], str | None]:
        """See `RunLogProtocol.list_runs`."""
        ...

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`."""
        ...

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`."""
        ...

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`."""
        ...

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`."""
        ...

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """See `RunLogService.get_history`."""
        ...

    async def close(self) -> None:
        """Let go of connections. Closing twice is fine."""
        ...


class Harness(Protocol):
    """One adapter under test, empty at first."""

    @property
    def service(self) -> RunLog:
        """What callers use."""
        ...

    @property
    def store(self) -> ProjectionStore:
        """Where the adapter's projection is written."""
        ...

    async def settle(self) -> None:
        """Make everything saved so far visible."""
        ...

    async def plant_unreadable(
        self, workflow_id: str, started_at: datetime, *, status: RunStatus = RunStatus.SUCCESS
    ) -> str:
        """Store a run that cannot be read, at that place in the listing; return its id."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


OpenHarness = Callable[[], Awaitable[Harness]]
"""An adapter's factory, called in the event loop of the test."""


async def save(harness: Harness, *runs: Any) -> None:
    """Save *runs* in order, and make them visible."""
    for run in runs:
        await harness.service.save_run(run)
    await harness.settle()


async def walk(service: RunLog, workflow_id: str, limit: int) -> list[list[WorkflowRun]]:
    """Return every page of a workflow's listing."""
    runs, cursor = await service.list_runs(workflow_id, limit=limit)
    pages = [runs]
    while cursor is not None:
        runs, cursor = await service.list_runs(workflow_id, limit=limit, start_after=cursor)
        pages.append(runs)
    return pages


def ids(runs: list[WorkflowRun]) -> list[str]:
    """Return the ids of *runs*, in order."""
    return [run.id for run in runs]
