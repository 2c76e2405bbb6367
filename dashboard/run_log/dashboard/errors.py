"""Which error is answered with what: problem details for programs, by RFC 9457, and a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from run_log.core import (
    AlreadyAnsweredError,
    ConfigurationError,
    InvalidArgumentError,
    InvalidCursorError,
    NotFoundError,
    NotPausedError,
    RunLogError,
    RunNotFoundError,
    StoreUnavailableError,
    TransportUnavailableError,
    UnreadableRunError,
    WriteRefusedError,
)
from run_log.core.logs import get_logger

from .bodies import JSONAnswer, status_name
from .pages.rendering import page
from .paths import path_below

PROBLEM_TYPE: Final = "application/problem+json"

RETRY_AFTER_SECONDS: Final = 5
"""When to ask again where the store is away."""

_PREFIX: Final = "urn:run-log:problem:"
_SERVER_ERROR: Final = 500

_logger: Final = get_logger("run_log.dashboard")


class InvalidFilterError(InvalidArgumentError):
    """A filter cannot be read. The message says at which character, and what may stand there."""


class ChangedSinceError(NotPausedError):
    """``If-Match`` does not name the run's newest state, and not a pause that somebody has answered."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an error is answered with."""

    status: int
    name: str
    """The last part of the problem's ``type``."""
    title: str
    told: str = ""
    """What is said instead of the error's own text, which may tell of the server; empty for that text."""


# The nearest class of an error decides. The text of an error below 500 is about what the caller sent.
KINDS: Final[Mapping[type[BaseException], Kind]] = {
    InvalidArgumentError: Kind(400, "invalid-argument", "An argument cannot be used"),
    InvalidCursorError: Kind(400, "invalid-cursor", "The cursor is not of this listing"),
    InvalidFilterError: Kind(400, "invalid-filter", "The filter cannot be read"),
    NotFoundError: Kind(404, "not-found", "It is not there"),
    RunNotFoundError: Kind(404, "run-not-found", "The run is not there"),
    NotPausedError: Kind(409, "not-paused", "The run does not wait for an answer"),
    AlreadyAnsweredError: Kind(409, "already-answered", "Somebody else has answered"),
    WriteRefusedError: Kind(409, "write-refused", "The run cannot be changed any more"),
    ChangedSinceError: Kind(412, "changed-since", "The run is in another state by now"),
    UnreadableRunError: Kind(
        500,
        "unreadable-run",
        "The run cannot be read",
        "the run is stored in a form that cannot be read; the server's log says more",
    ),
    ConfigurationError: Kind(
        500,
        "configuration",
        "The server is not set up",
        "a setting, a project or credentials are missing or wrong; the server's log says which",
    ),
    RunLogError: Kind(500, "failed", "The server failed", "the server's log says more"),
    StoreUnavailableError: Kind(
        503, "unavailable", "The store does not answer", "the store does not answer in time; ask again later"
    ),
    TransportUnavailableError: Kind(
        503,
        "unavailable",
        "The transport does not answer",
        "what takes answers in does not respond in time; ask again later",
    ),
}

_INVALID_REQUEST: Final = Kind(400, "invalid-argument", "An argument cannot be used")
_UNEXPECTED: Final = KINDS[RunLogError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong with a request."""

    status: int
    name: str
    """What it is called in ``type``; empty for no more than the status says."""
    title: str
    detail: str
    further: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members beside those of RFC 9457: ids, who answered, the faults of fields."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """Return the problem that *error* is."""
        if isinstance(error, RequestValidationError):
            return _of_request(error)
        if isinstance(error, HTTPException):
            return _of_status(error)
        kind = next((KINDS[each] for each in type(error).__mro__ if each in KINDS), _UNEXPECTED)
        named = ("workflow_id", "run_id", "answered_by")
        return cls(
            status=kind.status,
            name=kind.name,
            title=kind.title,
            detail=kind.told or str(error),
            further={name: value for name in named if (value := getattr(error, name, None)) is not None},
            headers={"retry-after": str(RETRY_AFTER_SECONDS)} if kind.name == "unavailable" else {},
        )

    def to_json(self, instance: str) -> dict[str, Any]:
        """Return it as RFC 9457 says; *instance* is the path that was asked for."""
        return {
            "type": f"{_PREFIX}{self.name}" if self.name else "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            **self.further,
        }


def answer_errors(app: FastAPI) -> None:
    """Have *app* answer every error: with problem details below ``/api``, with a page elsewhere."""
    for kind in (RunLogError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)


def problem_answer(request: Request, problem: Problem) -> Response:
    """Return what *request* is answered with where *problem* came up."""
    if not is_of_api(request.scope):
        answer = page(request, "error.html", status=problem.status, problem=problem)
        answer.headers.update(problem.headers)
        return answer
    return JSONAnswer(
        problem.to_json(quote(request.scope["path"], errors="replace")),
        status_code=problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_TYPE,
    )


async def _answer(request: Request, error: Exception) -> Response:
    problem = Problem.of(error)
    # Of an error that is not ours, the server logs the trace.
    if problem.status >= _SERVER_ERROR and isinstance(error, RunLogError):
        _logger.error("run_log_dashboard_failed", problem=problem.name, error=_loggable(error))
    return problem_answer(request, problem)


def _loggable(error: RunLogError) -> str:
    # It quotes the document.
    if isinstance(error, UnreadableRunError):
        return f"run {error.run_id!r} of workflow {error.workflow_id!r} cannot be read"
    return str(error)


def is_of_api(scope: Mapping[str, Any]) -> bool:
    """Return whether what an ASGI *scope* asks for is below ``/api``, wherever the app is mounted."""
    return path_below(scope).startswith("/api/")


def _of_request(error: RequestValidationError) -> Problem:
    faults = [
        {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
        for fault in cast("Sequence[Mapping[str, Any]]", error.errors())
    ]
    kind = _INVALID_REQUEST
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return Problem(
        status=kind.status, name=kind.name, title=kind.title, detail=detail, further={"errors": faults}
    )


def _of_status(error: HTTPException) -> Problem:
    title = status_name(error.status_code)
    is_address = error.status_code == HTTPStatus.NOT_FOUND and error.detail == title
    detail = "there is nothing at this address" if is_address else error.detail
    return Problem(status=error.status_code, name="", title=title, detail=detail, headers=error.headers or {})
