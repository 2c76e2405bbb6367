"""The app: OpenLineage's HTTP API, as far as it takes events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from run_log.core import EventDecodeError, RunLogError, Settings, utc_now
from run_log.core.logs import get_logger
from run_log.http.errors import TokenRefusedError
from run_log.producer import Redaction, RunEventEmitter, default_emitter
from run_log.stores import RunLogReader, create_run_log_service, get_run_log_service

from .access import Authenticate, authentication
from .bodies import Bodies
from .events import Told, parsed, told_by
from .recorder import DELIVERY_SECONDS, Recorder

PATH: Final = "/api/v1/lineage"
"""Where the official client posts events to, unless its endpoint is set to another one."""

RETRY_AFTER_SECONDS: Final = 1

_logger: Final = get_logger("run_log.adapters")


def create_app(
    service: RunLogReader | None = None,
    *,
    emitter: RunEventEmitter | None = None,
    auth: str | Authenticate | None = None,
    delivery_seconds: float = DELIVERY_SECONDS,
    now: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """Return the ASGI app that records the runs that events of OpenLineage tell of.

    An event is answered once it is delivered, and with 503 if that takes too long.

    Args:
        service: The run log in which it is read what is known of a run; None takes that of the environment.
        emitter: Where states of runs go; None takes `default_emitter`.
        auth: Who may send events: ``none``, this machine alone; ``oidc`` or ``iam``, with the settings
            ``RUN_LOG_OPENLINEAGE_*``; or a platform's own function that raises an ``HTTPException`` for
            everybody else. None takes the setting ``RUN_LOG_OPENLINEAGE_AUTH``.
        delivery_seconds: How long delivery may take.
        now: Returns the time, aware.

    Raises:
        ConfigurationError: *auth* is unknown, needs more settings, or would let anybody in; or another
            setting is wrong.
    """
    settings = Settings.from_env()
    authenticate = auth if callable(auth) else authentication(settings, auth)
    recorder = Recorder(
        (lambda: emitter) if emitter else default_emitter,
        (lambda: service) if service else _run_log_of(settings),
        redaction=Redaction.from_setting(settings.redact_keys, texts=settings.redact_text),
        delivery_seconds=delivery_seconds,
    )
    bodies = Bodies()
    # No documentation pages: people do not call this API.
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    for error in (RunLogError, HTTPException, TokenRefusedError, Exception):
        app.add_exception_handler(error, _answer)

    @app.post(PATH)
    async def post(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - the app has it
        await authenticate(request)
        async with bodies.read(request) as body:
            told = told_by(parsed(body), now())
            await recorder.record([told] if told else [])
        return Response()

    @app.post(f"{PATH}/batch")
    async def post_batch(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - likewise
        await authenticate(request)
        async with bodies.read(request) as body:
            events = parsed(body)
            if not isinstance(events, list):
                raise HTTPException(422, f"a batch is a list of events, not a {type(events).__name__}")
            batch = cast("list[object]", events)
            told, failed = _told_by_batch(batch, now())
            await recorder.record(told)
        return JSONResponse(_batch_json(len(batch), failed))

    return app


def _told_by_batch(events: list[object], now: datetime) -> tuple[list[Told], dict[int, str]]:
    told: list[Told] = []
    failed: dict[int, str] = {}
    for index, event in enumerate(events):
        try:
            one = told_by(event, now)
        except EventDecodeError as error:
            failed[index] = str(error)
        else:
            told += [one] if one else []
    if failed:
        _logger.warning(
            "run_log_openlineage_refused", status=200, events=len(failed), error=next(iter(failed.values()))
        )
    return told, failed


def _batch_json(received: int, failed: dict[int, str]) -> dict[str, Any]:
    # https://github.com/OpenLineage/OpenLineage/blob/main/spec/OpenLineage.yml
    return {
        "status": "partial_success" if failed else "success",
        "summary": {
            "received": received,
            "successful": received - len(failed),
            "failed": len(failed),
            "retriable": 0,
            "non_retriable": len(failed),
        },
        "failed_events": [
            {"index": index, "reason": reason, "retriable": False} for index, reason in failed.items()
        ],
    }


def _run_log_of(settings: Settings) -> Callable[[], RunLogReader]:
    if settings.backend == "memory":
        return get_run_log_service
    # With pubsub the projection in Firestore is read: a pubsub service would make a second emitter. Of other
    # back ends the process's own service may be bound to another event loop.
    return cache(
        lambda: create_run_log_service("firestore" if settings.backend == "pubsub" else settings.backend)
    )


async def _answer(_request: Request, error: Exception) -> Response:
    """Answer *error* with problem details by RFC 9457."""
    match error:
        case EventDecodeError():
            status, detail = 422, str(error)
        case TokenRefusedError():
            status, detail = error.status, str(error)
        case HTTPException():
            status, detail = error.status_code, str(error.detail)
        case RunLogError():
            status, detail = 503, str(error)
        case _:
            status, detail = 500, "the server failed; its log says more"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.warning("run_log_openlineage_refused", status=status, error=detail)
    elif isinstance(error, RunLogError):
        _logger.error("run_log_openlineage_failed", status=status, error=detail)
    headers = dict((isinstance(error, HTTPException) and error.headers) or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("www-authenticate", "Bearer")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("retry-after", str(RETRY_AFTER_SECONDS))
    title = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(problem, status, headers, media_type="application/problem+json")
