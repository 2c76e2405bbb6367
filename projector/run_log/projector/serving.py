"""HTTP for a projector: uvicorn within the running event loop, its signals left to the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Final

import uvicorn
from fastapi import FastAPI

from run_log.core import ConfigurationError

GRACE_SECONDS: Final = 6
"""How long requests under way may take once the server is told to stop: Cloud Run kills after 10 s."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process."""
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, host: str, port: int) -> AsyncGenerator[int]:
    """Serve *app* while the block runs; yield the port. Requests under way at its end are finished.

    Args:
        app: What to serve.
        host: The address to listen at.
        port: The port; 0 takes a free one.

    Raises:
        ConfigurationError: The port cannot be had.
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
        # Bound here: uvicorn would end the process.
        listening = _bound(host, port)
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {host}:{port}; choose another port ({error})") from error
    with listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            await running


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family=family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
