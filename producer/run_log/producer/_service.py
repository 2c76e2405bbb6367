"""The event-sourced run log: saves are published, queries read the projection."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from opentelemetry import trace

from run_log.core import (
    ConfigurationError,
    RunLogProtocol,
    Settings,
    Transition,
    WorkflowRun,
    validated,
)
from run_log.stores import RunLogService

from ._emitter import RunEventEmitter

CLOSE_TIMEOUT_SECONDS: Final = 5.0

_tracer: Final = trace.get_tracer("run_log.producer")


class PubSubRunLogService(RunLogProtocol):
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
        """
        with _tracer.start_as_current_span("run_log.save") as span:
            checked = validated(run)
            span.set_attributes({"workflow_id": checked.workflow_id, "run_id": checked.id})
            self._emitter.emit(checked)

    async def list_runs(
        self, workflow_id: str, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowRun], str | None]:
        """See `RunLogProtocol.list_runs`."""
        return await self._reader.list_runs(workflow_id, limit=limit, start_after=start_after)

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`."""
        return await self._reader.get_run(workflow_id, run_id)

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`."""
        return await self._reader.get_stats(workflow_id)

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`."""
        return await self._reader.get_pending_runs()

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`."""
        return await self._reader.get_latest_run(workflow_id)

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """See `RunLogService.get_history`."""
        return await self._reader.get_history(workflow_id, run_id)

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
