"""What errors are answered with."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from typing_extensions import override

from run_log.core import (
    AlreadyAnsweredError,
    ConfigurationError,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidRunError,
    NotFoundError,
    NotPausedError,
    RunExpiredError,
    RunLogError,
    RunNotFoundError,
    StoreError,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    UnreadableRunError,
    WorkflowRun,
    WriteRefusedError,
    errors,
)
from run_log.core.errors import GuessRefusedError
from run_log.dashboard.errors import KINDS, RETRY_AFTER_SECONDS
from run_log.stores import InMemoryRunLogService

from .api import BASE, Api, opened_api, problem_of

SECRET = "s3cret"  # noqa: S105 - a secret of nobody's

STATUSES: list[tuple[Exception, int, str]] = [
    (InvalidArgumentError("told"), 400, "invalid-argument"),
    (InvalidRunError("told"), 400, "invalid-argument"),
    (InvalidCursorError("told"), 400, "invalid-cursor"),
    (NotFoundError("told"), 404, "not-found"),
    (RunNotFoundError("w", "r"), 404, "run-not-found"),
    (NotPausedError("told"), 409, "not-paused"),
    (AlreadyAnsweredError("told", answered_by="ann"), 409, "already-answered"),
    (WriteRefusedError("told"), 409, "write-refused"),
    (RunExpiredError("told"), 409, "write-refused"),
    (UnreadableRunError("w", "r", SECRET), 500, "unreadable-run"),
    (ConfigurationError(SECRET), 500, "configuration"),
    (StoreError(SECRET), 500, "failed"),
    (TransportRefusedError(SECRET), 500, "failed"),
    (StoreUnavailableError(SECRET), 503, "unavailable"),
    (GuessRefusedError(SECRET), 503, "unavailable"),
    (TransportUnavailableError(SECRET), 503, "unavailable"),
    (ValueError(SECRET), 500, "failed"),
]


class FailingLog(InMemoryRunLogService):
    """Raises an error for every run that is asked for."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @override
    async def list_runs(self, *arguments: Any, **named: Any) -> tuple[list[WorkflowRun], str | None]:
        raise self._error


@pytest.mark.parametrize(("error", "status", "name"), STATUSES)
async def test_an_error_has_its_status(error: Exception, status: int, name: str) -> None:
    """An error is answered with its status; what tells of the server rather than the request is not told."""
    async with opened_api(FailingLog(error)) as api:
        response = await api.get("/workflows/-/runs")

    problem = problem_of(response, status)
    assert (f"urn:run-log:problem:{name}", "/api/v1/workflows/-/runs") == (
        problem["type"],
        problem["instance"],
    )
    assert SECRET not in response.text
    assert problem["title"]
    assert problem["detail"]
    for member in ("workflow_id", "run_id", "answered_by"):
        assert getattr(error, member, None) == problem.get(member)
    expected = str(RETRY_AFTER_SECONDS) if status == 503 else None
    assert expected == response.headers.get("retry-after")


def test_every_error_is_answered() -> None:
    """Whatever error of ours comes up, the table has its kind or that of one above it."""
    ours = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RunLogError)
    ]

    assert len(ours) > 20
    assert all(any(above in KINDS for above in each.__mro__) for each in ours)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/workflows/", 404),
        ("GET", "/workflows/w/runs/a/b", 404),
        ("POST", "/workflows", 405),
        ("DELETE", "/workflows/w/runs/r", 405),
    ],
)
async def test_what_is_not_there_is_a_problem(method: str, path: str, status: int, api: Api) -> None:
    """A path and a method that the API does not have are answered with problem details, too."""
    response = await api.client.request(method, f"/api/v1{path}", headers={"origin": BASE})

    assert ("about:blank", f"/api/v1{path}") == (
        problem_of(response, status)["type"],
        response.json()["instance"],
    )


async def test_the_faults_of_a_request_are_told_one_by_one(api: Api) -> None:
    """Of a request that is wrong in several places each is named, without what was sent."""
    response = await api.get("/pending", {"page_size": "-1", "overdue": SECRET})

    problem = problem_of(response, 400)
    assert {"query.page_size", "query.overdue"} == {fault["field"] for fault in problem["errors"]}
    assert SECRET not in response.text


async def test_people_are_told_on_a_page(api: Api) -> None:
    """Beside the API an error is a page, on which nothing that was sent is markup."""
    response = await api.client.get("/<script>nothing")

    assert (404, True) == (response.status_code, response.headers["content-type"].startswith("text/html"))
    assert "<script>nothing" not in response.text


async def test_an_app_in_another_answers_alike(api: Api) -> None:
    """Mounted under a prefix, the API answers with problem details, and what is beside it with pages."""
    platform = FastAPI()
    platform.mount("/tools/runs", api.app)
    transport = httpx2.ASGITransport(app=platform)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        problem = problem_of(await client.get("/tools/runs/api/v1/workflows/w/runs/r"), 404)
        page = await client.get("/tools/runs/nothing")

    assert "/tools/runs/api/v1/workflows/w/runs/r" == problem["instance"]
    assert (404, True) == (page.status_code, page.headers["content-type"].startswith("text/html"))
