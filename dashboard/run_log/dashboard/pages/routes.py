"""The paths of the pages."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from .live import router as live
from .runs import router as runs

# They are for people, so the document of the API leaves them out.
router: Final = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
router.include_router(runs)
router.include_router(live)
