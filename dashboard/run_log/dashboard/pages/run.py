"""The page of a run: what it did when, how it ended, and the answer that it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.core import RunNotFoundError, RunStatus
from run_log.dashboard.access import Caller
from run_log.dashboard.context import Asking, Live, Log, Now
from run_log.dashboard.paths import id_of, name_of, run_path
from run_log.stores import RunLog, RunRecord

from .charts import timeline
from .filters import Filter, encoded, with_query
from .forms import Answering
from .live import live_path
from .rendering import page, root_of

router: Final = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is said at the top of a page about what was just done."""

    title: str
    text: str
    is_bad: bool = True


@router.get("/workflows/{workflow}/runs/{run}")
async def show_run(
    request: Request, log: Log, now: Now, asking: Asking, changes: Live, workflow: str, run: str
) -> HTMLResponse:
    """Show one run, its payloads only where they are asked for."""
    payloads = "payloads" in request.query_params
    live = live_path(
        root_of(request),
        "/live/page",
        encoded([("workflow", workflow), ("run", run)]),
        await changes.cursor(),
    )
    record = await log.get_record(id_of(workflow), id_of(run), payloads=payloads)
    if record is None:
        raise RunNotFoundError(id_of(workflow), id_of(run))
    return await run_page(request, log, record, Looking(now=now, asking=asking, payloads=payloads, live=live))


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """Who looks at a run, when, and at what of it."""

    now: datetime
    asking: Caller
    payloads: bool = False
    notice: Notice | None = None
    answering: Answering | None = None
    """The form as it was filled in; None for one that nobody has filled in yet."""
    status: int = 200
    live: str = ""
    """The address of the stream that tells of changes; empty for a page that does not change by itself."""


async def run_page(request: Request, log: RunLog, record: RunRecord, looking: Looking) -> HTMLResponse:
    """Return the page of a run, with links to those beside it in the list that it was opened from."""
    root, now = root_of(request), looking.now
    shown = Filter.of(request.query_params.multi_items(), now)
    run = record.run
    newer, older = await log.get_neighbours(
        run, shown.workflow_id, **({} if shown.faults else shown.conditions)
    )
    answering = looking.answering
    if answering is None and run.status is RunStatus.PAUSED and looking.asking.may_answer:
        answering = Answering.asked(run, record.version.text, looking.asking.name)
    path = run_path(root, run)
    return page(
        request,
        "run.html",
        status=looking.status,
        record=record,
        run=run,
        now=now,
        live=looking.live,
        # One that has ended changes no more, and an open stream costs something.
        fresh=1 if looking.live and not run.status.is_terminal else 0,
        shown=shown,
        path=path,
        notice=looking.notice,
        answering=answering,
        may_answer=looking.asking.may_answer,
        payloads=looking.payloads,
        with_payloads=f"{path}?{'&'.join(filter(None, (shown.query, 'payloads=1')))}#payloads",
        newer=newer and with_query(run_path(root, newer), shown.query),
        older=older and with_query(run_path(root, older), shown.query),
        listing=with_query(f"{root}/", shown.query),
        children=f"{root}/?{encoded([('parent', name_of(run))])}",
        labels=[(f"{key}={value}", _labelled(root, key, value)) for key, value in sorted(run.labels.items())],
        chart=timeline(record, now),
        trace=_trace_link(run.trace_id, request.app.state.context.project),
    )


def _trace_link(trace_id: str | None, project: str | None) -> str | None:
    if trace_id is None or project is None:
        return None
    return f"https://console.cloud.google.com/traces/explorer;traceId={trace_id}?project={quote(project)}"


def _labelled(root: str, key: str, value: str) -> str:
    return f"{root}/?{encoded([('label', f'{key}={value}')])}"
