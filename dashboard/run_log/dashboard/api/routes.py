"""The paths of the API that read."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from run_log.core import RunNotFoundError, Version
from run_log.core.words import duration, moment
from run_log.dashboard.bodies import JSONAnswer, json_bytes
from run_log.dashboard.context import Log, Now
from run_log.stores import RunLog, RunRecord, page_json

from . import shapes
from .document import returns, tagged
from .filters import conditions_of
from .parameters import DURATION, AnyWorkflow, OnlyWorkflow, Paging, RunId, WorkflowId
from .tags import is_known, tag_of

router: Final = APIRouter(default_response_class=JSONAnswer)

_FILTER: Final = (
    "Conditions that all hold, joined with `AND`, as in https://google.aip.dev/160: `status = failed`, "
    '`trigger_type = scheduled`, `error_type = ValueError`, `labels.customer = "acme"`, '
    '`parent = "workflow/run"` with each id as it stands in a path, `started_at >= 2026-03-04T00:00:00Z`, '
    "`started_at < 2026-03-05T00:00:00Z`. A text stands in quotes, where it is not one word."
)

IfNoneMatch = Annotated[
    str | None,
    Header(description="Entity tags of what the client has; 304 is for no change."),
]


@router.get("/workflows", tags=["workflows"], responses=returns(shapes.Workflows))
async def list_workflows(log: Log, page: Paging) -> Response:
    """List the workflows that have runs, with their counts."""
    found, cursor = await log.list_workflows(**page._asdict())
    return JSONAnswer(page_json("workflows", found, cursor))


@router.get(
    "/workflows/{workflow}/summary",
    tags=["workflows"],
    responses=returns(shapes.Summary),
)
async def get_summary(
    log: Log,
    now: Now,
    workflow: WorkflowId,
    window: Annotated[
        str | None,
        Query(description="How far to look back: `12h`, `7d`; absent for all.", json_schema_extra=DURATION),
    ] = None,
) -> Response:
    """Show a workflow at a glance: counts, durations, last runs, and the same by hour or day."""
    back = None if window is None else duration(window)
    return JSONAnswer((await log.get_summary(workflow, back, now=now)).to_json())


@router.get(
    "/workflows/{workflow}/failures",
    tags=["workflows"],
    responses=returns(shapes.Failures),
)
async def list_failures(
    log: Log,
    now: Now,
    workflow: AnyWorkflow,
    since: Annotated[
        str | None, Query(description="Only of runs started since then: `24h` ago, or a time by RFC 3339.")
    ] = None,
) -> Response:
    """Group the newest 500 failures by workflow, error type, and the first line of the error."""
    begun = None if since is None else moment(since, now)
    return JSONAnswer(page_json("failures", await log.list_failures(workflow, begun)))


@router.get("/workflows/{workflow}/runs", tags=["runs"], responses=returns(shapes.Runs))
async def list_runs(
    log: Log,
    workflow: AnyWorkflow,
    page: Paging,
    filter: Annotated[str, Query(description=_FILTER)] = "",  # noqa: A002 - what AIP-160 calls it
    *,
    payloads: Annotated[bool, Query(description="Whether runs have `trigger_data` and `result`.")] = False,
) -> Response:
    """List the runs of a workflow, or of all, the newest first.

    A page may be shorter than asked for, even empty, with more to come: the end has no `next_page_token`.
    """
    found, cursor = await log.list_runs(
        workflow, **page._asdict(), payloads=payloads, **conditions_of(filter)
    )
    return JSONAnswer(page_json("runs", found, cursor, payloads=payloads))


@router.get("/workflows/{workflow}/runs/{run}", tags=["runs"], responses=tagged(shapes.Run, 404))
async def get_run(log: Log, workflow: WorkflowId, run: RunId, if_none_match: IfNoneMatch = None) -> Response:
    """Show a run, with its payloads. Its entity tag is for `If-Match` of an answer, too."""
    record = await _record(log, workflow, run, payloads=True)
    return _tagged(record.run.to_json(), if_none_match, record.version)


@router.get(
    "/workflows/{workflow}/runs/{run}/history",
    tags=["runs"],
    responses=tagged(shapes.Transitions, 404),
)
async def get_history(
    log: Log, workflow: WorkflowId, run: RunId, if_none_match: IfNoneMatch = None
) -> Response:
    """Show each change of a run: when, how long, who answered what."""
    record = await _record(log, workflow, run)
    return _tagged(page_json("transitions", record.history), if_none_match)


@router.get(
    "/workflows/{workflow}/runs/{run}/steps",
    tags=["runs"],
    responses=tagged(shapes.Steps, 404),
)
async def get_steps(
    log: Log, workflow: WorkflowId, run: RunId, if_none_match: IfNoneMatch = None
) -> Response:
    """Show the steps of a run, in the order in which they started."""
    record = await _record(log, workflow, run)
    return _tagged(page_json("steps", record.steps), if_none_match)


@router.get("/pending", tags=["runs"], responses=returns(shapes.PendingRuns))
async def list_pending(
    log: Log,
    now: Now,
    page: Paging,
    assignee: Annotated[
        str | None, Query(min_length=1, description="Only runs that wait for this person.")
    ] = None,
    *,
    overdue: Annotated[
        bool | None, Query(description="Only runs past their deadline, or only the others.")
    ] = None,
    workflow_id: OnlyWorkflow = None,
) -> Response:
    """List the runs that wait for an answer: the newest first, or by deadline where `overdue` is given."""
    found, cursor = await log.list_pending(
        assignee=assignee, overdue=overdue, workflow_id=workflow_id, now=now, **page._asdict()
    )
    return JSONAnswer(page_json("pending_runs", found, cursor))


@router.get("/stale", tags=["runs"], responses=returns(shapes.StaleRuns))
async def list_stale(
    log: Log,
    now: Now,
    page: Paging,
    older_than: Annotated[
        str, Query(description="Least age of the newest event: `90m`, `24h`.", json_schema_extra=DURATION)
    ] = "1h",
    workflow_id: OnlyWorkflow = None,
) -> Response:
    """List the runs that are under way and have been silent for long, the longest silent first."""
    found, cursor = await log.list_stale(
        duration(older_than), workflow_id=workflow_id, now=now, **page._asdict()
    )
    return JSONAnswer(page_json("stale_runs", found, cursor))


async def _record(log: RunLog, workflow: str, run: str, *, payloads: bool = False) -> RunRecord:
    record = await log.get_record(workflow, run, payloads=payloads)
    if record is None:
        raise RunNotFoundError(workflow, run)
    return record


def _tagged(value: dict[str, Any], if_none_match: str | None, version: Version | None = None) -> Response:
    """Return *value* with its entity tag, or 304 if the client has it."""
    body = json_bytes(value)
    tag = tag_of(body, version)
    # To be kept, and asked about each time.
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if is_known(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
