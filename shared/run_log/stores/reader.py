"""What dashboards ask of a run log: the queries, the same whatever it is kept in."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final, Unpack

from typing_extensions import override

from run_log.core import (
    InvalidArgumentError,
    RunEvent,
    RunStatus,
    Transition,
    Version,
    WaitTimeoutError,
    WorkflowRun,
)
from run_log.core.history import annotated
from run_log.core.ids import bounded_id, document_id
from run_log.core.law import RunHead
from run_log.core.models import RunKey
from run_log.core.payload import encode_json
from run_log.core.steps import Step

from ._waiting import awaited_version, look_until
from .arguments import identifier, moment_or_now, whole
from .failures import MAX_FAILURES, FailureGroup, grouped
from .listings import (
    Order,
    RunConditions,
    RunFilters,
    Selection,
    check_moves_on,
    check_names,
    decode_cursor,
    decode_parts,
    encode_cursor,
    encode_parts,
)
from .overall import OverallReader
from .stored.reading import StoredRun, names_of, position_of
from .summaries import SummaryWindow, WorkflowStats, WorkflowSummary, summary_of
from .telemetry import span
from .watch import RunWatch

_WORKFLOWS: Final = "workflows"
_ALL_RUNS: Final = "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """All that is kept of a run, as it was at one moment."""

    run: WorkflowRun
    version: Version
    """Of the run's newest event: of a paused run, which pause that is, for `RunLog.resume` and `reject`."""
    history: tuple[Transition, ...]
    """See `RunLogReader.get_history`."""
    steps: tuple[Step, ...]
    """See `RunLogReader.get_steps`."""


