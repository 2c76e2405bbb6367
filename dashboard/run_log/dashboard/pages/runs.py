"""The list of runs: filtered by its address, counted by what stores keep anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import InvalidCursorError, RunStatus, WorkflowRun
from run_log.core.protocol import MAX_LIMIT
from run_log.dashboard.context import Live, Log, Now
from run_log.stores import WorkflowStats

from .filters import Filter
from .live import live_path
from .rendering import page, root_of
from .rows import rows

PAGE_SIZE: Final = 50

_MORE: Final = frozenset({"trigger", "error_type", "since", "until", "parent"})
# What is looked for most comes first.
_TABS: Final = (
    RunStatus.RUNNING,
    RunStatus.PAUSED,
    RunStatus.FAILED,
    RunStatus.SUCCESS,
    RunStatus.PENDING,
    RunStatus.SKIPPED,
    RunStatus.CANCELLED,
)

router: Final = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A link to the list of runs in one status, or in any."""

    status: str
    """Empty for any."""
    name: str
    path: str
    count: int | None
    """How many runs there ever were; None where that is not known."""
    is_here: bool


@router.get("/")
async def show_runs(request: Request, log: Log, now: Now, changes: Live) -> HTMLResponse:
    """Show the runs of a workflow, or of all, the newest first."""
    shown = Filter.of(request.query_params.multi_items(), now)
    token = request.query_params.get("page_token") or None
    root = root_of(request)
    # Before anything is read: what changes from here on comes in the stream.
    live = live_path(root, "/live", shown.query, await changes.cursor())
    workflows, more_workflows = await log.list_workflows(limit=MAX_LIMIT)
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
        tabs=_tabs(shown, None if more_workflows else workflows, root),
        workflows=[stats.workflow_id for stats in workflows],
        has_more=any(name in _MORE for name, _ in shown.given),
        is_later=token is not None,
        first=_path(root, shown.query),
        next=cursor and _path(root, "&".join(filter(None, (shown.pinned, f"page_token={cursor}")))),
    )


def _path(root: str, query: str) -> str:
    return f"{root}/?{query}" if query else f"{root}/"


def _tabs(shown: Filter, workflows: Sequence[WorkflowStats] | None, root: str) -> list[Tab]:
    """Return a tab for each status; *workflows* is None where not all of them are known."""
    chosen = shown.all("status")

    def tab(status: str, name: str, count: int | None) -> Tab:
        return Tab(
            status=status,
            name=name,
            path=_path(root, shown.having("status", status or None)),
            count=count,
            is_here=chosen == ([status] if status else []),
        )

    counts = _counts(shown.workflow_id, workflows)
    every = None if counts is None else sum(counts.values())
    return [
        tab("", "All", every),
        *(tab(status.value, status.value, None if counts is None else counts[status]) for status in _TABS),
    ]


def _counts(workflow_id: str | None, workflows: Sequence[WorkflowStats] | None) -> Counter[Any] | None:
    if workflows is None:
        return None
    own = [stats for stats in workflows if workflow_id in (None, stats.workflow_id)]
    return sum((Counter(stats.by_status) for stats in own), Counter[RunStatus]())
