"""HTTP of a projector: health endpoints, and a server that leaves signals to the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Final

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response

from run_log.core import ConfigurationError

from .in_hand import Progress

GRACE_SECONDS: Final = 6
"""How long requests under way may take once the server stops. Cloud Run kills after 10 s."""

STUCK_SECONDS: Final = 120.0
"""A projector is stuck if something is in hand and nothing was settled for so long. An outage of the store
does not count: what is in hand is given back at least once a minute."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process: uvicorn would raise them again once it has stopped."""
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, host: str, port: int) -> AsyncGenerator[int]:
    """Serve *app* while the block runs, and yield the port: *port*, or a free one where that is 0.

    Requests under way at the end of the block are finished.

    Raises:
        ConfigurationError: The port is taken, or not allowed.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    try:
        # Bound here, because uvicorn exits the process if it cannot bind.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {host}:{port}; choose another port ({error})") from error
    with listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            await running


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
