from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, routing
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Scope

from run_log.dashboard import Caller
from run_log.dashboard.access.guard import MAX_BODY_BYTES
from run_log.dashboard.access.rate import BURST, MAX_ADDRESSES, RefusalRate
from run_log.dashboard.access.streams import OpenStreams
from run_log.dashboard.paths import OWN

from .asking import Clock, Headers, ann, answered, client_of, guarded

OURS = {"sec-fetch-site": "same-origin"}


def _with_routes(auth: Any = ann, **arguments: Any) -> FastAPI:
    """Return the app with routes that take a write, fail and stream."""
    app: FastAPI = guarded(auth, **arguments)

    @app.post("/api/v1/probe")
    async def probe(request: Request) -> dict[str, int]:  # pyright: ignore[reportUnusedFunction] - the app has it
        return {"bytes": len(await request.body())}

    @app.get("/api/v1/fault")
    async def fault() -> None:  # pyright: ignore[reportUnusedFunction]
        raise KeyError("canary29")

    @app.get("/api/v1/stream")
    async def stream() -> Response:  # pyright: ignore[reportUnusedFunction]
        async def lines() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(lines(), media_type="text/event-stream")

    return app


async def stranger(connection: HTTPConnection) -> Caller:
    """Let nobody in."""
    del connection
    raise HTTPException(401, "no token")


def _paths(app: Any) -> list[tuple[str, str]]:
    """Return a method and a path of every route and mount."""
    found: list[tuple[str, str]] = []
    # Newer versions of FastAPI keep an included router as one.
    every: Any = getattr(routing, "iter_route_contexts", iter)
    for route in every(app.routes):
        path = str(route.path).replace("{", "").replace("}", "")
        methods = getattr(route, "methods", None)
        found += [(each, path) for each in methods] if methods else [("GET", f"{path}/style.css")]
    return found


async def test_no_route_is_forgotten() -> None:
    """Without credentials every route, mount, document and unknown path answers 401, whatever is asked."""
    app = _with_routes(stranger)
    paths = [*_paths(app), ("GET", "/nowhere"), ("GET", "/api/v1/openapi.json"), ("OPTIONS", "/")]

    assert {("GET", "/"), ("GET", "/static/style.css"), ("POST", "/api/v1/probe")} <= set(paths)
    for number, (method, path) in enumerate(paths):
        answer = await answered(app, path, OURS, method=method, address=f"127.0.1.{number}")
        assert (method, path, 401) == (method, path, answer.status_code)


def test_what_paths_begin_with() -> None:
    """A path under which the app is served is told from all of its own paths."""
    begin = {path.split("/")[1] for _, path in _paths(_with_routes(stranger))}

    assert OWN | {""} == begin


