"""The API as its tests call it: in this process, with what a browser of the same site sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx2

from run_log.core import PauseRequest, RunStatus, WorkflowRun
from run_log.dashboard import create_app
from run_log.dashboard.paths import segment_of
from run_log.stores import RunLogService
from run_log.testing import a_run

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
BASE: Final = "http://dashboard"
PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A run log, and the API that shows it."""

    log: RunLogService
    app: Any
    client: httpx2.AsyncClient

    async def get(
        self, path: str, parameters: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx2.Response:
        """Return what a GET of *path* is answered with; a header's name has ``_`` for ``-``."""
        return await self.client.get(f"/api/v1{path}", params=parameters, headers=_named(headers))

    async def json(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a GET of *path*, which succeeds."""
        response = await self.get(path, parameters)
        assert (200, "application/json") == (response.status_code, response.headers["content-type"]), (
            response.text
        )
        return response.json()

    async def answer(self, run: WorkflowRun, body: Any, **headers: str) -> httpx2.Response:
        """Return what an answer to *run* is answered with."""
        return await self.client.post(
            f"/api/v1{path_of(run)}/answer", json=body, headers={"origin": BASE, **_named(headers)}
        )


@asynccontextmanager
async def opened_api(log: RunLogService, **arguments: Any) -> AsyncGenerator[Api]:
    """Yield the API of *log*, of an app made with *arguments*."""
    app = create_app(log, **arguments)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        yield Api(log=log, app=app, client=client)


def path_of(run: WorkflowRun) -> str:
    """Return the path of *run* below that of the API."""
    return f"/workflows/{segment_of(run.workflow_id)}/runs/{segment_of(run.id)}"


def problem_of(response: httpx2.Response, status: int) -> Any:
    """Return the problem of *response*, which has this *status*."""
    assert (status, PROBLEM) == (response.status_code, response.headers["content-type"]), response.text
    problem = response.json()
    assert status == problem["status"]
    return problem


def a_pause(**fields: Any) -> WorkflowRun:
    """Return a paused run."""
    return a_run(
        id="run-1", status=RunStatus.PAUSED, pause=PauseRequest(reason="Pay?", **fields), started_at=NOON
    )


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
