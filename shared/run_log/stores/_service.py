"""What every run log does alike: check arguments, open spans, keep the clock ahead of what is read."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from run_log.core import (
    MAX_LIMIT,
    PROCESS_CLOCK,
    InvalidArgumentError,
    Outcome,
    Position,
    RunEvent,
    RunLogProtocol,
    Transition,
    WorkflowRun,
    current_trace,
    decode_cursor,
    encode_cursor,
    mark_anomalies,
)

from ._documents import position_of
from ._telemetry import operation


class ProjectionStore(Protocol):
    """The write port: where events become the runs and stats that queries read.

    Defined by what the projector needs of a store.
    """

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Merge *events* into the store and answer one outcome for each, in order.

        Repeats change nothing, order changes nothing, and when this returns everything is durable: the
        run documents and the stats of their workflows changed together. Any number of callers and
        processes may apply at once.

        Args:
            events: Events of any runs, in any order, with repeats.

        Raises:
            StoreUnavailableError: The store does not answer; part of the events may be applied, and
                applying all of them again is safe.
            WriteRefusedError: The store will never take one of these events; none is applied that was
                to be written together with it. Apply parts of the batch to find out which.
            ConfigurationError: The store is not there, or does not let us in.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as read, with the clock reading of its newest event."""

    run: WorkflowRun
    hlc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing, and whether another follows."""

    runs: Sequence[StoredRun]
    more: bool


class RunLogService(RunLogProtocol, abc.ABC):
    """The part of a run log that does not depend on where runs are kept.

    A store adds how a run is written and read; arguments are checked, spans opened and cursors made here,
    once. Reading a run advances the process's clock past the run's newest event, so that what this
    process says next about it is later, whatever the machine's time.
    """

    async def save_run(self, run: Any) -> None:
        """See `RunLogProtocol.save_run`. Durable when it returns."""
        with operation("run_log.save") as span:
            event = RunEvent.from_run(run, trace=current_trace())
            span.set_attributes({"workflow_id": event.run.workflow_id, "run_id": event.run.id})
            await self._save(event)

    async def list_runs(
        self, workflow_id: str, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowRun], str | None]:
        """See `RunLogProtocol.list_runs`. Reads one run more than it returns."""
        workflow_id = _identifier("workflow_id", workflow_id)
        limit = _limit(limit)
        after = None if start_after is None else decode_cursor(start_after, scope=workflow_id)
        with operation("run_log.list", workflow_id=workflow_id, limit=limit):
            page = await self._page(workflow_id, after, limit)
            runs = [self._observed(stored) for stored in page.runs]
            return runs, encode_cursor(position_of(runs[-1]), scope=workflow_id) if page.more else None

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`. Reads one document."""
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        with operation("run_log.get", workflow_id=workflow_id, run_id=run_id):
            stored = await self._read(workflow_id, run_id)
            return self._observed(stored) if stored else None

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`. Reads one document."""
        workflow_id = _identifier("workflow_id", workflow_id)
        with operation("run_log.stats", workflow_id=workflow_id):
            total, successful = await self._stats(workflow_id)
            return {"total": total, "successful": successful}

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`. Reads the paused runs and no others."""
        with operation("run_log.get_pending_runs"):
            return [self._observed(stored) for stored in await self._pending()]

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`. Reads one document."""
        workflow_id = _identifier("workflow_id", workflow_id)
        with operation("run_log.get_latest", workflow_id=workflow_id):
            stored = await self._latest(workflow_id)
            return self._observed(stored) if stored else None

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """Return the run's newest transitions in version order; none where there is no such run.

        Transitions that break the state machine are marked as anomalies.

        Raises:
            InvalidArgumentError: An id is empty.
            UnreadableRunError: The run is stored in a form that cannot be read.
            StoreUnavailableError: The store does not answer in bounded time.
        """
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        with operation("run_log.history", workflow_id=workflow_id, run_id=run_id):
            return mark_anomalies(await self._history(workflow_id, run_id))

    @abc.abstractmethod
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of connections. Closing twice is fine."""

    @abc.abstractmethod
    async def _save(self, event: RunEvent) -> None:
        """Make *event* the run's newest state, stamped later than what is stored, durably."""

    @abc.abstractmethod
    async def _page(self, workflow_id: str, after: Position | None, limit: int) -> Page:
        """Read the readable runs after a position, newest first."""

    @abc.abstractmethod
    async def _read(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """Read one run."""

    @abc.abstractmethod
    async def _stats(self, workflow_id: str) -> tuple[int, int]:
        """Read total and successful."""

    @abc.abstractmethod
    async def _pending(self) -> Sequence[StoredRun]:
        """Read every readable paused run, newest first."""

    @abc.abstractmethod
    async def _latest(self, workflow_id: str) -> StoredRun | None:
        """Read the newest readable run."""

    @abc.abstractmethod
    async def _history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """Read a run's transitions in version order."""

    def _observed(self, stored: StoredRun) -> WorkflowRun:
        PROCESS_CLOCK.observe(stored.hlc)
        return stored.run


def _identifier(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{name} is {value!r}; pass a non-empty text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name} is {value!r}, which is not valid Unicode text") from error
    return value


def _limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise InvalidArgumentError(f"limit is {value!r}; pass a whole number from 1 to {MAX_LIMIT}")
    return value
