"""Requests to a dashboard, as its tests send them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import httpx2
from starlette.requests import HTTPConnection

from run_log.core.settings import variable
from run_log.dashboard import Authenticate, Caller, create_app
from run_log.http.tokens import Certificates, Fetched
from run_log.stores import InMemoryRunLogService

Headers: TypeAlias = Mapping[str, str] | list[tuple[bytes, bytes]]


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 4, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time, aware."""
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.time += timedelta(seconds=seconds)


class Publisher:
    """Publishes keys, and counts how often they are fetched."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.fetches = 0

    def fetch(self) -> Fetched:
        """See `fetch_certificates`."""
        self.fetches += 1
        return self.keys, 3_600.0

    def certificates(self, now: Callable[[], float] = lambda: 0.0) -> Certificates:
        """Return what is verified with."""
        return Certificates(self.fetch, now=now)


async def ann(_connection: HTTPConnection) -> Caller:
    """Let everybody in as ann."""
    return Caller(name="ann@example.com")


def guarded(auth: str | Authenticate | None = ann, **arguments: Any) -> Any:
    """Return the app over an empty run log."""
    return create_app(InMemoryRunLogService(), auth=auth, **arguments)


@asynccontextmanager
async def client_of(
    app: Any, *, address: str = "127.0.0.1", host: str = "dashboard"
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Yield a client at *address* that calls the app by the name *host*."""
    transport = httpx2.ASGITransport(app=app, client=(address, 1_234), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        yield client


async def answered(
    app: Any,
    path: str = "/api/v1/workflows/-/runs",
    headers: Headers | None = None,
    *,
    method: str = "GET",
    address: str = "127.0.0.1",
    host: str = "dashboard",
    content: bytes | None = None,
) -> httpx2.Response:
    """Return what one request is answered with."""
    async with client_of(app, address=address, host=host) as client:
        return await client.request(method, path, headers=headers, content=content)


def environment(**fields: str) -> dict[str, str]:
    """Return the variables that set *fields* of the settings."""
    return {variable(field): value for field, value in fields.items()}