class RunLogReader(OverallReader, abc.ABC):
    """The read side of a run log: `RunLogProtocol`'s queries, and what grew around them.

    What is returned are copies. Every method raises `InvalidArgumentError` for an argument that it cannot
    use, `InvalidCursorError` for a cursor that is malformed or of another listing, and
    `StoreUnavailableError` where the store does not answer in bounded time. Listings take a *limit* of 1 to
    `MAX_LIMIT` and, as *start_after*, the cursor that the page before returned; they read one more than they
    return.

    Reading a run advances the process's clock past the run's newest event, so that what this process says
    next about it is later, whatever the machine's time. Where that event lies a minute or more ahead of the
    machine's, only what is said about that run is later, and the clock stays.

    Args:
        source: What is read.
        clock: Follows what is read, and stamps what is saved.
    """

    @override
    async def list_runs(
        self,
        workflow_id: str | None,
        *,
        limit: int = 50,
        start_after: Any | None = None,
        payloads: bool = True,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[WorkflowRun], str | None]:
        """Return one page of runs, newest first unless told otherwise, and the next cursor.

        One index finds the runs of a parent, with a label, with an error type, or with a status and a trigger
        (over all workflows, with a status). What is asked for beside that is looked for in the runs that it
        finds. So a page may be shorter than *limit*, even empty, with more to come: it ends where it has
        passed over `MAX_PASSED_OVER` runs. On Firestore, a listing of all workflows also looks for several
        statuses in this way, and oldest first for all but the parent.

        Args:
            workflow_id: The workflow, or None for all; an unknown one has no runs.
            limit: Most runs to return.
            start_after: The cursor that the page before returned; None for the first page.
            payloads: Whether `trigger_data` and `result` are read; without them both come empty.
            filters: What the runs have to be like, and their order; see `RunFilters`.

        Returns:
            The runs, and the next page's cursor: None exactly when nothing is left to read.

        Raises:
            InvalidCursorError: *start_after* is malformed, or of a listing with another workflow, other
                filters or another order.
        """
        of_all = workflow_id is None
        if workflow_id is not None:
            workflow_id = await self._workflow_named(workflow_id)
        limit = whole("limit", limit)
        selection = Selection.of(**filters)
        listing = {"scope": _ALL_RUNS if workflow_id is None else workflow_id, "selection": selection.text}
        after = None
        if start_after is not None:
            after = decode_cursor(start_after, **listing, of_several_workflows=of_all)
            check_names(start_after, after.run, *([after.workflow] if of_all else ()))
        named = {} if workflow_id is None else {"workflow_id": workflow_id}
        with span("run_log.list", attributes={**named, "limit": limit}):
            page = await self._source.read_page(workflow_id, selection, after, limit, payloads=payloads)
            runs = [self._observed(stored) for stored in page.runs]
            if not page.more:
                return runs, None
            last = position_of(page.reached or runs[-1], of_all=of_all)
            check_moves_on(after, last, newest_first=selection.order is Order.NEWEST)
            return runs, encode_cursor(last, **listing)

    async def iter_runs(
        self,
        workflow_id: str | None,
        *,
        page_size: int = 200,
        payloads: bool = True,
        **filters: Unpack[RunFilters],
    ) -> AsyncIterator[WorkflowRun]:
        """Yield every run of a workflow, or of all, newest first unless told otherwise, page after page.

        Every run that was there when the walk began comes exactly once, whatever is stored meanwhile. The
        exceptions are a run that no longer matches, and one whose `started_at` changes. *page_size* runs are
        read at a time, 1 to `MAX_LIMIT`; for the rest see `list_runs`.
        """
        cursor = None
        page_size = whole("page_size", page_size)
        while True:
            runs, cursor = await self.list_runs(
                workflow_id, limit=page_size, start_after=cursor, payloads=payloads, **filters
            )
            for run in runs:
                yield run
            if cursor is None:
                return

    async def count_runs(self, workflow_id: str | None = None, **filters: Unpack[RunConditions]) -> int:
        """Return how many runs a listing with these filters has, all its pages together.

        What is counted is not parsed, so a run that cannot be read is counted, although no listing shows it.
        In memory and in SQLite the runs are counted at one moment, by any filters.

        Firestore counts what one index finds whole; see `list_runs` for what that is. It bills one read for
        up to 1,000 index entries that it counts, and at least one
        (https://firebase.google.com/docs/firestore/query-data/aggregation-queries): a thousandth of what
        walking through the listing costs. There, expired runs are counted until Firestore has deleted them,
        and a count of all workflows includes runs of other root collections that an earlier version stored.

        Args:
            workflow_id: The workflow, or None for all; an unknown one has no runs.
            filters: What the runs have to be like; see `RunConditions`.

        Raises:
            InvalidArgumentError: Firestore has no index for all of the filters together; the message says for
                which. Leave these out, or count what `iter_runs` yields.
            StoreUnavailableError: Counting takes longer than a query may: of millions of runs on Firestore,
                count some at a time, with *since* and *until*.
        """
        if "order" in filters:
            raise InvalidArgumentError("order is given, but a number of runs has none; leave it out")
        if workflow_id is not None:
            workflow_id = await self._workflow_named(workflow_id)
        selection = Selection.of(**filters)
        named = {} if workflow_id is None else {"workflow_id": workflow_id}
        with span("run_log.count", attributes=named):
            return await self._source.read_count(workflow_id, selection)

    @override
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.get", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            stored = await self._read_named(workflow_id, run_id)
            return self._observed(stored) if stored else None

    @override
    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        workflow_id = await self._workflow_named(workflow_id)
        with span("run_log.get_latest", attributes={"workflow_id": workflow_id}):
            stored = await self._source.read_latest(workflow_id, Selection())
            return self._observed(stored) if stored else None

    async def get_history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        """Return the run's newest `MAX_HISTORY` transitions in version order; none where it is not there.

        Each tells when, of which attempt, how long it lasted, whether it breaks the state machine, and who
        answered the pause that it ended, with what choice, values and comment.

        Raises:
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.history", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            head = await self._read_head(workflow_id, run_id)
            return annotated(head.history) if head else ()

    async def get_steps(self, workflow_id: str, run_id: str) -> tuple[Step, ...]:
        """Return the run's newest `MAX_STEPS` steps in the order in which they started.

        A step that still runs although its run has ended, or is tried again, is shown as cancelled, without a
        time at which it ended, until it tells of its own end.

        Returns:
            None of them where the run is not there, or has none.

        Raises:
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.steps", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            head = await self._read_head(workflow_id, run_id)
            return head.shown_steps if head else ()

    async def get_record(self, workflow_id: str, run_id: str, *, payloads: bool = True) -> RunRecord | None:
        """Return all that is kept of one run, as it was at one moment; None where it is not there.

        Reads one document. Without *payloads*, `trigger_data` and `result` are not read, and come empty.

        Raises:
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.record", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            for key in _keys(workflow_id, run_id):
                if found := await self._source.read_record(*key, payloads=payloads):
                    stored, head = found
                    return RunRecord(
                        run=self._observed(stored),
                        version=stored.version,
                        history=annotated(head.history),
                        steps=head.shown_steps,
                    )
            return None

    async def get_neighbours(
        self, run: WorkflowRun, workflow_id: str | None = None, **filters: Unpack[RunConditions]
    ) -> tuple[WorkflowRun | None, WorkflowRun | None]:
        """Return the runs just before and just after *run* in a listing: the newer one, and the older one.

        None is returned for an end of the listing. *run* need not be in it. The two come without payloads.

        Args:
            run: The run between them.
            workflow_id: The workflow whose runs are listed, or None for all.
            filters: What the runs of the listing have to be like; see `RunConditions`.
        """
        place = position_of(run, of_all=workflow_id is None)
        scope = _ALL_RUNS if workflow_id is None else await self._workflow_named(workflow_id)

        async def beyond(order: Order) -> WorkflowRun | None:
            selection = Selection.of(**filters, order=order)
            cursor: str | None = encode_cursor(place, scope=scope, selection=selection.text)
            found, _ = await self.list_runs(
                workflow_id, limit=1, start_after=cursor, payloads=False, order=order, **filters
            )
            return found[0] if found else None

        newer, older = await asyncio.gather(beyond(Order.OLDEST), beyond(Order.NEWEST))
        return newer, older

    async def _read_head(self, workflow_id: str, run_id: str) -> RunHead | None:
        for key in _keys(workflow_id, run_id):
            if head := await self._source.read_head(*key):
                return head
        return None

    async def wait_for(
        self,
        workflow_id: str,
        run_id: str,
        version_or_event: Version | RunEvent,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - it says how long the caller's own event may take
    ) -> WorkflowRun:
        """Read your write: wait until queries see an event or a later state of its run, and return the run.

        Reads one document each time it looks, less and less often.

        Args:
            workflow_id: The run's workflow.
            run_id: The run.
            version_or_event: The event that was emitted, or its version.
            timeout: Seconds to wait, at most; 0 looks once.

        Raises:
            WaitTimeoutError: It was not seen in time; it may come later.
            InvalidArgumentError: The event is another run's.
            UnreadableRunError: The run is stored in a form that cannot be read.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        version = awaited_version((bounded_id(workflow_id), bounded_id(run_id)), version_or_event)

        async def look() -> StoredRun | None:
            stored = await self._read_named(workflow_id, run_id)
            return stored if stored is not None and stored.version >= version else None

        with span("run_log.wait_for", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            found = await look_until(look, timeout)
            if found is None:
                raise WaitTimeoutError(
                    f"run {run_id!r} of workflow {workflow_id!r} was not seen at {version} or later within "
                    f"{timeout} s; is the projector running, and does it keep up?"
                )
            return self._observed(found)

    async def list_workflows(
        self, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowStats], str | None]:
        """Return one page of the workflows that have runs, with their stats, and the next cursor.

        They come by id as it is stored, each once, whatever is stored meanwhile. Reads their shards of stats.
        """
        limit = whole("limit", limit)
        after = None
        if start_after is not None:
            (after,) = decode_parts(start_after, [str], scope=_WORKFLOWS)
            check_names(start_after, after)
        with span("run_log.list_workflows", attributes={"limit": limit}):
            found = await self._source.read_workflows(after, limit + 1)
            page = found[:limit]
            if len(found) == len(page):
                return page, None
            last = document_id(page[-1].workflow_id)
            check_moves_on(after, last)
            return page, encode_parts([last], scope=_WORKFLOWS)

    @override
    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        workflow_id = await self._workflow_named(workflow_id)
        with span("run_log.stats", attributes={"workflow_id": workflow_id}):
            stats = await self._source.read_stats(workflow_id)
            return {"total": stats.total, "successful": stats.successful}

    async def get_summary(
        self, workflow_id: str, window: timedelta | None = None, *, now: datetime | None = None
    ) -> WorkflowSummary:
        """Return a workflow at a glance: counts, durations, its last runs, and all that by hour or day.

        A run is in the hour and on the day in which it started, in UTC. Reads four documents, and shards of
        stats, however many runs there are.

        Args:
            workflow_id: The workflow; an unknown one has no runs.
            window: How far to look back, in whole hours up to `HOURS_KEPT` of them, in whole days up to
                `MAX_WINDOW`, the current one among them. None counts all runs there ever were, and shows
                the days of `MAX_WINDOW`.
            now: The moment to look back from, aware; None is the machine's time.
        """
        workflow_id = await self._workflow_named(workflow_id)
        looked_at = SummaryWindow.of(window, moment_or_now(now))
        with span("run_log.summary", attributes={"workflow_id": workflow_id}):
            (stats, counters), *last = await asyncio.gather(
                self._source.read_summary(workflow_id),
                self._source.read_latest(workflow_id, Selection()),
                self._source.read_latest(workflow_id, Selection.of(status=RunStatus.SUCCESS)),
                self._source.read_latest(workflow_id, Selection.of(status=RunStatus.FAILED)),
            )
            newest = [self._observed(one) if one else None for one in last]
            return summary_of(stats, counters, looked_at, newest)

    async def get_as_of(self, workflow_id: str) -> datetime | None:
        """Return how far the projection of a workflow has come, at least; None for an unknown workflow.

        That is when the latest event happened that came with a change of its stats, on its emitter's clock.
        Reads one document, and shards of stats.
        """
        workflow_id = await self._workflow_named(workflow_id)
        with span("run_log.as_of", attributes={"workflow_id": workflow_id}):
            return (await self._source.read_stats(workflow_id)).as_of

    async def list_failures(
        self, workflow_id: str | None = None, since: datetime | None = None
    ) -> list[FailureGroup]:
        """Return the newest failures in groups of the same error: the largest first, then the newest.

        A group has one workflow, one `error_type`, and one first line of the error, in which numbers and ids
        are masked. Reads the newest `MAX_FAILURES` failures at most, without their payloads.

        Args:
            workflow_id: The workflow; None for all.
            since: The earliest `started_at`, included, aware; None for any.
        """
        failures, _ = await self.list_runs(
            workflow_id, limit=MAX_FAILURES, payloads=False, status=RunStatus.FAILED, since=since
        )
        return grouped(failures)

    def watch(self, workflow_id: str | None = None, *, since_cursor: Any | None = None) -> RunWatch:
        """Return a watch of the runs of one workflow, or of all: their changes, as they come.

        Each update tells that a run's stored record changed, its state or only its history, and carries the
        state as it was when that was read. A run that changes several times before it is read may come once,
        as it is then; each change of a run comes at most once, and its newest always does, whatever happens
        to the connection and however slowly updates are taken. What is kept for a watch is bounded.

        Every update has a cursor. Given back it goes on right after that update, in any process, without a
        gap or a repeat. A run that was deleted, or cannot be read, does not come.

        Args:
            workflow_id: The workflow to watch; None for all.
            since_cursor: The cursor of the last update that was seen; None to begin with what changes once
                the watch is entered.

        Raises:
            InvalidCursorError: *since_cursor* is malformed, of a watch of other runs, or of a store in memory
                that is gone.
        """
        workflow_id = None if workflow_id is None else bounded_id(identifier("workflow_id", workflow_id))
        source = self._source.updates(workflow_id, since_cursor, encode_json([workflow_id]))
        return RunWatch(source, self._watches, workflow_id)

    async def get_watch_cursor(self, workflow_id: str | None = None) -> str:
        """Return the cursor of a watch that begins now: `watch` with it misses nothing that changes later.

        Take it before reading what is then kept up to date by the watch, whenever that is opened.

        Args:
            workflow_id: The workflow that will be watched; None for all.
        """
        workflow_id = None if workflow_id is None else bounded_id(identifier("workflow_id", workflow_id))
        return await self._source.read_place(encode_json([workflow_id]))

    async def _read_named(self, workflow_id: str, run_id: str) -> StoredRun | None:
        for key in _keys(workflow_id, run_id):
            if (stored := await self._source.read_run(*key)) is not None:
                return stored
        return None


def _keys(workflow_id: str, run_id: str) -> Iterator[RunKey]:
    """Return the keys under which a run may be stored; see `names_of`."""
    return product(names_of(workflow_id), names_of(run_id))
