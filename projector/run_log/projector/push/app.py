"""The push endpoint: a message that Pub/Sub posts is answered once it is durable."""

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
from run_log.projector.health import health_routes
from run_log.projector.projector import told, where_from

MAX_BODY_BYTES: Final = 16 * 2**20
"""Room for a message of 10 MB, Pub/Sub's limit, in base64 with its attributes
(https://cloud.google.com/pubsub/quotas#resource_limits)."""

READ_SECONDS: Final = 30.0
"""How long a body may take to arrive. Other messages cannot use the room that is reserved for it."""

RETRY_AFTER_SECONDS: Final = 1

Authenticate = Callable[[str | None], Awaitable[None]]
"""Checks the header ``Authorization``, and raises `PushRefusedError`."""

_UNWRAPPED_ID: Final = "x-goog-pubsub-message-id"
_UNWRAPPED_TIME: Final = "x-goog-pubsub-publish-time"

_LENGTH: Final = re.compile("[0-9]{1,18}")

_logger: Final = get_logger("run_log.projector")


class _TooLargeError(Exception):
    """A body is larger than any message of Pub/Sub can be."""


def create_push_app(
    group: GroupCommit,
    authenticate: Authenticate,
    *,
    trouble: Callable[[], str | None] = lambda: None,
    read_seconds: float = READ_SECONDS,
) -> FastAPI:
    """Return the ASGI app that takes pushes of Pub/Sub, wrapped or unwrapped, and answers health checks.

    204 means that a message is durable, or is a dead letter; 429 that too much is in hand; 503 that a fault
    will pass. A body that is not a message becomes a dead letter too, because Pub/Sub would push it again for
    ever. No body is read before *authenticate* has accepted the headers, and none may take longer than
    *read_seconds*. *trouble* returns why nothing can be projected now; None if it can.
    """
    # No documentation pages: people do not call this API.
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
        except Exception as error:  # noqa: BLE001 - Pub/Sub should try again, whatever went wrong here
            return _failed(group, error)

    return app


async def _taken(request: Request, group: GroupCommit, read_seconds: float) -> Response:
    if group.is_full:
        return _full(group)
    # Reserved before the body is read: bodies that arrive at once could otherwise fill the memory together.
    with group.reserving() as has_room:
        try:
            async with asyncio.timeout(read_seconds):
                body = await _read(request, has_room)
        except (TimeoutError, ClientDisconnect):
            return _later(408, "the body did not arrive in time")
        except _TooLargeError:
            return PlainTextResponse(f"a body has at most {MAX_BODY_BYTES} bytes", status_code=413)
        if body is None:
            return _full(group)
        message = received_message(body, request.headers)
        # The group counts the message from here on, so the body must not stay in memory beside it.
        del body
        settling = group.settle(message)
    fate = await settling
    return (
        Response(status_code=204) if fate is Fate.DONE else _later(503, "a fault that will pass; try again")
    )


def _failed(group: GroupCommit, error: Exception) -> Response:
    # A foreign error may quote the request, so neither the answer nor the log has its text.
    where = {} if isinstance(error, ConfigurationError) else {"where": where_from(error)}
    _logger.error("run_log_push_failed", error=told(error), **where)
    group.open()
    return _later(503, "an operator has to act; see the log")


async def _read(request: Request, has_room: Callable[[int], bool]) -> bytearray | None:
    """Return the body; None if there is no room for it. Raises `_TooLargeError`."""
    # Not FastAPI's max_body_size: versions that do not know the option accept and ignore it.
    length = request.headers.get("content-length", "")
    size = int(length) if _LENGTH.fullmatch(length) else 0
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
    """Return the message in a push request. The case of *headers* does not matter."""
    # Headers mark an unwrapped message. A body without them that is not an envelope is taken as a message
    # too, and becomes a dead letter unless it is an event.
    if _UNWRAPPED_ID not in headers:
        # Whatever it raises, it is not an envelope: after an error, Pub/Sub would push it again for ever.
        with contextlib.suppress(Exception):
            return _in_envelope(json.loads(body))
    carried = {
        name: value
        for name, value in headers.items()
        if name.startswith("ce-") or name in {"traceparent", "tracestate"}
    }
    return ReceivedMessage(
        data=bytes(body),
        attributes=carried,
        message_id=headers.get(_UNWRAPPED_ID, ""),
        ack_id="",
        published_at=_moment(headers.get(_UNWRAPPED_TIME)),
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
    """Return a time in RFC 3339; None if it is damaged, which is no reason to lose the message."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.utcoffset() is not None else None


def _full(group: GroupCommit) -> Response:
    if group.is_failed:
        return _later(503, "projecting has failed, and will begin again")
    return _later(429, "too many messages are in hand; try again")


def _later(status: int, why: str) -> Response:
    return PlainTextResponse(why, status_code=status, headers={"retry-after": str(RETRY_AFTER_SECONDS)})
