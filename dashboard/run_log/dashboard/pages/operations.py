"""The page of those who run this: how far workflows are, what has gone silent, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import InvalidArgumentError, InvalidCursorError, words
from run_log.dashboard.context import Live, Log, Now

from .filters import Filter, encoded
from .live import live_path
from .rendering import page, root_of
from .rows import Row

OLDER_THAN: Final = "1h"
"""How long a run has to be silent to be shown, unless told otherwise."""

_WORKFLOWS: Final = 100
_STALE: Final = 50

router: Final = APIRouter()


@router.get("/operations")
async def show_operations(request: Request, log: Log, now: Now, changes: Live) -> HTMLResponse:
    """Show how far workflows are, and the runs that have been silent for long."""
    root, fault = root_of(request), ""
    older_than = request.query_params.get("older_than", "").strip() or OLDER_THAN
    token = request.query_params.get("page_token") or None
    live = live_path(root, "/live/page", "", await changes.cursor())
    try:
        silence = words.duration(older_than)
    except InvalidArgumentError as error:
        silence, fault = words.duration(OLDER_THAN), str(error)
    try:
        (workflows, following), (stale, more_stale) = await asyncio.gather(
            log.list_workflows(limit=_WORKFLOWS, start_after=token),
            log.list_stale(silence, limit=_STALE, now=now),
        )
    except InvalidCursorError:
        workflows, following, stale, more_stale = [], None, [], None
        fault = "This page of the workflows is not there. Begin with the first."
    every = Filter.of((), now)
    return page(
        request,
        "operations.html",
        status=400 if fault else 200,
        live=live,
        fresh=0 if fault else 10,
        workflows=workflows,
        stale=[(each, Row(each.run, every, root=root, now=now)) for each in stale],
        has_more_stale=more_stale is not None,
        older_than=older_than,
        fault=fault,
        now=now,
        is_later=token is not None,
        next=following and f"{root}/operations?{encoded([('page_token', following)])}",
        place=log.place,
    )
