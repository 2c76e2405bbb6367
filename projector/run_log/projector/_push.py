"""The push endpoint: what Pub/Sub posts is projected, and answered once it is durable."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from run_log.core import ConfigurationError, PushRefusedError, ReceivedMessage, get_logger

from ._group_commit import Fate, GroupCommit
from ._health import health_routes

MAX_BODY_BYTES: Final = 16 * 2**20
"""A message of 10 MB, Pub/Sub's limit, in base64, and its attributes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

RETRY_AFTER_SECONDS: Final = 1

Authenticate = Callable[[str | None], Awaitable[None]]
"""Checks the header ``Authorization``; raises `PushRefusedError`."""

_UNWRAPPED_ID: Final = "x-goog-pubsub-message-id"
_UNWRAPPED_TIME: Final = "x-goog-pubsub-publish-time"

_logger: Final = get_logger("run_log.projector")


def create_push_app(
    group: GroupCommit, authenticate: Authenticate, *, trouble: Callable[[], str | None] = lambda: None
) -> FastAPI:
    """Return the ASGI app that takes what Pub/Sub pushes, wrapped or not, and answers health checks.

    204 says that a message is durable, or kept among the dead letters; 429 that as much is in hand as may
    be; 503 that a fault will pass. What is no message at all is dead-lettered too, since it would be pushed
    again for ever. Nobody gets past *authenticate* with more than headers.

    Args:
        group: Projects; concurrent requests share its commits.
        authenticate: Who may push.
        trouble: Returns why nothing can be projected now; None where it can.
    """
    # No documentation pages: a projector is no API for people.
    app = FastAPI(openapi_url=None)
    app.include_router(health_routes(group.progress, trouble))

    @app.post("/")
    async def push(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - the app has it
        try:
            await authenticate(request.headers.get("authorization"))
        except PushRefusedError as error:
            _logger.warning("run_log_push_refused", status=error.status, error=str(error))
            return PlainTextResponse(str(error), status_code=error.status)
        if group.is_full:
            return _later(429, "as much is in hand as may be")
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"a body has at most {MAX_BODY_BYTES} bytes", status_code=413)
        message = received_message(body, request.headers)
        try:
            fate = await group.settle(message)
        except ConfigurationError as error:
            _logger.error("run_log_push_failed", error=str(error), message_id=message.message_id)  # noqa: TRY400
            group.open()
            return _later(503, "somebody has to act; see the log")
        return Response(status_code=204) if fate is Fate.DONE else _later(503, "a fault that will pass")

    return app


async def _read(request: Request) -> bytes | None:
    """Return the body; None where it is larger than `MAX_BODY_BYTES`, of which no more is held."""
    # Not FastAPI's max_body_size: a version that does not know the option takes it, and does nothing.
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > MAX_BODY_BYTES:
            return None
        body += chunk
    return bytes(body)


def received_message(body: bytes, headers: Mapping[str, str]) -> ReceivedMessage:
    """Return the message in a push request; what is no envelope is a message itself, for the dead letters.

    An unwrapped one is told by its headers, or by being no envelope: an event has no ``message``.

    Args:
        body: The request's.
        headers: Likewise; without regard to case.
    """
    if _UNWRAPPED_ID not in headers:
        # Whatever happens, it is no envelope: an error's answer would have it pushed again, for ever.
        with contextlib.suppress(Exception):
            return _in_envelope(json.loads(body))
    carried = {name: value for name, value in headers.items() if _is_attribute(name)}
    published = headers.get(_UNWRAPPED_TIME)
    return ReceivedMessage(
        data=body,
        attributes=carried,
        message_id=headers.get(_UNWRAPPED_ID, ""),
        ack_id="",
        published_at=_moment(published),
    )


def _in_envelope(envelope: Any) -> ReceivedMessage:
    message = cast("dict[str, Any]", envelope["message"])
    attributes = cast("dict[str, Any]", message.get("attributes") or {})
    attempt = envelope.get("deliveryAttempt")
    return ReceivedMessage(
        data=base64.b64decode(message.get("data") or "", validate=True),
        attributes={str(name): str(value) for name, value in attributes.items()},
        message_id=str(message.get("messageId") or message["message_id"]),
        ack_id="",
        delivery_attempt=attempt if isinstance(attempt, int) else 0,
        published_at=_moment(message.get("publishTime")),
    )


def _moment(text: object) -> datetime | None:
    """Return the moment in RFC 3339; None where there is none, for it is no reason to lose a message."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.utcoffset() is not None else None


def _is_attribute(header: str) -> bool:
    return header.startswith("ce-") or header in {"traceparent", "tracestate"}


def _later(status: int, why: str) -> Response:
    return PlainTextResponse(why, status_code=status, headers={"retry-after": str(RETRY_AFTER_SECONDS)})
