"""The paths of the pages."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from .answers import router as answers
from .inbox import router as inbox
from .live import router as live
from .operations import router as operations
from .run import router as run
from .runs import router as runs
from .workflow import router as workflow

# They are for people, so the document of the API leaves them out.
router: Final = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
router.include_router(runs)
router.include_router(run)
router.include_router(answers)
router.include_router(workflow)
router.include_router(inbox)
router.include_router(operations)
router.include_router(live)
