"""The API behind a real server, as clients on the network reach it."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from pathlib import Path

import httpx2
import pytest
from tests.ports import unused_port

from run_log.core import RunStatus
from run_log.core.ids import MAX_ID_BYTES, bounded_id
from run_log.dashboard import create_app
from run_log.dashboard.paths import segment_of
from run_log.http.serving import serving
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

PATIENCE = 60.0
IDS = [
    "a/b",
    "/",
    "a//b",
    "..",
    ".",
    "../..",
    "...",
    ".hidden",
    "-",
    "x:y",
    "runs:watch",
    " ",
    "\n",
    "\t\r\n",
    "\x00",
    "~",
    "~2F",
    "%2F",
    "%",
    "%zz",
    "?a=b",
    "#x",
    ";v=1",
    "\\",
    '"<script>',
    "a+b",
    "é",
    "🦊",
    "\u202e",
    "history",
    "x" * MAX_ID_BYTES,
    "🦊" * (MAX_ID_BYTES // 4),
]


@pytest.mark.search
async def test_any_id_is_reached() -> None:
    """Whatever the text of a workflow's and a run's id is, its run is found, listed, watched and answered."""
    log = InMemoryRunLogService()
    app = create_app(log)
    async with (
        serving(app, host="127.0.0.1", port=0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
    ):
        for text, other in zip(IDS, reversed(IDS), strict=True):
            run = a_run(workflow_id=text, id=other, status=RunStatus.PAUSED)
            await log.save_run(run)
            workflow = f"/api/v1/workflows/{segment_of(text)}"
            path = f"{workflow}/runs/{segment_of(other)}"

            assert run.to_json() == (await client.get(path)).json()
            assert [other] == [each["id"] for each in (await client.get(f"{workflow}/runs")).json()["runs"]]
            assert 1 == len((await client.get(f"{path}/history")).json()["transitions"])
            assert text == (await client.get(f"{workflow}/summary")).json()["workflow_id"]
            body = {"action": "resume", "answered_by": "ann"}
            origin = {"origin": f"http://127.0.0.1:{port}"}
            answered = await client.post(f"{path}/answer", json=body, headers=origin)
            assert (200, "running") == (answered.status_code, answered.json().get("status")), text


async def test_no_answer_waits_for_an_acknowledgement() -> None:
    """A server's connections send at once: head and body of an answer are two packets."""
    async with serving(create_app(InMemoryRunLogService()), host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readline()
        client = writer.get_extra_info("sockname")
        sockets = [one for one in gc.get_objects() if type(one) is socket.socket and one.fileno() >= 0]
        (connection,) = [one for one in sockets if _peer(one) == client]
        sends_at_once = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await writer.wait_closed()

    assert sends_at_once


def _peer(one: socket.socket) -> object:
    try:
        return one.getpeername()
    except OSError:
        return None


async def test_a_longer_id_is_reached() -> None:
    """A run whose id was too long, and was shortened, is found by the long one, which has 1,500 bytes."""
    log = InMemoryRunLogService()
    long = "/" * 1_500
    run = a_run(workflow_id=bounded_id(long), id=bounded_id(long))
    await log.save_run(run)
    async with (
        serving(create_app(log), host="127.0.0.1", port=0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
    ):
        path = f"/api/v1/workflows/{segment_of(long)}/runs/{segment_of(long)}"

        assert run.to_json() == (await client.get(path)).json()


@pytest.mark.parametrize("path", ["~", "~2", "~2f", "~GG", "~FF", "~C3", "a~", "~F0~9F"])
async def test_no_escape_is_guessed(path: str) -> None:
    """What is no escape is refused by the server, wherever it stands."""
    async with (
        serving(create_app(InMemoryRunLogService()), host="127.0.0.1", port=0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
    ):
        for below in (f"{path}/runs", f"{path}/summary", f"w/runs/{path}", f"w/runs/{path}/steps"):
            assert 400 == (await client.get(f"/api/v1/workflows/{below}")).status_code


PROGRAM = """
import sys
import uvicorn
from run_log.dashboard import create_app
from run_log.stores import InMemoryRunLogService

uvicorn.run(create_app(InMemoryRunLogService()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


@pytest.mark.process
async def test_a_server_stops_with_its_streams(tmp_path: Path) -> None:
    """A platform's server that is told to stop ends its streams, for which it would wait for ever."""
    port = unused_port()
    base = f"http://127.0.0.1:{port}"
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, str(port), cwd=tmp_path)
    try:
        async with (
            asyncio.timeout(PATIENCE),
            httpx2.AsyncClient(base_url=base) as client,
        ):
            while True:
                try:
                    await client.get("/api/v1/workflows")
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)
            async with client.stream("GET", "/api/v1/runs:watch", timeout=PATIENCE) as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith("retry:")
                server.terminate()
                rest = [line async for line in lines]
            await server.wait()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()

    assert "event: end" in rest
