"""The event-sourced run log: saves are published, queries read the projection."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from opentelemetry import trace
from typing_extensions import override

from run_log.core import ConfigurationError, RunEvent, Settings, Version, WriteRefusedError
from run_log.core.models import RunKey, validated
from run_log.core.wire import MAX_STAMPED_AHEAD
from run_log.stores import RunLog, RunLogService

from ._emitter import RunEventEmitter

CLOSE_TIMEOUT_SECONDS: Final = 5.0

_tracer: Final = trace.get_tracer("run_log.producer")


class PubSubRunLogService(RunLog):
    """A run log whose saves cost microseconds: they are published, and a projector stores them.

    What is saved, answered or marked as lost is not delivered yet when that returns, see `flush` and `close`,
    and becomes visible once the projector has come to it. Queries read from *reader*.

    Answers with the same ``if_version`` are refused once one of them is projected. Before that, several are
    published: all are of one version, of which the projection keeps one, the same one everywhere. So which
    one holds is known once it is projected: it is the transition that follows the pause in `get_history`, by
    who answered. The others are in no history.

    Args:
        emitter: Publishes what is saved; closed with the service.
        reader: Holds what queries read; closed with the service.
    """

    def __init__(self, *, emitter: RunEventEmitter, reader: RunLogService) -> None:
        super().__init__(reader, reader.version_clock)
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

    @override
    async def save_run(self, run: Any) -> None:
        """Publish that *run* is so now. Returns before it is delivered: see `flush` and `close`.

        Args:
            run: A `WorkflowRun`, or any object with its fields.

        Raises:
            InvalidRunError: A field is missing or wrong; nothing is published.
            WriteRefusedError: What is read of the run is stamped too far ahead; see `resume`.
        """
        with _tracer.start_as_current_span("run_log.save") as span:
            checked = validated(run, label_fields=self.label_fields)
            span.set_attributes({"workflow_id": checked.workflow_id, "run_id": checked.id})
            seen = self.version_clock.seen(checked.key)
            self._check_not_ahead(checked.key, seen)
            self._emitter.observe(seen, checked.key)
            self._emitter.emit(checked)

    @override
    async def _conclude(self, event: RunEvent, asked: Version | None = None) -> None:
        if asked is not None:
            # In one version: the law keeps one of them, the same one wherever they are projected.
            after = asked.successor
            event = event.model_copy(update={"hlc": after.hlc, "event_id": after.event_id})
        self._check_not_ahead(event.key, event.hlc)
        self._emitter.emit(event)

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

    @property
    @override
    def place(self) -> str:
        return self._reader.place

    @override
    async def reach(self, seconds: float) -> None:
        """Return once it is known that queries can be answered; what saves are published to is not asked."""
        await self._reader.reach(seconds)

    @override
    async def flush(self, timeout: float = 2.0) -> bool:
        """Wait until what was saved is durable, which it is once the broker has it; return whether it is."""
        report = await self._emitter.flush(timeout)
        return not report.pending and not report.dropped

    @property
    def emitter(self) -> RunEventEmitter:
        """What publishes: its `flush` waits for delivery, its `stats` count it."""
        return self._emitter

    @override
    async def close(self) -> None:
        """Deliver what is held, within `CLOSE_TIMEOUT_SECONDS`, and let go of connections."""
        await self._emitter.flush(CLOSE_TIMEOUT_SECONDS)
        # What is left is only a thread to join and a channel to close.
        await asyncio.to_thread(self._emitter.close, 0)
        await self._watches.close()
        await self._reader.close()


def create_service(_settings: Settings) -> PubSubRunLogService:
    """Return the back end ``pubsub``: saves are published, queries read Firestore."""
    return PubSubRunLogService.from_env()
