"""Events and folded runs, merged into a store; each gets an outcome, whatever is wrong with the others."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from opentelemetry import trace

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    EventDecodeError,
    Outcome,
    RunEvent,
    RunExpiredError,
    RunLogError,
    StoreUnavailableError,
    WriteRefusedError,
    utc_now,
)
from run_log.core.events import span_link
from run_log.core.logs import get_logger
from run_log.core.wire import check_stamp
from run_log.stores import ProjectionStore

from .in_hand import count, meter

MAX_LINKS: Final = 128
"""OpenTelemetry's default limit for a span's links."""

_SHOWN_FRAMES: Final = 8

# Most events at which the store failed, and of which it is not known yet whether it takes others.
_MOST_SUSPECTS: Final = 1_000

_logger: Final = get_logger("run_log.projector")
_events: Final = meter.create_counter(
    "run_log.projector.events", unit="{event}", description="Events by what became of them"
)
_batch: Final = meter.create_histogram(
    "run_log.projector.batch.events", unit="{event}", description="Events projected together"
)
_tracer: Final = trace.get_tracer("run_log.projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What became of one event."""

    outcome: Outcome
    error: WriteRefusedError | None = None
    """Why the store refuses the event; None unless the outcome is rejected."""

    @property
    def reason(self) -> DeadLetterReason | None:
        """The reason of its dead letter; None unless the outcome is rejected."""
        if self.error is None:
            return None
        is_expired = isinstance(self.error, RunExpiredError)
        return DeadLetterReason.EXPIRED if is_expired else DeadLetterReason.WRITE_REFUSED


class Projector:
    """Merges events into a store, and isolates those that the store refuses.

    Args:
        store: Holds the projection.
        now: The time, to find events that are stamped too far ahead.
    """

    def __init__(self, store: ProjectionStore, *, now: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self.now: Final = now
        self._answered = 0
        self._suspects: dict[str, int] = {}

    async def apply(self, events: Iterable[RunEvent]) -> list[Outcome]:
        """Merge *events* and return what became of each, in order.

        Repeats change nothing, and the order changes nothing. The events are durable when this returns. An
        event is rejected if the store refuses it for good, if it is stamped more than a day ahead, or if the
        store fails at it with an unexpected error and takes others.

        Args:
            events: Events of any runs, in any order, with repeats.

        Raises:
            StoreUnavailableError: The store does not answer. It is safe to apply all events again.
            ConfigurationError: The store does not exist, or denies access.
        """
        moment = self.now()
        given = list(events)
        taken = [event for event in given if _is_stamped_well(event, moment)]
        outcomes = iter([projected.outcome for projected in await self.project(taken)])
        ids = set(map(id, taken))
        return [next(outcomes) if id(event) in ids else Outcome.REJECTED for event in given]

    async def project(self, events: Sequence[RunEvent]) -> list[Projected]:
        """Merge *events* as `apply` does, whatever their stamps are; return the reason of each rejection.

        The caller has checked the stamps, against the time of publishing.

        Raises:
            StoreError: See `apply`.
        """
        if not events:
            return []
        links = [
            link for event in events[:MAX_LINKS] if (link := span_link(event.traceparent, event.tracestate))
        ]
        # The text of an unexpected error may quote a payload, so the span gets only the error's name.
        with _tracer.start_as_current_span(
            "run_log.project",
            links=links,
            attributes={"events": len(events)},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                projected = self._judged(events, await self._isolate(events))
            except Exception as error:
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise
        _count(projected)
        return projected

    async def _isolate(
        self, events: Sequence[RunEvent], *, is_told: bool = False
    ) -> list[Projected | Exception]:
        """Apply *events*; return what became of each, or the unexpected error with which the store failed."""
        try:
            outcomes = await self._store.apply(events)
            return [Projected(outcome=outcome) for _, outcome in zip(events, outcomes, strict=True)]
        except (StoreUnavailableError, ConfigurationError):
            raise
        except WriteRefusedError as error:
            if len(events) == 1:
                return [_rejected(events[0], error)]
        except Exception as error:  # noqa: BLE001 - one event must not end the others, whatever it raises
            if not is_told:
                # Not the whole traceback: it ends with the error's text, which may quote a payload.
                name = type(error).__name__
                _logger.error("run_log_store_failed", events=len(events), error=name, where=where_from(error))  # noqa: TRY400
                is_told = True
            if len(events) == 1:
                error.__cause__ = error.__context__ = None
                return [error.with_traceback(None)]
        # Halved until the culprit is alone.
        half = len(events) // 2
        return [
            *await self._isolate(events[:half], is_told=is_told),
            *await self._isolate(events[half:], is_told=is_told),
        ]

    def _judged(
        self, events: Sequence[RunEvent], results: Sequence[Projected | Exception]
    ) -> list[Projected]:
        """Return *results*, and reject each event at which the store fails while it takes others."""
        # An event at which the store fails unexpectedly may be poison, or the store may be broken for all.
        # The first is assumed once the store has taken another event since; until then the error is raised,
        # and the batch is tried again.
        failed = {
            event.event_id: result
            for event, result in zip(events, results, strict=True)
            if isinstance(result, Exception)
        }
        self._answered += sum(not isinstance(result, Exception) for result in results)
        for event_id in failed:
            self._suspects.setdefault(event_id, self._answered)
        if len(failed) == len({event.event_id for event in events}):
            for event_id, error in failed.items():
                if self._suspects[event_id] == self._answered:
                    # The oldest go first. Those that were forgotten are only tried once more.
                    while len(self._suspects) > _MOST_SUSPECTS:
                        del self._suspects[next(iter(self._suspects))]
                    raise error
        judged: list[Projected] = []
        for event, result in zip(events, results, strict=True):
            if isinstance(result, Projected):
                judged.append(result)
                continue
            self._suspects.pop(event.event_id, None)
            refused = WriteRefusedError(
                f"the store fails at this event with {type(result).__name__}, and takes others"
            )
            judged.append(_rejected(event, refused))
        return judged


def told(error: BaseException) -> str:
    """Return the text of *error*, or only its name: a foreign error may quote a payload or a password."""
    return str(error) if isinstance(error, RunLogError) else type(error).__name__


def where_from(error: BaseException) -> str:
    """Return the innermost frames of *error*, without its text."""
    return "".join(traceback.format_tb(error.__traceback__)[-_SHOWN_FRAMES:])


def _count(projected: Sequence[Projected]) -> None:
    for outcome, events in Counter(item.outcome for item in projected).items():
        count(_events, events, outcome=outcome.value)
    with contextlib.suppress(Exception):  # for the reason in `count`
        _batch.record(len(projected))


def _is_stamped_well(event: RunEvent, moment: datetime) -> bool:
    try:
        check_stamp(event, moment)
    except EventDecodeError as error:
        _tell_rejected(event, error)
        return False
    return True


def _rejected(event: RunEvent, error: WriteRefusedError) -> Projected:
    _tell_rejected(event, error)
    # Its cause and traceback would keep the events of a whole batch in memory.
    error.__cause__ = error.__context__ = None
    return Projected(outcome=Outcome.REJECTED, error=error.with_traceback(None))


def _tell_rejected(event: RunEvent, error: Exception) -> None:
    _logger.warning(
        "run_log_event_rejected",
        workflow_id=event.run.workflow_id,
        run_id=event.run.id,
        event_id=event.event_id,
        error=str(error),
    )
