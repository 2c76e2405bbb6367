"""What every run log does alike: check arguments, open spans, keep the clock ahead of what is read."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final, Protocol, Unpack

from run_log.core import (
    InvalidArgumentError,
    NotPausedError,
    Outcome,
    RunEvent,
    RunNotFoundError,
    RunStatus,
    Transition,
    Version,
    WaitTimeoutError,
    WorkflowRun,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock, hlc_after
from run_log.core.counters import SummaryCounter
from run_log.core.events import current_trace
from run_log.core.ids import bounded_id, document_id, id_text
from run_log.core.law import annotated
from run_log.core.models import RunKey
from run_log.core.payload import encode_json
from run_log.stores.listings import (
    Order,
    OverallPosition,
    Position,
    RunFilters,
    Selection,
    check_moves_on,
    check_names,
    decode_cursor,
    decode_parts,
    encode_cursor,
    encode_parts,
)
from run_log.stores.stored.reading import Page, StoredRun, names_of, position_of

from ._run_log import RunLog, moment_or_now, whole
from ._waiting import awaited_version, look_until
from .inbox import Answer, InboxSelection, PendingRun, pending
from .stale import ACTIVE, StaleRun, StaleSelection, lost
from .summaries import SummaryWindow, WorkflowStats, WorkflowSummary, summary_of
from .telemetry import operation
from .watch import RunUpdate, RunWatch, UpdateSource, Watches

_WORKFLOWS: Final = "workflows"


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


class RunLogService(RunLog, abc.ABC):
    """The part of a run log that does not depend on where runs are kept.

    A store adds how a run is written and read; arguments are checked, spans opened and cursors made here,
    once. Reading a run advances the process's clock past the run's newest event, so that what this
    process says next about it is later, whatever the machine's time; where that event lies a minute or more
    ahead of the machine's, only what is said about that run is later, and the clock stays.

    Args:
        clock: Stamps what is saved.
    """

    def __init__(self, clock: HybridLogicalClock = PROCESS_CLOCK) -> None:
        self.version_clock: Final = clock
        """Stamps what is saved, and follows what is read."""
        self._watches = Watches()

    async def save_run(self, run: Any) -> None:
        """See `RunLogProtocol.save_run`. Durable when it returns."""
        with operation("run_log.save") as span:
            event = RunEvent.from_run(run, clock=self.version_clock, trace=current_trace())
            span.set_attributes({"workflow_id": event.run.workflow_id, "run_id": event.run.id})
            await self._save(event)

    async def list_runs(
        self,
        workflow_id: str,
        *,
        limit: int = 50,
        start_after: Any | None = None,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[WorkflowRun], str | None]:
        """See `RunLogReader.list_runs`. Reads one run more than it returns."""
        workflow_id = await self._workflow_named(workflow_id)
        limit = whole("limit", limit)
        selection = Selection.of(**filters)
        listing = {"scope": workflow_id, "selection": selection.text}
        after = None
        if start_after is not None:
            after = decode_cursor(start_after, **listing)
            check_names(start_after, after.document_id)
        with operation("run_log.list", workflow_id=workflow_id, limit=limit):
            page = await self._page(workflow_id, selection, after, limit)
            runs = [self._observed(stored) for stored in page.runs]
            if not page.more:
                return runs, None
            last = position_of(runs[-1])
            check_moves_on(after, last, newest_first=selection.order is Order.NEWEST)
            return runs, encode_cursor(last, **listing)

    async def list_workflows(
        self, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowStats], str | None]:
        """See `RunLogReader.list_workflows`. Reads one workflow more than it returns, and shards of stats."""
        limit = whole("limit", limit)
        after = None
        if start_after is not None:
            (after,) = decode_parts(start_after, [str], scope=_WORKFLOWS)
            check_names(start_after, after)
        with operation("run_log.list_workflows", limit=limit):
            found = await self._workflows_page(after, limit + 1)
            page = found[:limit]
            if len(found) == len(page):
                return page, None
            last = document_id(page[-1].workflow_id)
            check_moves_on(after, last)
            return page, encode_parts([last], scope=_WORKFLOWS)

    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_run`. Reads one document."""
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        with operation("run_log.get", workflow_id=workflow_id, run_id=run_id):
            stored = await self._read_named(workflow_id, run_id)
            return self._observed(stored) if stored else None

    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """See `RunLogProtocol.get_stats`. Reads one document."""
        workflow_id = await self._workflow_named(workflow_id)
        with operation("run_log.stats", workflow_id=workflow_id):
            stats = await self._stats(workflow_id)
            return {"total": stats.total, "successful": stats.successful}

    async def get_summary(
        self, workflow_id: str, window: timedelta | None = None, *, now: datetime | None = None
    ) -> WorkflowSummary:
        """See `RunLogReader.get_summary`. Reads four documents, and shards of stats."""
        workflow_id = await self._workflow_named(workflow_id)
        looked_at = SummaryWindow.of(window, moment_or_now(now))
        with operation("run_log.summary", workflow_id=workflow_id):
            (stats, counters), *last = await asyncio.gather(
                self._summary(workflow_id),
                self._latest(workflow_id, Selection()),
                self._latest(workflow_id, Selection.of(status=RunStatus.SUCCESS)),
                self._latest(workflow_id, Selection.of(status=RunStatus.FAILED)),
            )
            last_run, last_success, last_failure = (self._observed(one) if one else None for one in last)
            return summary_of(
                stats,
                counters,
                looked_at,
                last_run=last_run,
                last_success=last_success,
                last_failure=last_failure,
            )

    async def get_as_of(self, workflow_id: str) -> datetime | None:
        """See `RunLogReader.get_as_of`. Reads one document, and shards of stats."""
        workflow_id = await self._workflow_named(workflow_id)
        with operation("run_log.as_of", workflow_id=workflow_id):
            return (await self._stats(workflow_id)).as_of

    async def wait_for(
        self,
        workflow_id: str,
        run_id: str,
        version_or_event: Version | RunEvent,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - it says how long the caller's own event may take
    ) -> WorkflowRun:
        """See `RunLogReader.wait_for`. Reads one document each time it looks: less and less often."""
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        version = awaited_version((bounded_id(workflow_id), bounded_id(run_id)), version_or_event)

        async def look() -> StoredRun | None:
            stored = await self._read_named(workflow_id, run_id)
            return stored if stored is not None and stored.version >= version else None

        with operation("run_log.wait_for", workflow_id=workflow_id, run_id=run_id):
            found = await look_until(look, timeout)
            if found is None:
                raise WaitTimeoutError(
                    f"run {run_id!r} of workflow {workflow_id!r} was not seen at {version} or later within "
                    f"{timeout} s; is the projector running, and does it keep up?"
                )
            return self._observed(found)

    async def get_pending_runs(self) -> list[WorkflowRun]:
        """See `RunLogProtocol.get_pending_runs`. Reads the paused runs and no others."""
        with operation("run_log.get_pending_runs"):
            return [self._observed(stored) for stored in await self._pending()]

    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """See `RunLogProtocol.get_latest_run`. Reads one document."""
        workflow_id = await self._workflow_named(workflow_id)
        with operation("run_log.get_latest", workflow_id=workflow_id):
            stored = await self._latest(workflow_id, Selection())
            return self._observed(stored) if stored else None

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
        """See `RunLogReader.list_pending`. Reads one run more than it returns."""
        selection = InboxSelection(
            assignee=None if assignee is None else _text("assignee", assignee),
            overdue=_choice("overdue", overdue),
            workflow_id=None if workflow_id is None else await self._workflow_named(workflow_id),
            now=moment_or_now(now),
        )
        limit = whole("limit", limit)
        after = None if start_after is None else _place(selection, start_after)
        with operation("run_log.list_pending", limit=limit):
            page = await self._placed_page(selection, after, limit)
            found = [pending(self._observed(one), one.occurred_at, selection.now) for one in page.runs]
            return found, _cursor(selection, after, page)

    async def list_stale(
        self,
        older_than: timedelta,
        *,
        workflow_id: str | None = None,
        limit: int = 50,
        start_after: Any | None = None,
        now: datetime | None = None,
    ) -> tuple[list[StaleRun], str | None]:
        """See `RunLogReader.list_stale`. Reads one run more than it returns."""
        moment = moment_or_now(now)
        selection = StaleSelection(
            before=_before(older_than, moment),
            workflow_id=None if workflow_id is None else await self._workflow_named(workflow_id),
        )
        limit = whole("limit", limit)
        after = None if start_after is None else _place(selection, start_after)
        with operation("run_log.list_stale", limit=limit):
            page = await self._placed_page(selection, after, limit)
            found = [
                StaleRun(run=self._observed(one), heard_at=one.occurred_at, silence=moment - one.occurred_at)
                for one in page.runs
            ]
            return found, _cursor(selection, after, page)

    async def mark_lost(
        self, workflow_id: str, run_id: str, *, older_than: timedelta, now: datetime | None = None
    ) -> bool:
        """See `RunLog.mark_lost`. Durable when it returns."""
        event = await self.conclude_lost(workflow_id, run_id, older_than=older_than, now=now)
        if event is not None:
            await self.apply([event])
        return event is not None

    async def conclude_lost(
        self, workflow_id: str, run_id: str, *, older_than: timedelta, now: datetime | None = None
    ) -> RunEvent | None:
        """Return the event that says that a run is lost; None where it is not stale (any more).

        See `RunLog.mark_lost` for the arguments and errors. Nothing is written.
        """
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        moment = moment_or_now(now)
        before = _before(older_than, moment)
        with operation("run_log.mark_lost", workflow_id=workflow_id, run_id=run_id):
            stored = await self._read_named(workflow_id, run_id)
            if stored is None:
                raise RunNotFoundError(workflow_id, run_id)
            if stored.run.status not in ACTIVE or stored.occurred_at >= before:
                return None
            return lost(stored.run, stored.version, stored.occurred_at, moment)

    async def conclude_answer(self, workflow_id: str, run_id: str, answer: Answer) -> RunEvent:
        """Return the event that answers a paused run: just after the one it answers, by any clock.

        See `RunLog.resume` for the arguments and errors. Nothing is written.
        """
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        with operation("run_log.get", workflow_id=workflow_id, run_id=run_id):
            stored = await self._read_named(workflow_id, run_id)
            if stored is None:
                raise RunNotFoundError(workflow_id, run_id)
            if stored.run.status is not RunStatus.PAUSED:
                raise NotPausedError(
                    f"run {run_id!r} of workflow {workflow_id!r} is {stored.run.status.value}, not paused"
                )
            run = answer.given_to(self._observed(stored))
        event = RunEvent.from_run(run, clock=self.version_clock, trace=current_trace())
        # An id before all others: what the run itself says in the next microsecond is later, too.
        place = {"hlc": hlc_after(stored.version.hlc, run.key), "event_id": f"!{event.event_id}"}
        return event.model_copy(update=place)

    async def _answer(self, workflow_id: str, run_id: str, answer: Answer) -> WorkflowRun:
        event = await self.conclude_answer(workflow_id, run_id, answer)
        with operation("run_log.save", workflow_id=event.run.workflow_id, run_id=event.run.id):
            await self.apply([event])
        return event.run

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """See `RunLogReader.get_history`. Reads one document."""
        workflow_id, run_id = _identifier("workflow_id", workflow_id), _identifier("run_id", run_id)
        with operation("run_log.history", workflow_id=workflow_id, run_id=run_id):
            for key in _keys(workflow_id, run_id):
                if history := await self._history(*key):
                    return annotated(history)
            return ()

    def watch(self, workflow_id: str | None = None, *, since_cursor: Any | None = None) -> RunWatch:
        """See `RunLogReader.watch`."""
        workflow_id = None if workflow_id is None else bounded_id(_identifier("workflow_id", workflow_id))
        source = self._updates(workflow_id, since_cursor, encode_json([workflow_id]))
        return RunWatch(source, self._watches, workflow_id)

    @abc.abstractmethod
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""

    @abc.abstractmethod
    async def _save(self, event: RunEvent) -> None:
        """Make *event* the run's newest state, stamped later than what is stored, durably."""

    @abc.abstractmethod
    async def _page(self, workflow_id: str, selection: Selection, after: Position | None, limit: int) -> Page:
        """Read the readable runs of a selection after a position, in its order."""

    @abc.abstractmethod
    async def _workflows_page(self, after: str | None, most: int) -> list[WorkflowStats]:
        """Read the stats of at most so many workflows after a document id, by document id."""

    @abc.abstractmethod
    async def _read(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """Read one run."""

    @abc.abstractmethod
    async def _stats(self, workflow_id: str) -> WorkflowStats:
        """Read a workflow's stats; zeros for an unknown one."""

    @abc.abstractmethod
    async def _summary(self, workflow_id: str) -> tuple[WorkflowStats, Mapping[SummaryCounter, int]]:
        """Read a workflow's stats and the counters of its summary; zeros and none for an unknown one."""

    @abc.abstractmethod
    async def _pending(self) -> Sequence[StoredRun]:
        """Read every readable paused run, newest first."""

    @abc.abstractmethod
    async def _placed_page(
        self, selection: InboxSelection | StaleSelection, after: OverallPosition | None, limit: int
    ) -> Page:
        """Read the readable runs of a selection over workflows after a place, in its order."""

    @abc.abstractmethod
    async def _latest(self, workflow_id: str, selection: Selection) -> StoredRun | None:
        """Read the first readable run of a selection."""

    @abc.abstractmethod
    async def _history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """Read a run's transitions in version order."""

    @abc.abstractmethod
    def _updates(self, workflow_id: str | None, cursor: object, selection: str) -> UpdateSource:
        """Return where a watch's updates come from.

        Args:
            workflow_id: The workflow that is watched; None for all.
            cursor: Where to begin; None for now.
            selection: What cursors are made with.

        Raises:
            InvalidCursorError: *cursor* cannot be used.
        """

    async def _workflow_named(self, workflow_id: object) -> str:
        """Return the id under which the workflow is stored that a caller calls so; see `names_of`."""
        *earlier, name = names_of(_identifier("workflow_id", workflow_id))
        for one in earlier:
            if (await self._stats(one)).total:
                return one
        return name

    async def _read_named(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """Read the run that a caller calls so."""
        for key in _keys(workflow_id, run_id):
            if (stored := await self._read(*key)) is not None:
                return stored
        return None

    def _update(self, stored: StoredRun, cursor: str) -> RunUpdate:
        return RunUpdate(run=self._observed(stored), version=stored.version, cursor=cursor)

    def _observed(self, stored: StoredRun) -> WorkflowRun:
        self.version_clock.observe(stored.version.hlc, stored.run.key)
        return stored.run


def _keys(workflow_id: str, run_id: str) -> Iterator[RunKey]:
    """Return the keys under which the run may be stored that a caller calls so."""
    return product(names_of(workflow_id), names_of(run_id))


def _place(selection: InboxSelection | StaleSelection, cursor: object) -> OverallPosition:
    return OverallPosition.after(cursor, scope=selection.scope, selection=selection.text)


def _cursor(
    selection: InboxSelection | StaleSelection, after: OverallPosition | None, page: Page
) -> str | None:
    if not page.more:
        return None
    last = page.runs[-1]
    # By what the store sorts by, whatever the run itself says: a place made of that might lead back.
    place = OverallPosition.of(last.projection[selection.sorted_by], last.run.key)
    check_moves_on(after, place, newest_first=selection.newest_first)
    return place.cursor(scope=selection.scope, selection=selection.text)


def _identifier(name: str, value: object) -> str:
    """Return the id that a run was saved with which was given *value* for one."""
    text = id_text(value)
    if not text:
        raise InvalidArgumentError(f"{name} is {value!r}; pass a non-empty text")
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is {value!r}; pass a non-empty text")
    return _identifier(name, value)


def _choice(name: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {value!r}; pass True, False, or None for either")
    return value


def _before(older_than: object, now: datetime) -> datetime:
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise InvalidArgumentError(f"older_than is {older_than!r}; pass a timedelta of 0 or more")
    try:
        return now - older_than
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
