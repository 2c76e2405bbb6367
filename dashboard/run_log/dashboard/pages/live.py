"""The streams that keep pages up to date: rendered rows, each to replace the one with its id."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from fastapi import APIRouter, Request

from run_log.core import InvalidArgumentError
from run_log.dashboard.bodies import json_bytes
from run_log.dashboard.context import Context, Live, Now
from run_log.dashboard.counts import EVERY_SECONDS, Counts
from run_log.dashboard.paths import id_of
from run_log.dashboard.streams import EventStream, event_bytes
from run_log.stores import RunUpdate

from .filters import Filter, encoded
from .rendering import root_of
from .rows import Row
from .tabs import tabs_html

router: Final = APIRouter()


def live_path(root: str, path: str, query: str, cursor: str) -> str:
    """Return the address of the stream at *path* that goes on after *cursor*, with the filters of *query*."""
    return f"{root}{path}?{query}{'&' if query else ''}{encoded([('cursor', cursor)])}"


COUNTS: Final = "counts"
"""In the address of a stream: the page was made with counts that were read before."""


@router.get("/live")
async def stream_runs(request: Request, changes: Live, now: Now) -> EventStream:
    """Tell which rows of a list of runs are new, changed or gone; its address has the filters of the list."""
    shown = Filter.of(request.query_params.multi_items(), now)
    if shown.faults:
        raise InvalidArgumentError("; ".join(f"{name}: {fault}" for name, fault in shown.faults.items()))
    context: Context = request.app.state.context
    updates = await changes.since(cursor_of(request))
    form = _RunRow(root_of(request), shown.query, shown.pinned, shown, context.now)
    tabs = LiveTabs(context.counts, shown, root_of(request), are_old=COUNTS in request.query_params)
    return EventStream(updates, lambda seen: seen.as_form(form), beside=tabs.beside, times=changes.times)


@router.get("/live/page")
async def stream_page(
    request: Request,
    changes: Live,
    workflow: str | None = None,
    run: str | None = None,
    *,
    paused: bool = False,
) -> EventStream:
    """Tell that a page is another by now: that of a run, of a workflow, or of all runs that wait.

    The browser asks for the page itself: what is on it is more than one update tells.
    """
    form = _Changed(
        None if workflow is None else id_of(workflow), None if run is None else id_of(run), paused
    )
    updates = await changes.since(cursor_of(request))
    return EventStream(updates, lambda seen: seen.as_form(form), times=changes.times)


def cursor_of(request: Request) -> str | None:
    """Return where a stream goes on: what the browser saw last, or else what its page was made with."""
    return request.headers.get("last-event-id") or request.query_params.get("cursor")


def row_bytes(update: RunUpdate, name: str, html: str) -> bytes:
    """Return the event that has *html* in place of the element with the id *name*."""
    return event_bytes({"id": name, "html": html}, cursor=update.cursor, event="row")


def gone_bytes(update: RunUpdate, name: str) -> bytes:
    """Return the event that takes the element with the id *name* away."""
    return event_bytes({"id": name}, cursor=update.cursor, event="gone")


class LiveTabs:
    """Tells the counts above a list soon after its rows have changed, but not with each change."""

    def __init__(
        self,
        counts: Counts,
        shown: Filter,
        root: str,
        *,
        are_old: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        self._shown = shown
        self._root = root
        self._clock = clock
        # The page may have counts of before it was made.
        self._changed_at = clock() if are_old else None
        self._told_at = -math.inf

    async def beside(self, events: bytes) -> bytes:
        """Return the event that tells them, if one of the *events* so far may have changed them."""
        now = self._clock()
        if events:
            self._changed_at = now
        if self._changed_at is None or now - self._told_at < EVERY_SECONDS:
            return b""
        self._told_at = now
        counted = await self._counts.read()
        # Counts of before the change are told too, and again once there are newer ones.
        if self._counts.read_at >= self._changed_at:
            self._changed_at = None
        if not counted.are_all:
            return b""
        told = {"id": "tabs", "html": tabs_html(self._shown, counted.workflows, self._root)}
        return b"event: row\ndata: %b\n\n" % json_bytes(told)


@dataclass(frozen=True, slots=True)
class _Changed:
    """Makes the event that a page has changed, of updates that it shows something of."""

    workflow_id: str | None
    run_id: str | None
    paused: bool

    def __call__(self, update: RunUpdate) -> bytes:
        run = update.run
        is_shown = (
            self.workflow_id in (None, run.workflow_id)
            and self.run_id in (None, run.id)
            # One that was answered has what it waited for.
            and (run.pause is not None or not self.paused)
        )
        return event_bytes({}, cursor=update.cursor, event="changed") if is_shown else b""


@dataclass(frozen=True, slots=True)
class _RunRow:
    """Makes the event of an update for a list of runs. Equal ones make the same, so it is made once."""

    root: str
    query: str
    pinned: str
    shown: Filter = field(compare=False)
    now: Callable[[], datetime] = field(compare=False)

    def __call__(self, update: RunUpdate) -> bytes:
        made = Row(update.run, self.shown, root=self.root, now=self.now())
        if self.shown.wants(update.run):
            return row_bytes(update, made.id, made.html)
        return gone_bytes(update, made.id)
