"""Events and folded runs, merged into a store; each gets an outcome, whatever is wrong with the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

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
from run_log.core.law import FoldedRun
from run_log.core.logs import get_logger
from run_log.core.models import RunKey
from run_log.core.trace import span_link
from run_log.core.wire import check_stamp
from run_log.stores import ProjectionStore

from .in_hand import count_events

MAX_LINKS: Final = 128
"""OpenTelemetry's default limit for a span's links."""

_SHOWN_FRAMES: Final = 8

_MOST_SUSPECTS: Final = 1_000
"""Events at which the store failed, and of which it is not known yet whether it takes others."""

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
        self._answered = 0
        self._suspects: dict[str, int] = {}

    async def apply(self, events: Iterable[RunEvent]) -> list[Outcome]:
        """Merge *events* and return what became of each, in order.

        Repeats change nothing, order changes nothing. Rejected alone is an event that the store refuses for
        good, one that is stamped more than a day ahead, and one at which the store fails in a way that nobody
        foresaw while it takes others. Durable when it returns.

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
        # What an error says that nobody foresaw may be anything: of those a span has the name alone.
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
        count_events(item.outcome for item in projected)
        return projected

    async def _isolate(
        self, events: Sequence[RunEvent], *, is_told: bool = False
    ) -> list[Projected | Exception]:
        """Apply *events*; where the store refuses the batch, halve it until the culprit stands alone.

        Returns:
            What became of each; the error of those at which the store failed as nobody foresaw.
        """
        try:
            outcomes = await self._store.apply(events)
            return [Projected(outcome=outcome) for _, outcome in zip(events, outcomes, strict=True)]
        except (StoreUnavailableError, ConfigurationError):
            raise
        except WriteRefusedError as error:
            if len(events) == 1:
                return [_rejected(events[0], error)]
        except Exception as error:  # noqa: BLE001 - one event that does this must not end the others
            if not is_told:
                # A traceback would end in the error's text, which may be anything.
                name = type(error).__name__
                _logger.error("run_log_store_failed", events=len(events), error=name, where=where_from(error))  # noqa: TRY400
                is_told = True
            if len(events) == 1:
                error.__cause__ = error.__context__ = None
                return [error.with_traceback(None)]
        half = len(events) // 2
        first, second = events[:half], events[half:]
        return [
            *await self._isolate(first, is_told=is_told),
            *await self._isolate(second, is_told=is_told),
        ]

    def _judged(
        self, events: Sequence[RunEvent], results: Sequence[Projected | Exception]
    ) -> list[Projected]:
        """Return *results*, with an event rejected at which the store fails while it takes others.

        Raises:
            Exception: It failed at all of them, and at one of them for the first time since it took any: that
                may be the store's fault, or ours.
        """
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
                f"the store fails at it with {type(result).__name__}, and takes others"
            )
            judged.append(_rejected(event, refused))
        return judged


def told(error: BaseException) -> str:
    """Return what may be said of *error*: of one that is not ours, its name alone."""
    return str(error) if isinstance(error, RunLogError) else type(error).__name__


def where_from(error: BaseException) -> str:
    """Return where *error* comes from, without what it says."""
    return "".join(traceback.format_tb(error.__traceback__)[-_SHOWN_FRAMES:])


def _is_stamped_well(event: RunEvent, moment: datetime) -> bool:
    try:
        check_stamp(event, moment)
    except EventDecodeError as error:
        _tell_rejected(event, error)
        return False
    return True


def _rejected(event: RunEvent, error: WriteRefusedError) -> Projected:
    _tell_rejected(event, error)
    # What it came from holds the events of a whole batch.
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


class MergingStore(Protocol):
    """A projection into which another one's runs can be merged."""

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """Merge *runs*, each once, as if their events were applied; see `ProjectionStore.apply`.

        Raises:
            StoreUnavailableError: See `ProjectionStore.apply`, as the other errors.
            WriteRefusedError: See `ProjectionStore.apply`.
            ConfigurationError: See `ProjectionStore.apply`.
        """
        ...


class MergingProjector:
    """Merges runs into a store, isolating those it refuses, as `Projector` does with events.

    Args:
        store: Where the projection is.
    """

    def __init__(self, store: MergingStore) -> None:
        self._store = store
        self._projector = Projector(self)
        self._runs: dict[RunKey, FoldedRun] = {}

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Projected]:
        """Merge *runs*, each once, and return what became of each one's newest event, in order.

        Args:
            runs: None of them under way in another call.

        Raises:
            StoreUnavailableError: See `Projector.project`.
            ConfigurationError: See `Projector.project`.
        """
        by_key = {run.event.key: run for run in runs}
        self._runs |= by_key
        try:
            return await self._projector.project([run.event for run in runs])
        finally:
            for key in by_key:
                del self._runs[key]

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        return await self._store.merge([self._runs[event.key] for event in events])
