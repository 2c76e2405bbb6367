"""The event-sourced run log: saves are published, queries read the projection."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final, Unpack

from opentelemetry import trace

from run_log.core import (
    ConfigurationError,
    RunEvent,
    Settings,
    Transition,
    Version,
    WorkflowRun,
    WriteRefusedError,
)
from run_log.core.clock import HybridLogicalClock
from run_log.core.models import RunKey, validated
from run_log.core.wire import MAX_STAMPED_AHEAD
from run_log.stores import (
    PendingRun,
    RunLog,
    RunLogService,
    RunWatch,
    StaleRun,
    WorkflowStats,
    WorkflowSummary,
)
from run_log.stores.inbox import Answer
from run_log.stores.listings import RunFilters

from ._emitter import RunEventEmitter

CLOSE_TIMEOUT_SECONDS: Final = 5.0

_tracer: Final = trace.get_tracer("run_log.producer")


class PubSubRunLogService(RunLog):
    """A run log whose saves cost microseconds: they are published, and a projector stores them.

    What is saved becomes visible once the projector has come to it. Queries go to *reader*.

    Args:
        emitter: Publishes what is saved; closed with the service.
        reader: Answers the queries; closed with the service.
    """

    def __init__(self, *, emitter: RunEventEmitter, reader: RunLogService) -> None:
        self._emitter = emitter
        self._reader = reader

    @classmethod
    def from_env(cls) -> PubSubRunLogService:
        """Return the service that the environment describes: Pub/Sub to save, Firestore to read.

        Raises:
            ConfigurationError: A setting is missing or wrong, or an extra is not installed.
        """
        try:
            from run_log.stores import FirestoreRunLogService  # noqa: PLC0415 - its vendor's library is an extra
        except ImportError as error:
            raise ConfigurationError(f"reading needs Firestore: {error}") from error
        return cls(emitter=RunEventEmitter.from_env(), reader=FirestoreRunLogService.from_env())

    async def save_run(self, run: Any) -> None:
        """Publish that *run* is so now. Returns before it is delivered: see `flush` and `close`.

        Args:
            run: A `WorkflowRun`, or any object with its fields.

        Raises:
            InvalidRunError: A field is missing or wrong; nothing is published.
            WriteRefusedError: What is read of the run is stamped too far ahead; see `resume`.
        """
        with _tracer.start_as_current_span("run_log.save") as span:
            checked = validated(run)
            span.set_attributes({"workflow_id": checked.workflow_id, "run_id": checked.id})
            seen = self._reader.version_clock.seen(checked.key)
            self._check_not_ahead(checked.key, seen)
            self._emitter.observe(seen, checked.key)
            self._emitter.emit(checked)

    async def list_runs(
        self,
        workflow_id: str,
        *,
        limit: int = 50,
        start_after: Any | None = None,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[WorkflowRun], str | None]:
        """See `RunLogReader.list_runs`."""
        return await self._reader.list_runs(workflow_id, limit=limit, start_after=start_after, **filters)

    async def list_workflows(
        self, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowStats], str | None]:
        """See `RunLogReader.list_workflows`."""
        return await self._reader.list_workflows(limit=limit, start_after=start_after)

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`."""
        return await self._reader.get_run(workflow_id, run_id)

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`."""
        return await self._reader.get_stats(workflow_id)

    async def get_summary(
        self, workflow_id: str, window: timedelta | None = None, *, now: datetime | None = None
    ) -> WorkflowSummary:
        """See `RunLogReader.get_summary`."""
        return await self._reader.get_summary(workflow_id, window, now=now)

    async def get_as_of(self, workflow_id: str) -> datetime | None:
        """See `RunLogReader.get_as_of`."""
        return await self._reader.get_as_of(workflow_id)

    async def wait_for(
        self,
        workflow_id: str,
        run_id: str,
        version_or_event: Version | RunEvent,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - see RunLogService.wait_for
    ) -> WorkflowRun:
        """See `RunLogReader.wait_for`."""
        return await self._reader.wait_for(workflow_id, run_id, version_or_event, timeout=timeout)

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`."""
        return await self._reader.get_pending_runs()

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
        """See `RunLogReader.list_pending`."""
        return await self._reader.list_pending(
            assignee=assignee,
            overdue=overdue,
            workflow_id=workflow_id,
            limit=limit,
            start_after=start_after,
            now=now,
        )

    async def list_stale(
        self,
        older_than: timedelta,
        *,
        workflow_id: str | None = None,
        limit: int = 50,
        start_after: Any | None = None,
        now: datetime | None = None,
    ) -> tuple[list[StaleRun], str | None]:
        """See `RunLogReader.list_stale`."""
        return await self._reader.list_stale(
            older_than, workflow_id=workflow_id, limit=limit, start_after=start_after, now=now
        )

    async def mark_lost(
        self, workflow_id: str, run_id: str, *, older_than: timedelta, now: datetime | None = None
    ) -> bool:
        """See `RunLog.mark_lost`. Published, and returned before it is delivered: see `flush` and `close`."""
        event = await self._reader.conclude_lost(workflow_id, run_id, older_than=older_than, now=now)
        if event is not None:
            self._check_not_ahead(event.key, event.hlc)
            self._emitter.emit(event)
        return event is not None

    async def _answer(self, workflow_id: str, run_id: str, answer: Answer) -> WorkflowRun:
        event = await self._reader.conclude_answer(workflow_id, run_id, answer)
        self._check_not_ahead(event.key, event.hlc)
        with _tracer.start_as_current_span("run_log.save") as span:
            span.set_attributes({"workflow_id": event.run.workflow_id, "run_id": event.run.id})
            self._emitter.emit(event)
        return event.run

    def _check_not_ahead(self, key: RunKey, hlc: int) -> None:
        """Check that a projector takes what is stamped so.

        Raises:
            WriteRefusedError: It becomes a dead letter.
        """
        ahead = self.version_clock.ahead_by(hlc)
        if ahead > MAX_STAMPED_AHEAD:
            raise WriteRefusedError(
                f"run {key[1]!r} of workflow {key[0]!r} is stored in a version {ahead} ahead of this "
                "machine's clock, so that what is said after it becomes a dead letter (clock_ahead); set "
                "this clock right where it is behind, else go on with the run as its next attempt "
                "(resume_run with retry=True), or write without a projector (RUN_LOG_BACKEND=firestore)"
            )

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`."""
        return await self._reader.get_latest_run(workflow_id)

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """See `RunLogReader.get_history`."""
        return await self._reader.get_history(workflow_id, run_id)

    def watch(self, workflow_id: str | None = None, *, since_cursor: Any | None = None) -> RunWatch:
        """See `RunLogReader.watch`: what is saved is seen once the projector has come to it."""
        return self._reader.watch(workflow_id, since_cursor=since_cursor)

    @property
    def version_clock(self) -> HybridLogicalClock:
        """What follows what queries read; see `RunLogService`."""
        return self._reader.version_clock

    @property
    def place(self) -> str:
        """See `RunLog.place`."""
        return self._reader.place

    async def reach(self, seconds: float) -> None:
        """See `RunLog.reach`: what queries ask, not what saves are published to."""
        await self._reader.reach(seconds)

    async def flush(self, timeout: float = 2.0) -> bool:  # noqa: ASYNC109 - bounds a delivery that goes on
        """See `RunLog.flush`: what was saved is durable once the broker has it."""
        report = await self._emitter.flush(timeout)
        return not report.pending and not report.dropped

    @property
    def emitter(self) -> RunEventEmitter:
        """What publishes: its `flush` waits for delivery, its `stats` count it."""
        return self._emitter

    async def close(self) -> None:
        """Deliver what is held, within `CLOSE_TIMEOUT_SECONDS`, and let go of connections."""
        await self._emitter.flush(CLOSE_TIMEOUT_SECONDS)
        # What is left is only a thread to join and a channel to close.
        await asyncio.to_thread(self._emitter.close, 0)
        await self._reader.close()


def create_service(_settings: Settings) -> PubSubRunLogService:
    """Return the back end ``pubsub``: saves are published, queries read Firestore."""
    return PubSubRunLogService.from_env()
