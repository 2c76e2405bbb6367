"""The app: the API, the pages, what both answer errors with, and who may ask."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from run_log.core import utc_now
from run_log.stores import RunLog, get_run_log_service

from . import api
from .access import anybody
from .context import Context
from .errors import answer_errors
from .pages.compression import CompressedPages
from .pages.routes import router as pages
from .streams import Changes

_HERE: Final = Path(__file__).parent


def create_app(service: RunLog | None = None, *, now: Callable[[], datetime] = utc_now) -> FastAPI:
    """Return the ASGI app that shows a run log, to serve or to mount under any prefix.

    Args:
        service: The run log; None takes that of the environment, made when it is first asked for.
        now: Returns the time, aware.
    """
    app = FastAPI(title="run-log", openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None)

    def opened() -> RunLog:
        return service or get_run_log_service()

    app.state.context = Context(
        opened=opened,
        authenticate=anybody,
        now=now,
        changes=Changes(opened),
        project=os.environ.get("GOOGLE_CLOUD_PROJECT"),
    )
    answer_errors(app)
    app.add_middleware(CompressedPages)
    app.include_router(api.router, prefix="/api/v1")
    api.describe(app)
    app.include_router(pages)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    return app
