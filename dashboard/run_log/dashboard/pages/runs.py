"""The list of runs: filtered by its address, counted by what stores keep anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from run_log.core import InvalidCursorError, WorkflowRun
from run_log.dashboard.context import Counting, Live, Log, Now

from .filters import Filter, encoded, with_query
from .live import COUNTS, live_path
from .rendering import page, root_of
from .rows import rows
from .tabs import tabs_of

PAGE_SIZE: Final = 50

_MORE: Final = frozenset({"trigger", "error_type", "since", "until", "parent"})

router: Final = APIRouter()


@router.get("/")
async def show_runs(request: Request, log: Log, now: Now, changes: Live, counts: Counting) -> Response:
    """Show the runs of a workflow, or of all, the newest first."""
    shown = Filter.of(request.query_params.multi_items(), now)
    root = root_of(request)
    token = request.query_params.get("page_token") or None
    if any(not text.strip() for text in request.query_params.values()):
        # A form sends its empty fields too. An address that people pass on has only what narrows the list.
        kept = [*shown.given, *([("page_token", token)] if token else [])]
        return RedirectResponse(with_query(f"{root}/", encoded(kept)), status_code=303)
    # Before anything is read: what changes from here on comes in the stream.
    place = await changes.cursor()
    counted = await counts.read()
    # The stream tells the counts of now soon, unless these are.
    asking = "&".join(filter(None, (shown.query, "" if counted.are_new else f"{COUNTS}=old")))
    live = live_path(root, "/live", asking, place)
    found: Sequence[WorkflowRun] = ()
    cursor = fault = None
    if not shown.faults:
        try:
            found, cursor = await log.list_runs(
                shown.workflow_id, limit=PAGE_SIZE, start_after=token, payloads=False, **shown.conditions
            )
        except InvalidCursorError:
            fault = "This page of the list is not there: its filters were changed. Begin with the newest."
    return page(
        request,
        "runs.html",
        status=400 if shown.faults or fault else 200,
        shown=shown,
        live=live,
        page_size=PAGE_SIZE,
        fault=fault,
        rows=rows(found, shown, root=root, now=now),
        tabs=tabs_of(shown, counted.workflows if counted.are_all else None, root),
        workflows=[stats.workflow_id for stats in counted.workflows],
        has_more=any(name in _MORE for name, _ in shown.given),
        is_later=token is not None,
        first=with_query(f"{root}/", shown.query),
        next=cursor and f"{root}/?{'&'.join(filter(None, (shown.pinned, f'page_token={cursor}')))}",
    )
