"""A server of HTTP that leaves signals to the process."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from run_log.core import ConfigurationError

GRACE_SECONDS: Final = 6
"""How long requests under way may take once the server stops. Cloud Run kills after 10 s."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process: uvicorn would raise them again once it has stopped."""
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, *, host: str, port: int) -> AsyncGenerator[int]:
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
        server_header=False,
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
    # asyncio sets this only where the socket was made with a protocol, which this one was not. Without it a
    # client that keeps its connection waits 40 ms for each answer: its head and its body are two packets, and
    # the second waits for the first one's acknowledgement. Connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            await running


def is_loopback(host: str) -> bool:
    """Return whether *host*, a name or an address, is this machine alone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # Python before 3.13 does not look behind ::ffff:127.0.0.1, which a server of IPv6 makes of 127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
