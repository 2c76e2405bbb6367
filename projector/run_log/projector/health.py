"""The health endpoints of a projector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from .in_hand import Progress

STUCK_SECONDS: Final = 120.0
"""A projector is stuck if something is in hand and nothing was settled for so long. An outage of the store
does not count: what is in hand is given back at least once a minute."""


def health_routes(
    progress: Progress, trouble: Callable[[], str | None], *, failed: Callable[[], bool] = lambda: False
) -> APIRouter:
    """Return the routes ``/live``, ``/ready`` and ``/lag``. They need no token, and show no secrets.

    *trouble* returns why nothing can be projected now; None if it can. *failed* returns whether projecting
    has failed with an unexpected error, which a restart may mend.
    """
    router = APIRouter()

    @router.get("/live")
    async def live() -> Response:  # pyright: ignore[reportUnusedFunction] - the router has it
        stuck_for = progress.stuck_for()
        has_failed = failed()
        is_live = stuck_for < STUCK_SECONDS and not has_failed
        told = {"stuck_for_seconds": stuck_for, "failed": has_failed}
        return JSONResponse(told, status_code=200 if is_live else 503)

    @router.get("/ready")
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        why = "projecting has failed; see the log" if failed() else trouble()
        return JSONResponse({"trouble": why}, status_code=200 if why is None else 503)

    @router.get("/lag")
    async def lag() -> Response:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"lag_seconds": progress.oldest_age(), "in_hand": progress.in_hand})

    return router
