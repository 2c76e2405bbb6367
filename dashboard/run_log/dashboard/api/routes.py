"""The paths of the API."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from run_log.dashboard.context import Log
from run_log.dashboard.paths import ALL_WORKFLOWS, id_of
from run_log.stores import page_json

router: Final = APIRouter()


@router.get("/workflows/{workflow}/runs")
async def list_runs(
    log: Log, workflow: str, page_size: Annotated[int, Query()] = 50, page_token: str | None = None
) -> dict[str, Any]:
    """List the runs of a workflow, or of all, the newest first, without payloads."""
    workflow_id = None if workflow == ALL_WORKFLOWS else id_of(workflow)
    runs, cursor = await log.list_runs(workflow_id, limit=page_size, start_after=page_token, payloads=False)
    return page_json("runs", runs, cursor)
