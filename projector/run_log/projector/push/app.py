"""The push endpoint: what Pub/Sub posts is projected, and answered once it is durable."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from run_log.core import ConfigurationError, ReceivedMessage
from run_log.core.errors import PushRefusedError
from run_log.core.logs import get_logger
from run_log.projector.group_commit import Fate, GroupCommit
from run_log.projector.projector import where_from
from run_log.projector.serving import health_routes

MAX_BODY_BYTES: Final = 16 * 2**20
"""A message of 10 MB, Pub/Sub's limit, in base64, and its attributes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

READ_SECONDS: Final = 30.0
"""How long a body may take to come: what is reserved for it others do not get meanwhile."""

RETRY_AFTER_SECONDS: Final = 1

Authenticate = Callable[[str | None], Awaitable[None]]
"""Checks the header ``Authorization``; raises `PushRefusedError`."""

_UNWRAPPED_ID: Final = "x-goog-pubsub-message-id"
_UNWRAPPED_TIME: Final = "x-goog-pubsub-publish-time"

_LENGTH: Final = re.compile("[0-9]{1,18}")

_logger: Final = get_logger("run_log.projector")


class _TooLargeError(Exception):
    """A body is larger than any message of Pub/Sub."""


def create_push_app(
    group: GroupCommit,
    authenticate: Authenticate,
    *,
    trouble: Callable[[], str | None] = lambda: None,
    read_seconds: float = READ_SECONDS,
) -> FastAPI:
    """Return the ASGI app that takes what Pub/Sub pushes, wrapped or not, and answers health checks.

    204 says that a message is durable, or kept among the dead letters; 429 that as much is in hand as may
    be; 503 that a fault will pass. What is no message at all is dead-lettered too, since it would be pushed
    again for ever. Nobody gets past *authenticate* with more than headers.

    Args:
        group: Projects; concurrent requests share its commits.
        authenticate: Who may push.
        trouble: Returns why nothing can be projected now; None where it can.
        read_seconds: How long a body may take to come.
    """
    # No documentation pages: a projector is no API for people.
    app = FastAPI(openapi_url=None)
    app.include_router(health_routes(group.progress, trouble, failed=lambda: group.is_failed))

    @app.post("/")
    async def push(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - the app has it
        try:
            await authenticate(request.headers.get("authorization"))
            return await _taken(request, group, read_seconds)
        except PushRefusedError as error:
            _logger.warning("run_log_push_refused", status=error.status, error=str(error))
            return PlainTextResponse(str(error), status_code=error.status)
        except Exception as error:  # noqa: BLE001 - whatever happens, it is no error of Pub/Sub's
            return _failed(group, error)

    return app


async def _taken(request: Request, group: GroupCommit, read_seconds: float) -> Response:
    if group.is_full:
        return _full(group)
    with group.reserving() as has_room:
        try:
            async with asyncio.timeout(read_seconds):
                body = await _read(request, has_room)
        except (TimeoutError, ClientDisconnect):
            return _later(408, "the body did not come in time")
        except _TooLargeError:
            return PlainTextResponse(f"a body has at most {MAX_BODY_BYTES} bytes", status_code=413)
        if body is None:
            return _full(group)
        message = received_message(body, request.headers)
        # What is in hand is counted from here on; the body, and what it was parsed into, is let go.
        del body
        settling = group.settle(message)
    fate = await settling
    return Response(status_code=204) if fate is Fate.DONE else _later(503, "a fault that will pass")


def _failed(group: GroupCommit, error: Exception) -> Response:
    # Neither the answer nor the log repeats what it says, where that may be a request's.
    is_ours = isinstance(error, ConfigurationError)
    _logger.error(
        "run_log_push_failed",
        error=str(error) if is_ours else type(error).__name__,
        **({} if is_ours else {"where": where_from(error)}),
    )
    group.open()
    return _later(503, "somebody has to act; see the log")


async def _read(request: Request, has_room: Callable[[int], bool]) -> bytearray | None:
    """Return the body; None where there is no room for it.

    Raises:
        _TooLargeError: It is larger than any message of Pub/Sub.
    """
    # Not FastAPI's max_body_size: a version that does not know the option takes it, and does nothing.
    told = request.headers.get("content-length", "")
    size = int(told) if _LENGTH.fullmatch(told) else 0
    if not _fits(size, has_room):
        return None
    body = bytearray()
    async for chunk in request.stream():
        size = max(size, len(body) + len(chunk))
        if not _fits(size, has_room):
            return None
        body += chunk
    return body


def _fits(size: int, has_room: Callable[[int], bool]) -> bool:
    if size > MAX_BODY_BYTES:
        raise _TooLargeError
    return has_room(size)


def received_message(body: bytes | bytearray, headers: Mapping[str, str]) -> ReceivedMessage:
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
        data=bytes(body),
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
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment if moment.utcoffset() is not None else None


def _is_attribute(header: str) -> bool:
    return header.startswith("ce-") or header in {"traceparent", "tracestate"}


def _full(group: GroupCommit) -> Response:
    if group.is_failed:
        return _later(503, "projecting has failed, and will be taken up again")
    return _later(429, "as much is in hand as may be")


def _later(status: int, why: str) -> Response:
    return PlainTextResponse(why, status_code=status, headers={"retry-after": str(RETRY_AFTER_SECONDS)})
