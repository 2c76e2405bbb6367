"""The path that tells of changes as they come."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from run_log.core.ids import bounded_id
from run_log.dashboard.context import Live
from run_log.dashboard.streams import EventStream, Seen, json_event

from .document import problems
from .parameters import OnlyWorkflow

router: Final = APIRouter()


@router.get(
    "/runs:watch",
    tags=["runs"],
    status_code=200,
    response_class=EventStream,
    responses={200: {"description": "Server-sent events, each with a `Change` as its data."}, **problems()},
)
async def watch_runs(
    changes: Live,
    workflow_id: OnlyWorkflow = None,
    cursor: Annotated[
        str | None, Query(description="Goes on after the change with this cursor; absent for from now on.")
    ] = None,
    last_event_id: Annotated[str | None, Header(description="As `cursor`, and comes before it.")] = None,
) -> Response:
    """Tell of changes of runs as they come, as server-sent events.

    The id of an event is its cursor: a client that is cut off comes back with `Last-Event-ID`, and misses
    nothing. A run that changes several times before that is told may come once, as it is then. In silence
    there is a comment, or an id without data, every 15 seconds. After 10 minutes an event `end` ends it.
    """
    wanted = None if workflow_id is None else bounded_id(workflow_id)

    def event_of(seen: Seen) -> bytes | None:
        is_wanted = wanted is None or seen.update.run.workflow_id == wanted
        return seen.as_form(json_event) if is_wanted else None

    return EventStream(await changes.since(last_event_id or cursor), event_of, times=changes.times)
