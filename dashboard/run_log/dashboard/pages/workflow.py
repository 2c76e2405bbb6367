"""The page of a workflow: how its runs ended, how long they took, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import NotFoundError, RunStatus, WorkflowRun
from run_log.dashboard.context import Live, Log, Now
from run_log.dashboard.paths import id_of, segment_of
from run_log.stores import FailureGroup

from .charts import days, heights
from .filters import Filter, encoded
from .live import live_path
from .rendering import page, root_of
from .rows import Row, rows
from .texts import visible

STRIP: Final = 50
"""How many runs the strip shows."""

router: Final = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slat:
    """A run in the strip of the last ones."""

    row: Row
    height: float
    """In per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """A group of failures, with where to look."""

    group: FailureGroup
    newest: Row
    path: str | None
    """The list of runs that failed so; None where they have no type of error in common."""


@router.get("/workflows/{workflow}")
async def show_workflow(request: Request, log: Log, now: Now, changes: Live, workflow: str) -> HTMLResponse:
    """Show a workflow at a glance."""
    workflow_id, root = id_of(workflow), root_of(request)
    live = live_path(root, "/live/page", encoded([("workflow", workflow)]), await changes.cursor())
    summary, (runs, _), groups = await asyncio.gather(
        log.get_summary(workflow_id, now=now),
        log.list_runs(workflow_id, limit=STRIP, payloads=False),
        log.list_failures(workflow_id),
    )
    if not summary.total and not runs:
        raise NotFoundError(f"there is no workflow {workflow_id!r}: no run of it is recorded yet")
    shown = Filter.of([("workflow", workflow_id)], now)
    return page(
        request,
        "workflow.html",
        summary=summary,
        live=live,
        fresh=5,
        now=now,
        # The oldest is on the left, as in the chart of days.
        strip=_strip(runs[::-1], shown, root, now),
        days=days(summary.buckets),
        busiest=max(bucket.total for bucket in summary.buckets),
        failures=[_failures(group, shown, root, now) for group in groups],
        listing=f"{root}/?{shown.query}",
        tabs=[
            (status, summary.by_status[status], f"{root}/?{shown.having('status', status.value)}")
            for status in RunStatus
            if summary.by_status.get(status)
        ],
        title=visible(workflow_id),
        path=f"{root}/workflows/{segment_of(workflow_id)}",
    )


def _strip(runs: Sequence[WorkflowRun], shown: Filter, root: str, now: datetime) -> list[Slat]:
    made = rows(runs, shown, root=root, now=now)
    return [Slat(row=row, height=height) for row, height in zip(made, heights(runs), strict=True)]


def _failures(group: FailureGroup, shown: Filter, root: str, now: datetime) -> Failures:
    kind = group.error_type
    query = encoded([*shown.given, ("error_type", kind)]) if kind else ""
    return Failures(
        group=group,
        newest=Row(group.newest, shown, root=root, now=now),
        path=f"{root}/?{query}" if query else None,
    )
