"""What stands before every route: who asks, whether a page of ours sends it, and what browsers are told."""

from __future__ import annotations

import asyncio
import contextlib
import html
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from run_log.core.logs import get_logger
from run_log.dashboard.bodies import status_name
from run_log.dashboard.errors import Problem, is_of_api, problem_answer
from run_log.dashboard.paths import path_below

from .callers import Authenticate, Caller
from .headers import add_headers
from .rate import RefusalRate
from .streams import RETRY_AFTER_SECONDS, OpenStreams

MAX_BODY_BYTES: Final = 64 * 2**10
"""Room for an answer with its comment and values."""

CALLER: Final = "run_log.caller"
"""Where a scope has the `Caller`."""

_END_SECONDS: Final = 1.0

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_TOO_MANY_STREAMS: Final = HTTPException(
    503, "too many streams are open; ask again later", headers={"retry-after": str(RETRY_AFTER_SECONDS)}
)

_logger: Final = get_logger("run_log.dashboard")


class Guard:
    """An ASGI app around another one, which every request passes.

    It is around the whole app and not around its routes, so no route, mount or error is left out.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Authenticate,
        read_only: bool,
        streams: OpenStreams,
        now: Callable[[], datetime],
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._read_only = read_only
        self._streams = streams
        self._refusals = RefusalRate(now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI says."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        # With the prefix, as ASGI has it: what is mounted further in is not found without.
        scope["root_path"] = scope.get("root_path", "").rstrip("/")
        scope["path"] = scope["root_path"] + path_below(scope)
        answer = _Answer(scope, send)
        is_head = scope["method"] == "HEAD"
        if is_head:
            # FastAPI's routes do not answer it. The server leaves the body out.
            scope = {**scope, "method": "GET"}
        try:
            scope[CALLER] = await self._caller(scope)
            check_write(scope, scope[CALLER])
            receive = _limited(scope, receive)
        except HTTPException as error:
            await _refusal(scope, error)(scope, receive, answer.send)
        else:
            await self._answered(scope, receive, answer.send, is_head=is_head)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing here speaks over a websocket, so none has to say who asks.
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._app(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, *, is_head: bool) -> None:
        is_refused = False
        async with self._streams.ending() as end:

            async def admitted(message: Message) -> None:
                nonlocal is_refused
                if is_refused:
                    return
                if is_head and _begins_stream(message):
                    end.reschedule(0)
                elif _begins_stream(message) and not self._streams.admit(end):
                    is_refused = True
                    await _refusal(scope, _TOO_MANY_STREAMS)(scope, receive, send)
                    # An error would pass through what turns errors into a second answer.
                    end.reschedule(0)
                    return
                await send(message)

            await self._app(scope, receive, admitted)
        if end.expired() and not is_refused:
            # A client that does not read takes this no more than the rest. The server cuts it off.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _caller(self, scope: Scope) -> Caller:
        try:
            caller = await self._authenticate(HTTPConnection(scope))
            return replace(caller, may_answer=caller.may_answer and not self._read_only)
        except HTTPException as error:
            raise self._counted(scope, error) from error
        except Exception as error:
            # A platform's own. Whatever it says, nobody is let in.
            _logger.exception("run_log_dashboard_not_authenticated")
            raise HTTPException(500, "it cannot be told who asks; the server's log says why") from error

    def _counted(self, scope: Scope, error: HTTPException) -> HTTPException:
        """Return what a stranger is refused with: *error*, or that it is too much."""
        # Counted only once it is refused: behind a proxy all come from one address, and who has a token has
        # to get in whatever others send.
        client = scope.get("client")
        seconds = self._refusals.wait(client[0] if client else "")
        if seconds:
            return HTTPException(
                429, "too many requests are refused", headers={"retry-after": str(math.ceil(seconds))}
            )
        _logger.warning("run_log_dashboard_refused", status=error.status_code, error=str(error.detail))
        return error


class _Answer:
    """What is sent for one request, with the headers of every answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        # Now: a mount further in changes the scope.
        self._is_versioned = path_below(scope).startswith("/static/") and b"v=" in scope["query_string"]

    async def send(self, message: Message) -> None:
        """Send *message*, as ASGI says."""
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            add_headers(
                MutableHeaders(scope=message), status=message["status"], is_versioned=self._is_versioned
            )
        await self._send(message)


def _begins_stream(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")


def check_write(scope: Scope, caller: Caller) -> None:
    """Raise an ``HTTPException`` if a request changes something and may not.

    A browser says which page sends a request, and a page of others may not send one that changes something:
    it would be sent as whoever is signed in here.
    """
    if scope["method"] in _READS:
        return
    if not caller.may_answer:
        raise HTTPException(403, "this dashboard is read-only")
    headers = Headers(scope=scope)
    sites, origins, hosts = (headers.getlist(name) for name in ("sec-fetch-site", "origin", "host"))
    # The header Origin has a scheme too, but a server behind a proxy does not know its own.
    hosts_of_origins = [origin.partition("://")[2].lower() for origin in origins]
    is_ours = (
        sites == ["same-origin"] if sites else hosts_of_origins == [host.lower() for host in hosts] != []
    )
    if not is_ours:
        raise HTTPException(
            403,
            "a page of another site sends this; a program has to send the header Origin, equal to the "
            "dashboard's own, such as http://127.0.0.1:8484",
        )


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return *receive* for a body that may have `MAX_BODY_BYTES`. Raises a 413 where it says it has more."""
    too_large = HTTPException(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    length = Headers(scope=scope).get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > MAX_BODY_BYTES:  # noqa: PLR2004 - digits
        raise too_large
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            if scope["method"] in _READS:
                # Its answer may have begun, which no other can follow.
                return {"type": "http.disconnect"}
            raise too_large
        return message

    return limited


def _refusal(scope: Scope, error: HTTPException) -> Response:
    """Return what is answered with *error*: problem details for programs, a page for people."""
    # FastAPI's own error, which a platform may raise, has any JSON as its detail.
    detail = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("www-authenticate", "Bearer")
    if is_of_api(scope):
        told = HTTPException(error.status_code, detail, headers)
        return problem_answer(Request(scope), Problem.of(told))
    # Not the page of other errors: a stranger gets no style and no script.
    title = status_name(error.status_code)
    text = (
        f'<!doctype html>\n<html lang="en">\n'
        f'<head><meta charset="utf-8"><title>{title} · run-log</title></head>\n'
        f"<body><main><h1>{title}</h1><p>{html.escape(detail)}.</p></main></body>\n</html>\n"
    )
    return Response(text, error.status_code, headers, media_type="text/html")
