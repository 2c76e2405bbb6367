"""The paths of the pages."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from run_log.dashboard.context import Log

from .rendering import page

# They are for people, so the document of the API leaves them out.
router: Final = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def runs(request: Request, log: Log) -> HTMLResponse:
    """Show the runs of all workflows, the newest first."""
    found, cursor = await log.list_runs(None, payloads=False)
    return page(request, "runs.html", runs=found, cursor=cursor)
