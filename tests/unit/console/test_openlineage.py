"""``run-log openlineage`` as people start and stop it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from tests.adapters.openlineage.kit import URL, an_event
from tests.processes import started

from run_log.core import RunStatus
from run_log.stores import SQLiteRunLogService

from .processes import run_log

pytestmark = pytest.mark.process

PATIENCE = 60.0


def _sqlite(folder: Path) -> dict[str, str]:
    return {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(folder / "runs.sqlite3")}


@asynccontextmanager
async def _served(folder: Path) -> AsyncGenerator[tuple[Process, httpx2.AsyncClient]]:
    """Yield the process, and a client of the address that it says."""
    async with started("openlineage", "--port", "0", folder=folder, environment=_sqlite(folder)) as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while not (line := (await process.stderr.readline()).decode()).startswith("OPENLINEAGE_URL  "):
                assert line, "it has ended"
        async with httpx2.AsyncClient(base_url=line.split()[1], timeout=PATIENCE) as client:
            yield process, client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_is_answered_is_there(number: int, tmp_path: Path) -> None:
    """It makes the file, says where it is, and whatever it has answered is there however it ends."""
    async with _served(tmp_path) as (process, client):
        answers = [
            await client.post(URL, json=an_event()),
            await client.post(URL, json=an_event("COMPLETE", "2026-03-01T10:00:01Z")),
        ]
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            await process.communicate()
    log = SQLiteRunLogService(path=tmp_path / "runs.sqlite3")
    run = await log.get_run("n/j", "r")
    await log.close()

    assert [200, 200] == [answer.status_code for answer in answers]
    assert (0 if number == signal.SIGTERM else -number) == process.returncode
    assert run is not None
    assert (RunStatus.SUCCESS, 1_000) == (run.status, run.duration_ms)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--host", "0.0.0.0"], {}, "set RUN_LOG_OPENLINEAGE_AUTH to oidc or iam"),  # noqa: S104 - it is refused
        (["--host", "::"], {}, "set RUN_LOG_OPENLINEAGE_AUTH to oidc or iam"),
        ([], {"RUN_LOG_BACKEND": "memory"}, "RUN_LOG_BACKEND is 'memory'"),
        ([], {"RUN_LOG_OPENLINEAGE_AUTH": "oidc"}, "needs RUN_LOG_OPENLINEAGE_AUDIENCE"),
        ([], {"RUN_LOG_OPENLINEAGE_AUTH": "iam"}, "needs Cloud Run"),
        ([], {"RUN_LOG_OPENLINEAGE_AUHT": "oidc"}, "did you mean RUN_LOG_OPENLINEAGE_AUTH?"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str], environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    """What it cannot start with is one line that says what to set, and nothing is made."""
    ended = run_log("openlineage", *arguments, folder=tmp_path, **{**_sqlite(tmp_path), **environment})

    assert (2, "") == (ended.code, ended.out)
    assert told in ended.err
    assert [] == list(tmp_path.iterdir())