async def test_no_websocket_is_opened() -> None:
    """A websocket is closed, for nothing here speaks over one."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "root_path": ""}
    await guarded()(scope, receive, send)
    assert ["websocket.close"] == [message["type"] for message in sent]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/api/v1/workflows/-/runs", 200),
        ("/api/v1/openapi.json", 200),
        ("/static/style.css", 200),
        ("/nowhere", 404),
        ("/static/nowhere.css", 404),
        ("/api/v1/workflows/-/runs?page_size=x", 4),
        ("/api/v1/fault", 500),
    ],
)
async def test_every_answer_has_the_headers(path: str, status: int) -> None:
    """Whatever is answered, a browser runs, loads, frames and keeps nothing that is not ours."""
    answer = await answered(_with_routes(), path)
    refused = await answered(_with_routes(stranger), path)

    assert status in {answer.status_code, answer.status_code // 100}
    for headers in (answer.headers, refused.headers):
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (
            "'none'" == policy.pop("default-src") == policy.pop("base-uri") == policy.pop("frame-ancestors")
        )
        assert {"'self'"} == set(policy.values())
        assert {"script-src", "style-src", "connect-src", "form-action"} <= set(policy)
        assert "nosniff" == headers["x-content-type-options"]
        assert "same-origin" == headers["referrer-policy"]
        assert "same-origin" == headers["cross-origin-opener-policy"]
        assert "same-origin" == headers["cross-origin-resource-policy"]
        assert "camera=()" in headers["permissions-policy"]
        assert "no-store" == headers["cache-control"]


async def test_what_is_kept() -> None:
    """What is named with its content's hash is kept for a year, and only if it is there."""
    kept = await answered(guarded(), "/static/style.css?v=0123456789ab")
    missing = await answered(guarded(), "/static/nowhere.css?v=0123456789ab")
    page = await answered(guarded(), "/?v=1")

    assert "max-age=31536000" in kept.headers["cache-control"]
    assert ["no-store", "no-store"] == [each.headers["cache-control"] for each in (missing, page)]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "https://behind-a-proxy.example.com"},
        {"origin": "http://dashboard"},
        {"origin": "https://DASHBOARD"},
    ],
)
async def test_a_write_of_ours_is_taken(headers: dict[str, str]) -> None:
    """A page of ours, or a program that says so, may send what changes something."""
    assert 200 == (await answered(_with_routes(), "/api/v1/probe", headers, method="POST")).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://dashboard"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": ""},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "dashboard"},
        {"origin": "http://dashboard.evil.example.com"},
        {"origin": "http://evil.example.com", "referer": "http://dashboard/"},
        {"origin": "http://dashboard:81"},
        [(b"origin", b"http://dashboard"), (b"origin", b"http://evil.example.com")],
        [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")],
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"])
async def test_a_write_of_another_site_is_refused(headers: Headers, method: str) -> None:
    """What a page of another site sends, or what does not say where it comes from, changes nothing."""
    answer = await answered(_with_routes(), "/api/v1/probe", headers, method=method)

    assert (403, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert "Origin" in answer.json()["detail"]
    assert "/api/v1/probe" == answer.json()["instance"]


@pytest.mark.parametrize("path", ["/api/v1/probe", "/", "/nowhere"])
async def test_read_only(path: str) -> None:
    """Read-only, whatever changes something is refused, and everything else is shown."""
    app = _with_routes(read_only=True)
    written = await answered(app, path, OURS, method="POST")

    assert (403, True) == (written.status_code, "read-only" in written.text)
    assert 200 == (await answered(app)).status_code


async def test_read_only_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting makes it read-only, unless the platform that mounts it says otherwise."""
    monkeypatch.setenv("RUN_LOG_DASHBOARD_READ_ONLY", "true")

    statuses = [
        (await answered(_with_routes(**given), "/api/v1/probe", OURS, method="POST")).status_code
        for given in ({}, {"read_only": False})
    ]
    assert [403, 200] == statuses


async def _chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1_024)


async def test_a_body_has_a_limit() -> None:
    """A body up to the limit is read, and a longer one is not, whether or not it says how long it is."""
    at_limit, over = [
        await answered(_with_routes(), "/api/v1/probe", OURS, method="POST", content=bytes(size))
        for size in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1)
    ]
    async with client_of(_with_routes()) as client:
        said = {**OURS, "content-length": "1e9"}
        lying = await client.post("/api/v1/probe", headers=said)
        chunked = await client.post("/api/v1/probe", headers=OURS, content=_chunks(65))

    assert {"bytes": MAX_BODY_BYTES} == at_limit.json()
    assert [413, 413, 413] == [answer.status_code for answer in (over, lying, chunked)]


@pytest.mark.parametrize("root", ["/a", "/ops", "/ops/"])
async def test_a_prefix_may_be_left_out_of_paths(root: str) -> None:
    """Behind a proxy that passes its prefix on, or does not, everything is found and errors are ours."""
    transport = httpx2.ASGITransport(app=guarded(), root_path=root)
    async with httpx2.AsyncClient(transport=transport, base_url="http://dashboard") as client:
        for before in ("", root.rstrip("/")):
            shown, kept, missing = [
                await client.get(f"{before}{path}")
                for path in ("/api/v1/workflows", "/static/style.css?v=1", "/api/v1/missing")
            ]

            assert [200, 200, 404] == [answer.status_code for answer in (shown, kept, missing)]
            assert "immutable" in kept.headers["cache-control"]
            assert "application/problem+json" == missing.headers["content-type"]
            assert f"{root.rstrip('/')}/api/v1/missing" == missing.json()["instance"]


@pytest.mark.parametrize("path", ["/", "/api/v1/workflows", "/static/style.css", "/api/v1/stream"])
async def test_head_is_get_without_its_body(path: str) -> None:
    """What can be got says its headers alone, too, and a stream ends with them and takes no place."""
    app = _with_routes()
    async with asyncio.timeout(30):
        answer = await answered(app, path, method="HEAD")

    assert (200, b"") == (answer.status_code, answer.content)
    assert 0 == len(app.state.context.streams)


async def test_a_stream_with_a_body_that_is_too_large() -> None:
    """What is sent with a request for a stream, and nobody reads, ends the stream without an error."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(MAX_BODY_BYTES), "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/stream",
        "headers": [],
        "query_string": b"",
    }
    async with asyncio.timeout(30):
        await _with_routes()(scope, receive, send)

    assert [] == [message for message in sent if message.get("status", 200) != 200]


async def test_strangers_are_told_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Who is refused too often is told to wait, fills no log, and is refused one by one again later."""
    clock = Clock()
    app = guarded(stranger, now=clock)
    first = [(await answered(app, address="203.0.113.9")).status_code for _ in range(BURST + 20)]
    written = len(caplog.records)
    waiting = await answered(app, address="203.0.113.9")
    other = await answered(app, address="203.0.113.10")
    clock.pass_seconds(float(waiting.headers["retry-after"]))
    later = await answered(app, address="203.0.113.9")

    assert [401] * BURST + [429] * 20 == first
    assert BURST >= written > 0
    assert (429, 401, 401) == (waiting.status_code, other.status_code, later.status_code)


async def test_strangers_keep_nobody_out() -> None:
    """Who is signed in is let in, however many strangers come from the same address."""

    async def with_name(connection: HTTPConnection) -> Caller:
        if "x-user" not in connection.headers:
            await stranger(connection)
        return Caller(name="ann")

    app = guarded(with_name, now=Clock())
    strangers = [(await answered(app)).status_code for _ in range(BURST + 1)]

    assert 429 == strangers[-1]
    assert 200 == (await answered(app, headers={"x-user": "ann"})).status_code


def test_the_rate_remembers_a_bounded_number() -> None:
    """However many addresses come, a bounded number is remembered, and of IPv6 a network counts as one."""
    rate = RefusalRate(Clock())
    for number in range(MAX_ADDRESSES + 100):
        rate.wait(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    remembered = len(rate)
    one_network = RefusalRate(Clock())
    waits = [one_network.wait(f"2001:db8::{number:x}") for number in range(BURST + 1)]

    assert MAX_ADDRESSES == remembered
    assert (1, 0.0) == (len(one_network), waits[BURST - 1])
    assert waits[BURST] > 0


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    """The rate takes a clock that goes back for one that stands."""
    clock = Clock()
    rate = RefusalRate(clock)
    rate.wait("a")
    clock.pass_seconds(-3_600)

    assert 0.0 == rate.wait("a")


async def _opened(app: Any, ended: list[int]) -> tuple[asyncio.Task[None], list[Message]]:
    """Return a request for a stream, once it has begun or is refused, and what is sent."""
    sent: list[Message] = []
    began = asyncio.Event()
    asked_for: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not asked_for:
            await asyncio.Event().wait()
        return asked_for.pop()

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            began.set()

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/stream",
        "headers": [(b"host", b"dashboard")],
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 1),
    }

    async def asked() -> None:
        await app(scope, receive, send)
        ended.append(1)

    task = asyncio.create_task(asked())
    async with asyncio.timeout(30):
        await began.wait()
    return task, sent


async def test_so_many_streams_are_open() -> None:
    """One stream more than there may be is told to come again, and has a place once another has ended."""
    app = _with_routes()
    streams = OpenStreams(2)
    app.state.context = replace(app.state.context, streams=streams)
    ended: list[int] = []
    open_ones = [await _opened(app, ended) for _ in range(2)]
    refused_task, refused = await _opened(app, ended)
    await refused_task
    at_most = len(streams)
    open_ones[0][0].cancel()
    await asyncio.gather(open_ones[0][0], return_exceptions=True)
    third, sent = await _opened(app, ended)
    streams.close()
    await asyncio.gather(third, open_ones[1][0])

    assert (503, 2, 0) == (refused[0]["status"], at_most, len(streams))
    assert b"retry-after" in dict(refused[0]["headers"])
    assert 1 == sum(message["type"] == "http.response.start" for message in refused)
    assert 200 == sent[0]["status"]
    assert {"type": "http.response.body", "body": b"", "more_body": False} == sent[-1]


async def test_a_stream_that_nobody_reads_ends() -> None:
    """A stream ends in time, also one whose client takes nothing, and its place is free again."""
    streams = OpenStreams(longest=timedelta(0))
    is_at_the_end = False

    async with streams.ending() as end:
        assert streams.admit(end)
        await asyncio.Event().wait()
        is_at_the_end = True

    assert (False, 0) == (is_at_the_end, len(streams))


async def test_a_server_that_stops_opens_no_stream() -> None:
    """Once streams are ended for good, no other is opened; what is no stream is answered as before."""
    app = _with_routes()
    app.state.context.streams.close()
    task, sent = await _opened(app, [])
    await task

    assert 503 == sent[0]["status"]
    assert 200 == (await answered(app)).status_code


HOSTILE = "<script>alert(1)</script>\"'&{{1234*5678}}"


@pytest.mark.parametrize("auth", [ann, stranger])
@pytest.mark.parametrize("path", [f"/{HOSTILE}", f"/api/v1/{HOSTILE}", f"/?status={HOSTILE}", f"//{HOSTILE}"])
async def test_nothing_is_reflected(auth: Any, path: str) -> None:
    """What stands in a path, a query, a cookie or a header is in no page as a browser would run it."""
    headers = {"cookie": f"a={HOSTILE}", "x-request-id": HOSTILE, "user-agent": HOSTILE}
    answer: httpx2.Response = await answered(guarded(auth), path, headers)

    assert "<script>alert" not in answer.text
    assert "7006652" not in answer.text
    assert HOSTILE not in str(answer.headers)


def test_the_usual_framework_takes_it() -> None:
    """What create_app returns is a FastAPI app, whose document a platform can read."""
    app = guarded()

    assert isinstance(app, FastAPI)
    assert "/api/v1/workflows/{workflow}/runs" in app.openapi()["paths"]
