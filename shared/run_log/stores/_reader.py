"""What dashboards ask of a run log, whatever it is kept in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, Protocol, Unpack

from run_log.core import RunEvent, Transition, Version, WorkflowRun
from run_log.stores.listings import RunFilters

from .inbox import PendingRun
from .stale import StaleRun
from .summaries import WorkflowStats, WorkflowSummary
from .watch import RunWatch


class RunLogReader(Protocol):
    """The read side: `RunLogProtocol`'s queries, and what grew around them.

    What is returned are copies. Every method raises `StoreUnavailableError` where the store does not answer
    in bounded time.
    """

    async def list_runs(
        self,
        workflow_id: str,
        *,
        limit: int = 50,
        start_after: Any | None = None,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[WorkflowRun], str | None]:
        """Return one page of a workflow's runs, newest first unless told otherwise, and the next cursor.

        Args:
            workflow_id: The workflow; an unknown one has no runs.
            limit: Most runs to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the page before returned; None for the first page.
            filters: What the runs have to be like, and their order; see `RunFilters`.

        Returns:
            The runs, and the next page's cursor: None exactly when nothing is left.

        Raises:
            InvalidArgumentError: An argument cannot be used.
            InvalidCursorError: *start_after* is malformed, or of a listing with another workflow, other
                filters or another order.
        """
        ...

    def iter_runs(
        self, workflow_id: str, *, page_size: int = 200, **filters: Unpack[RunFilters]
    ) -> AsyncIterator[WorkflowRun]:
        """Yield every run of a workflow, newest first unless told otherwise, one page after another.

        Every run that was there when the walk began comes exactly once, whatever is stored meanwhile,
        unless a change makes it match no more, or moves it: its `started_at`.

        Args:
            workflow_id: The workflow; an unknown one has no runs.
            page_size: Runs read at a time, 1 to `MAX_LIMIT`.
            filters: See `list_runs`.

        Raises:
            InvalidArgumentError: An argument cannot be used.
        """
        ...

    async def list_workflows(
        self, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowStats], str | None]:
        """Return one page of the workflows that have runs, with their stats, and the next cursor.

        They come by id as it is stored, each once, whatever is stored meanwhile.

        Args:
            limit: Most workflows to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the page before returned; None for the first page.

        Raises:
            InvalidArgumentError: *limit* cannot be used.
            InvalidCursorError: *start_after* is malformed or of another listing.
        """
        ...

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`."""
        ...

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`."""
        ...

    async def get_summary(
        self, workflow_id: str, window: timedelta | None = None, *, now: datetime | None = None
    ) -> WorkflowSummary:
        """Return a workflow at a glance: counts, durations, its last runs, and all that by hour or day.

        A run is in the hour and on the day in which it started, in UTC. How many documents are read does not
        depend on how many runs there are.

        Args:
            workflow_id: The workflow; an unknown one has no runs.
            window: How far to look back, in whole hours up to `HOURS_KEPT` of them, in whole days up to
                `MAX_WINDOW`, the current one among them. None counts all runs there ever were, and shows
                the days of `MAX_WINDOW`.
            now: The moment to look back from, aware; None is the machine's time.

        Raises:
            InvalidArgumentError: An argument cannot be used.
        """
        ...

    async def get_as_of(self, workflow_id: str) -> datetime | None:
        """Return how far the projection of a workflow has come, at least, for what its lists show.

        Returns:
            When the latest event happened that came with a change of its stats, on its emitter's clock; None
            where there is none.

        Raises:
            InvalidArgumentError: *workflow_id* is empty.
        """
        ...

    async def wait_for(
        self,
        workflow_id: str,
        run_id: str,
        version_or_event: Version | RunEvent,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - it says how long the caller's own event may take
    ) -> WorkflowRun:
        """Wait until queries see an event, or a later state of its run, and return the run: read your write.

        Args:
            workflow_id: The run's workflow.
            run_id: The run.
            version_or_event: The event that was emitted, or its version.
            timeout: Seconds to wait, at most; 0 looks once.

        Raises:
            WaitTimeoutError: It was not seen in time; it may come later.
            InvalidArgumentError: An argument cannot be used, or the event is another run's.
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        ...

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`."""
        ...

    async def list_pending(
        self,
        *,
        assignee: str | None = None,
        overdue: bool | None = None,
        workflow_id: str | None = None,
        limit: int = 50,
        start_after: Any | None = None,
        now: datetime | None = None,
    ) -> tuple[list[PendingRun], str | None]:
        """Return one page of the runs that wait for an answer, and the next cursor.

        They come by `started_at`, the newest first; where *overdue* is given, by deadline, the earliest first
        and those without one last.

        Args:
            assignee: Only those for which this one is asked; None is all.
            overdue: Only those whose deadline has passed, or only the others; None is all.
            workflow_id: Only those of this workflow; None is all.
            limit: Most runs to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the page before returned; None for the first page.
            now: What age and deadline are compared with, aware; None is the machine's time.

        Raises:
            InvalidArgumentError: An argument cannot be used.
            InvalidCursorError: *start_after* is malformed, or of a listing with other arguments.
        """
        ...

    async def list_stale(
        self,
        older_than: timedelta,
        *,
        workflow_id: str | None = None,
        limit: int = 50,
        start_after: Any | None = None,
        now: datetime | None = None,
    ) -> tuple[list[StaleRun], str | None]:
        """Return one page of the runs that began, did not end, and were not heard of for long.

        A paused run is none: it waits. They come by when they were last heard of, the longest silent first.

        Args:
            older_than: How long ago their newest event has to be, at least.
            workflow_id: Only those of this workflow; None is all.
            limit: Most runs to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the page before returned; None for the first page.
            now: What silence is counted to, aware; None is the machine's time.

        Raises:
            InvalidArgumentError: An argument cannot be used.
            InvalidCursorError: *start_after* is malformed, or of another listing.
        """
        ...

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`."""
        ...

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """Return the run's newest `MAX_HISTORY` transitions in version order; none where it is not there.

        Each tells when, of which attempt, how long it lasted, whether it breaks the state machine, and who
        answered the pause that it ended.

        Raises:
            InvalidArgumentError: An id is empty.
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        ...

    def watch(self, workflow_id: str | None = None, *, since_cursor: Any | None = None) -> RunWatch:
        """Return a watch of the runs of one workflow, or of all: their changes, as they come.

        Each update tells that a run's stored record changed, its state or only its history, and carries the
        state as it was when that was read. A run that changes several times before it is read may come once,
        as it is then; each change of a run comes at most once, and its newest always does, whatever happens
        to the connection and however slowly updates are taken. What is kept for a watch is bounded.

        Every update has a cursor. Given back it goes on right after that update, in any process, without a
        gap or a repeat. A run that is not there any more, or cannot be read, comes no more.

        Args:
            workflow_id: The workflow to watch; None for all.
            since_cursor: The cursor of the last update that was seen; None to begin with what changes once
                the watch is entered.

        Raises:
            InvalidArgumentError: *workflow_id* cannot be used.
            InvalidCursorError: *since_cursor* is malformed, of a watch of other runs, or of a store in memory
                that is gone.
        """
        ...
