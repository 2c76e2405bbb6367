"""Health endpoints: alive, ready, and how far behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from .in_hand import Progress

STUCK_SECONDS: Final = 120.0
"""With something in hand and nothing settled for so long, a projector is stuck. An outage of the store is
none: what is in hand is given back, batch by batch, at least once a minute."""


def health_routes(
    progress: Progress, trouble: Callable[[], str | None], *, failed: Callable[[], bool] = lambda: False
) -> APIRouter:
    """Return ``/live``, ``/ready`` and ``/lag``. They need no token, and tell no secrets.

    Args:
        progress: What is in hand.
        trouble: Returns why there is no work to be had now; None where there is.
        failed: Returns whether projecting has failed as nobody foresaw; a restart may mend it.
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
