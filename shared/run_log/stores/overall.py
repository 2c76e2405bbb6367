"""What asks for somebody, over all workflows: runs that wait, runs that are silent, and notices."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final

from typing_extensions import override

from run_log.core import RunLogProtocol, WorkflowRun
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock

from .arguments import assignee_or_none, heard_before, identifier, moment_or_now, overdue_or_none, whole
from .inbox import InboxSelection, PendingRun, pending
from .listings import check_moves_on, check_names, decode_cursor, encode_cursor
from .notices import MAX_DEAD_LETTERS, DeadLetterNotice, NoticeKind, Notices, VerifyNotice, readable_notices
from .ports import StoredRuns
from .stale import StaleRun, StaleSelection
from .stored.reading import StoredRun, names_of, position_by
from .telemetry import span
from .watch import Watches


class OverallReader(RunLogProtocol, abc.ABC):
    """The queries of a run log that look for what somebody has to act on, in any workflow.

    Args:
        source: What is read.
        clock: Follows what is read, and stamps what is saved.
    """

    def __init__(self, source: StoredRuns, clock: HybridLogicalClock = PROCESS_CLOCK) -> None:
        self._source = source
        self.version_clock: Final = clock
        """Stamps what is saved, and follows what is read."""
        self._watches = Watches()

    @override
    async def get_pending_runs(self) -> list[WorkflowRun]:
        with span("run_log.get_pending_runs"):
            return [self._observed(stored) for stored in await self._source.read_pending()]

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
            limit: Most runs to return.
            start_after: The cursor that the page before returned; None for the first page.
            now: What age and deadline are compared with, aware; None is the machine's time.
        """
        selection = InboxSelection(
            assignee=assignee_or_none(assignee),
            overdue=overdue_or_none(overdue),
            workflow_id=None if workflow_id is None else await self._workflow_named(workflow_id),
            now=moment_or_now(now),
        )
        reading = span("run_log.list_pending", attributes={"limit": whole("limit", limit)})
        runs, cursor = await self._list_overall(selection, start_after, limit, reading)
        for one in runs:
            self._observed(one)
        return [pending(one, selection.now) for one in runs], cursor

    async def list_stale(
        self,
        older_than: timedelta,
        *,
        workflow_id: str | None = None,
        limit: int = 50,
        start_after: Any | None = None,
        now: datetime | None = None,
    ) -> tuple[list[StaleRun], str | None]:
        """Return one page of the runs that began, have not ended, and have been silent for long.

        A paused run is not among them, since it waits. They come by when they were last heard of, the longest
        silent first.

        Args:
            older_than: How long ago their newest event has to be, at least.
            workflow_id: Only those of this workflow; None is all.
            limit: Most runs to return.
            start_after: The cursor that the page before returned; None for the first page.
            now: What silence is counted to, aware; None is the machine's time.
        """
        moment = moment_or_now(now)
        selection = StaleSelection(
            before=heard_before(older_than, moment),
            workflow_id=None if workflow_id is None else await self._workflow_named(workflow_id),
        )
        reading = span("run_log.list_stale", attributes={"limit": whole("limit", limit)})
        runs, cursor = await self._list_overall(selection, start_after, limit, reading)
        found = [
            StaleRun(run=self._observed(one), heard_at=one.occurred_at, silence=moment - one.occurred_at)
            for one in runs
        ]
        return found, cursor

    async def get_notices(self) -> Notices:
        """Return what projectors and `run-log verify` have told those who run this.

        Reads as many documents as there are notices, `MAX_DEAD_LETTERS` and one at most.
        """
        with span("run_log.notices"):
            letters, verifications = await asyncio.gather(
                self._source.read_notices(NoticeKind.DEAD_LETTER, MAX_DEAD_LETTERS),
                self._source.read_notices(NoticeKind.VERIFICATION, 1),
            )
        verified = readable_notices(VerifyNotice, verifications)
        return Notices(
            dead_letters=readable_notices(DeadLetterNotice, letters),
            verified=verified[0] if verified else None,
            is_projected=self._source.is_projected,
        )

    async def _list_overall(
        self,
        selection: InboxSelection | StaleSelection,
        start_after: object,
        limit: int,
        reading: AbstractContextManager[object],
    ) -> tuple[Sequence[StoredRun], str | None]:
        """Return a page of the runs of several workflows, read within *reading*, and the next cursor."""
        listing = {"scope": selection.scope, "selection": selection.text}
        after = None
        if start_after is not None:
            after = decode_cursor(start_after, **listing, of_several_workflows=True)
            check_names(start_after, after.workflow, after.run)
        with reading:
            page = await self._source.read_overall_page(selection, after, limit)
            if not page.more:
                return page.runs, None
            # By what the store sorts by, whatever the run itself says: a position made of that might lead
            # back.
            last = position_by(page.runs[-1], selection.sorted_by)
            check_moves_on(after, last, newest_first=selection.newest_first)
            return page.runs, encode_cursor(last, **listing)

    async def _workflow_named(self, workflow_id: object) -> str:
        """Return the id under which a workflow is stored; see `names_of`."""
        # An id of usual length has one name, and costs no read.
        *earlier, name = names_of(identifier("workflow_id", workflow_id))
        for one in earlier:
            if (await self._source.read_stats(one)).total:
                return one
        return name

    def _observed(self, stored: StoredRun) -> WorkflowRun:
        self.version_clock.observe(stored.version.hlc, stored.run.key)
        return stored.run
