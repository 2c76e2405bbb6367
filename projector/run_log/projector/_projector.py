"""The projector: events in, one outcome for each out, whatever is wrong with its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from opentelemetry import trace

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Outcome,
    RunEvent,
    RunExpiredError,
    WriteRefusedError,
    check_stamp,
    get_logger,
    span_link,
    utc_now,
)
from run_log.stores import ProjectionStore

from ._accounts import count_events

MAX_LINKS: Final = 128
"""OpenTelemetry's default limit for a span's links."""

_logger: Final = get_logger("run_log.projector")
_tracer: Final = trace.get_tracer("run_log.projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What became of one event."""

    outcome: Outcome
    error: WriteRefusedError | None = None
    """Why the store refuses it; None unless the outcome is rejected."""

    @property
    def reason(self) -> DeadLetterReason | None:
        """What a program is told about that."""
        if self.error is None:
            return None
        is_expired = isinstance(self.error, RunExpiredError)
        return DeadLetterReason.EXPIRED if is_expired else DeadLetterReason.WRITE_REFUSED


class Projector:
    """Merges events into a store, isolating those it refuses.

    Args:
        store: Where the projection is.
        now: The time, to tell which events are stamped too far ahead.
    """

    def __init__(self, store: ProjectionStore, *, now: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self.now: Final = now

    async def apply(self, events: Iterable[RunEvent]) -> list[Outcome]:
        """Merge *events* and return what became of each, in order.

        Repeats change nothing, order changes nothing. An event that the store refuses for good, or that is
        stamped more than a day ahead, is rejected alone; the others are applied. Durable when it returns.

        Args:
            events: Events of any runs, in any order, with repeats.

        Raises:
            StoreUnavailableError: The store does not answer; applying all of them again is safe.
            ConfigurationError: The store is not there, or does not let us in.
        """
        moment = self.now()
        given = list(events)
        taken = [event for event in given if _is_stamped_well(event, moment)]
        outcomes = iter([projected.outcome for projected in await self.project(taken)])
        ids = set(map(id, taken))
        return [next(outcomes) if id(event) in ids else Outcome.REJECTED for event in given]

    async def project(self, events: Sequence[RunEvent]) -> list[Projected]:
        """Merge *events* as `apply` does, whatever their stamps, and return with each rejection its reason.

        Args:
            events: See `apply`; who knows when they were published has checked their stamps.

        Raises:
            StoreUnavailableError: See `apply`.
            ConfigurationError: See `apply`.
        """
        if not events:
            return []
        links = [
            link for event in events[:MAX_LINKS] if (link := span_link(event.traceparent, event.tracestate))
        ]
        with _tracer.start_as_current_span(
            "run_log.project", links=links, attributes={"events": len(events)}
        ):
            projected = await self._isolate(events)
        count_events(item.outcome for item in projected)
        return projected

    async def _isolate(self, events: Sequence[RunEvent]) -> list[Projected]:
        """Apply *events*; where the store refuses the batch, halve it until the culprit stands alone."""
        try:
            return [Projected(outcome=outcome) for outcome in await self._store.apply(events)]
        except WriteRefusedError as error:
            if len(events) == 1:
                _tell_rejected(events[0], error)
                return [Projected(outcome=Outcome.REJECTED, error=error)]
        half = len(events) // 2
        return [*await self._isolate(events[:half]), *await self._isolate(events[half:])]


def _is_stamped_well(event: RunEvent, moment: datetime) -> bool:
    try:
        check_stamp(event, moment)
    except EventDecodeError as error:
        _tell_rejected(event, error)
        return False
    return True


def _tell_rejected(event: RunEvent, error: Exception) -> None:
    _logger.warning(
        "run_log_event_rejected",
        workflow_id=event.run.workflow_id,
        run_id=event.run.id,
        event_id=event.event_id,
        error=str(error),
    )
