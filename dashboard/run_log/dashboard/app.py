"""The app: the API, the pages, what both answer errors with, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from typing_extensions import override

from run_log.core import Settings, utc_now
from run_log.stores import RunLog, get_run_log_service

from . import api
from .access import Authenticate, Guard, OpenStreams, authentication
from .context import Context
from .counts import Counts
from .errors import answer_errors
from .pages.compression import CompressedPages
from .pages.routes import router as pages
from .streams import Changes

_HERE: Final = Path(__file__).parent


class _Guarded(FastAPI):
    @override
    def build_middleware_stack(self) -> ASGIApp:
        # Around what answers errors too, which middleware that is added is not.
        context: Context = self.state.context
        return Guard(
            super().build_middleware_stack(),
            authenticate=context.authenticate,
            read_only=context.read_only,
            streams=context.streams,
            now=context.now,
        )


def create_app(
    service: RunLog | None = None,
    *,
    auth: str | Authenticate | None = None,
    read_only: bool | None = None,
    now: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """Return the ASGI app that shows a run log, to serve or to mount under any prefix.

    Args:
        service: The run log; None takes that of the environment, made when it is first asked for.
        auth: Who is let in: ``none``, this machine alone; ``iap``, ``oidc`` or ``iam``, with the settings
            ``RUN_LOG_DASHBOARD_*``; or a platform's own function that returns the `Caller` of a request. None
            takes the setting ``RUN_LOG_DASHBOARD_AUTH``.
        read_only: Whether paused runs cannot be answered; None takes the setting
            ``RUN_LOG_DASHBOARD_READ_ONLY``.
        now: Returns the time, aware.

    Raises:
        ConfigurationError: *auth* is unknown, needs more settings, or would let anybody in.
    """
    settings = Settings.from_env()
    app = _Guarded(
        title="run-log",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )

    def opened() -> RunLog:
        return service or get_run_log_service()

    app.state.context = Context(
        opened=opened,
        authenticate=auth if callable(auth) else authentication(settings, auth),
        read_only=settings.dashboard_read_only if read_only is None else read_only,
        streams=OpenStreams(),
        now=now,
        changes=Changes(opened),
        counts=Counts(opened),
        project=settings.project,
    )
    answer_errors(app)
    app.add_middleware(CompressedPages)
    app.include_router(api.router, prefix="/api/v1")
    api.describe(app)
    app.include_router(pages)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    return app
