"""The official client, in its own environment, sends to an app that is served and records into a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.frameworks import Framework, framework
from tests.tokens import ACCOUNT, AUDIENCE, key_pair, signed_token

from run_log.adapters.openlineage import create_app
from run_log.adapters.openlineage.access import Authenticate, GoogleTokens
from run_log.core import Outcome, RunEvent, RunRef, RunStatus, StoreUnavailableError
from run_log.http.serving import serving
from run_log.http.tokens import Certificates
from run_log.producer import RunEventEmitter
from run_log.producer._store_transport import StoreTransport
from run_log.stores import SQLiteRunLogService

pytestmark = pytest.mark.process

RUN_ID = "0199c1d2-0000-7000-8000-0000000000aa"
WORKFLOW = "spark://x:7077/orders.load"
SENT = "RunEvent RunEvent RunEvent RunEvent JobEvent DatasetEvent"


@pytest.fixture(scope="module")
def client() -> Framework:
    """Return the environment of the official client."""
    found = framework("openlineage")
    found.make()
    return found


class _Failing(SQLiteRunLogService):
    """A run log that takes nothing at first."""

    failures = 0

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore`."""
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("away")
        return await super().apply(events)


@contextlib.asynccontextmanager
async def _served(
    folder: Path, auth: Authenticate | str, *, failures: int = 0
) -> AsyncGenerator[tuple[str, SQLiteRunLogService]]:
    """Yield the address of an app and the run log that it records into, which first fails so many times."""
    path = folder / "runs.sqlite3"
    own, read = _Failing(path=path), SQLiteRunLogService(path=path)
    own.failures = failures
    emitter = RunEventEmitter(StoreTransport(lambda: own, close_store=own.close))
    app = create_app(read, emitter=emitter, auth=auth, delivery_seconds=0.1 if failures else 30)
    try:
        async with serving(app, host="127.0.0.1", port=0) as port:
            yield f"http://127.0.0.1:{port}", read
    finally:
        await asyncio.to_thread(emitter.close, 30)
        await read.close()


async def _sent(client: Framework, config: dict[str, Any] | None, **environ: str) -> None:
    arguments = ("-m", "tests.adapters.openlineage.program", json.dumps(config), RUN_ID)
    done = await asyncio.to_thread(client.run, *arguments, environ=environ)
    assert (0, SENT) == (done.returncode, done.stdout.strip()), done.stderr


@pytest.mark.parametrize("config", [{"type": "http", "compression": "gzip"}, {"type": "async_http"}])
async def test_its_transports(client: Framework, config: dict[str, str], tmp_path: Path) -> None:
    """A run that the client tells of, over either HTTP transport, packed or not, is in the file."""
    async with _served(tmp_path, "none") as (address, log):
        await _sent(client, {**config, "url": address})
        record = await log.get_record(WORKFLOW, RUN_ID)
        workflows, _ = await log.list_workflows()

    assert record is not None
    run, begun = record.run, datetime(2026, 3, 1, 10, 0, 0, 500_000, tzinfo=UTC)
    assert [WORKFLOW] == [workflow.workflow_id for workflow in workflows]
    assert (RunStatus.FAILED, "java.io.IOException") == (run.status, run.error_type)
    assert "java.io.IOException: disk full\n\tat a.B.c(B.java:1)" == run.error
    assert (begun, begun + timedelta(seconds=3), 3_000) == (run.started_at, run.completed_at, run.duration_ms)
    assert "1." == run.labels.pop("openlineage_client_version")[:2]
    assert {"engine": "spark", "engine_version": "3.5.1", "team": "billing"} == run.labels
    assert RunRef("scheduler/nightly", "0199c1d2-0000-7000-8000-000000000001") == run.parent
    assert [RunStatus.RUNNING, RunStatus.FAILED] == [line.status for line in record.history][-2:]


async def test_its_retries(client: Framework, tmp_path: Path) -> None:
    """While nothing can be recorded, the client is told to send an event again, and does."""
    async with _served(tmp_path, "none", failures=2) as (address, log):
        await _sent(client, {"type": "http", "url": address})
        run = await log.get_run(WORKFLOW, RUN_ID)

    assert run is not None
    assert (RunStatus.FAILED, 3_000) == (run.status, run.duration_ms)


async def test_its_environment(client: Framework, tmp_path: Path) -> None:
    """Its own variables are enough: the address, and a token as its API key."""
    certificates = Certificates(lambda: ({"a": key_pair("a")[1]}, 3_600.0))
    auth = GoogleTokens(audience=AUDIENCE, accounts={ACCOUNT}, certificates=certificates)
    async with _served(tmp_path, auth) as (address, log):
        await _sent(client, None, OPENLINEAGE_URL=address, OPENLINEAGE_API_KEY=signed_token())
        run = await log.get_run(WORKFLOW, RUN_ID)

    assert run is not None


async def test_without_a_token(client: Framework, tmp_path: Path) -> None:
    """Without a token the client says that it is not let in, and nothing is recorded."""
    certificates = Certificates(lambda: ({"a": key_pair("a")[1]}, 3_600.0))
    auth = GoogleTokens(audience=AUDIENCE, accounts={ACCOUNT}, certificates=certificates)
    async with _served(tmp_path, auth) as (address, log):
        arguments = ("-m", "tests.adapters.openlineage.program", "null", RUN_ID)
        done = await asyncio.to_thread(client.run, *arguments, environ={"OPENLINEAGE_URL": address})
        run = await log.get_run(WORKFLOW, RUN_ID)

    assert "401 Client Error" in done.stderr
    assert run is None
