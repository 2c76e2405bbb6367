"""``run-log dashboard`` as people start and stop it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from tests.processes import started

from run_log.http.serving import GRACE_SECONDS

from .processes import run_log

pytestmark = pytest.mark.process

PATIENCE = 60.0


def _sqlite(folder: Path) -> dict[str, str]:
    return {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(folder / "runs.sqlite3")}


@asynccontextmanager
async def _served(
    *arguments: str, folder: Path, environment: Mapping[str, str]
) -> AsyncGenerator[tuple[Process, str]]:
    """Yield the process and the address that it says."""
    emitted = await asyncio.to_thread(run_log, "emit", "w", folder=folder, **_sqlite(folder))
    assert 0 == emitted.code
    async with started(
        "dashboard", "--port", "0", *arguments, folder=folder, environment={**_sqlite(folder), **environment}
    ) as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while not (line := (await process.stderr.readline()).decode()).startswith("dashboard  "):
                assert line, "it has ended"
        yield process, line.split()[1]


async def _stopped(process: Process) -> int | None:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await process.communicate()
    return process.returncode


async def test_it_serves_until_a_signal(tmp_path: Path) -> None:
    """It says where it is, shows what there is, and ends in order on SIGTERM."""
    async with _served(folder=tmp_path, environment={}) as (process, address), httpx2.AsyncClient() as client:
        page = await client.get(address)
        runs = await client.get(f"{address}api/v1/workflows/-/runs")
        code = await _stopped(process)

    assert (200, "w") == (page.status_code, runs.json()["runs"][0]["workflow_id"])
    assert (0, False) == (code, "server" in page.headers)


async def test_it_ends_though_somebody_looks(tmp_path: Path) -> None:
    """An open stream ends with the server, well before the time that requests are given."""
    loop = asyncio.get_running_loop()
    async with (
        _served(folder=tmp_path, environment={}) as (process, address),
        httpx2.AsyncClient(timeout=PATIENCE) as client,
        client.stream("GET", f"{address}api/v1/runs:watch") as stream,
    ):
        pieces = stream.aiter_raw()
        first = await anext(pieces)
        began = loop.time()
        code = await _stopped(process)
        took = loop.time() - began
        rest = [piece async for piece in pieces]

    assert (200, 0) == (stream.status_code, code)
    assert first
    assert took < GRACE_SECONDS
    assert all(isinstance(piece, bytes) for piece in rest)


async def test_under_a_path_and_read_only(tmp_path: Path) -> None:
    """Links begin with the path under which a proxy serves it, and read-only nothing is taken in."""
    async with (
        _served("--root-path", "/ops/", "--read-only", folder=tmp_path, environment={}) as (process, address),
        httpx2.AsyncClient() as client,
    ):
        own = address.removesuffix("/ops/")
        page = await client.get(f"{own}/")
        written = await client.post(f"{own}/anything", headers={"sec-fetch-site": "same-origin"})
        code = await _stopped(process)

    assert address.endswith("/ops/")
    assert 'href="/ops/inbox"' in page.text
    assert (403, 0) == (written.status_code, code)


@pytest.mark.parametrize(("path", "told"), [("runs", "/runs"), ("/api/", "cannot be served under /api")])
def test_where_it_cannot_be_served(path: str, told: str, tmp_path: Path) -> None:
    """A path that is none, or one of the dashboard's own, is refused with the reason."""
    ended = run_log("dashboard", "--root-path", path, "--port", "0", folder=tmp_path, **_sqlite(tmp_path))

    assert (2, "") == (ended.code, ended.out)
    assert told in " ".join(ended.err.split())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.com"])  # noqa: S104 - it is refused
def test_it_is_not_open_to_others(host: str, tmp_path: Path) -> None:
    """At an address that others reach it does not start without knowing who is let in."""
    ended = run_log("dashboard", "--host", host, folder=tmp_path, **_sqlite(tmp_path))

    assert (2, "") == (ended.code, ended.out)
    assert "set RUN_LOG_DASHBOARD_AUTH to iap, oidc or iam" in ended.err


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        ({"RUN_LOG_BACKEND": "memory"}, 2, "RUN_LOG_BACKEND is 'memory'"),
        ({"RUN_LOG_DASHBOARD_AUTH": "iap"}, 2, "needs RUN_LOG_DASHBOARD_AUDIENCE"),
        ({"RUN_LOG_DASHBOARD_AUTH": "iam"}, 2, "needs Cloud Run"),
        ({"RUN_LOG_DASHBOARD_AUTH": "open"}, 2, "RUN_LOG_DASHBOARD_AUTH='open'"),
        ({"RUN_LOG_DASHBOARD_AUHT": "iap"}, 2, "did you mean RUN_LOG_DASHBOARD_AUTH?"),
        ({}, 3, "runs.sqlite3"),
    ],
)
def test_what_is_missing_is_said(environment: dict[str, str], code: int, told: str, tmp_path: Path) -> None:
    """What it cannot start with is one line that says what to set, and nothing is made."""
    ended = run_log("dashboard", folder=tmp_path, **{**_sqlite(tmp_path), **environment})

    assert (code, "") == (ended.code, ended.out)
    assert told in ended.err
    assert [] == list(tmp_path.iterdir())
