"""The push endpoint as a process of its own, pushed to by the Pub/Sub emulator itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.ports import unused_port

from run_log.core import Message, RunStatus, Settings, encode_event
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_life, a_run, an_event

from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

PATIENCE = 180.0
NOBODY = "127.0.0.1:1"
"""Nobody listens there."""

COMMAND = (sys.executable, "-c", "from run_log.console import main; main()", "projector", "push")


@pytest.fixture
async def reader() -> AsyncIterator[FirestoreRunLogService]:
    """Yield a service that reads what is projected."""
    service = FirestoreRunLogService()
    yield service
    await service.close()


@contextlib.asynccontextmanager
async def _projector(
    port: int, *, once: str = "/ready", **environ: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run the command until the block is left; it begins once the path *once* is answered with 200."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        env={**os.environ, "RUN_LOG_PUSH_AUTH": "iam", **environ},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _answers(port, once):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(port: int, path: str) -> bool:
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
        except httpx2.TransportError:
            return False


def _push_subscription(raw: RawPubSub, port: int, *, wrapped: bool) -> None:
    """Have the emulator push what is published."""
    connection = PubSubConnection.from_settings(raw.settings)
    push: dict[str, Any] = {"push_endpoint": f"http://127.0.0.1:{port}/"}
    if not wrapped:
        push["no_wrapper"] = {"write_metadata": True}
    client = connection.subscriber()
    with client:
        client.create_subscription(
            request={
                "name": connection.subscription_path("pushed"),
                "topic": connection.topic_path(raw.settings.topic),
                "push_config": push,
                "ack_deadline_seconds": 10,
            }
        )


async def _until(service: FirestoreRunLogService, workflow_id: str, stats: dict[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await service.get_stats(workflow_id) != stats:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "unwrapped"])
async def test_the_emulator_pushes(reader: FirestoreRunLogService, wrapped: bool) -> None:  # noqa: FBT001
    """What is pushed can be queried, poison is a dead letter that queries know of, SIGTERM ends it with 0."""
    raw = RawPubSub.provisioned()
    port = unused_port()
    events = [event for n in range(40) for event in a_life("w", f"r{n}")]

    async with _projector(port) as process:
        await asyncio.to_thread(_push_subscription, raw, port, wrapped=wrapped)
        raw.publish([Message(data=b"no json", attributes={"from": "elsewhere"})])
        raw.publish([encode_event(event) for event in (*events, *events)])
        await _until(reader, "w", {"total": 40, "successful": 40})
        (letter,) = await asyncio.to_thread(raw.take, 1, raw.settings.dead_letter_topic)
        async with asyncio.timeout(PATIENCE):
            while not (noted := (await reader.get_notices()).dead_letters):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert 0 == await process.wait()

    assert b"no json" == letter.data
    assert "undecodable" == letter.attributes["run-log-reason"]
    assert [("undecodable", letter.attributes["run-log-message-id"])] == [
        (one.reason, one.message_id) for one in noted
    ]


async def test_two_processes_one_killed(reader: FirestoreRunLogService) -> None:
    """A push endpoint that is killed under load loses nothing: the next one gets it all, counted once."""
    raw = RawPubSub.provisioned()
    port = unused_port()
    events = [an_event(a_run(workflow_id="w", id=f"r{n}", status=RunStatus.SUCCESS)) for n in range(150)]

    async with _projector(port) as process:
        await asyncio.to_thread(_push_subscription, raw, port, wrapped=True)
        raw.publish([encode_event(event) for event in events])
        async with asyncio.timeout(PATIENCE):
            while (await reader.get_stats("w"))["total"] == 0:  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.001)
        process.kill()
        await process.wait()
    async with _projector(port):
        await _until(reader, "w", {"total": 150, "successful": 150})


async def test_a_store_that_is_away_at_first() -> None:
    """While the store is away the endpoint is alive and not ready, and says why; SIGTERM ends it with 0."""
    port = unused_port()

    async with (
        _projector(port, once="/live", FIRESTORE_EMULATOR_HOST=NOBODY) as process,
        httpx2.AsyncClient(timeout=PATIENCE) as client,
    ):
        ready = await client.get(f"http://127.0.0.1:{port}/ready")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()

    assert (503, {"trouble": "the store has not answered yet"}) == (ready.status_code, ready.json())
    assert 0 == code


async def test_a_second_signal_ends_at_once() -> None:
    """Told to stop a second time, the endpoint ends at once with 130, whatever is under way."""
    port = unused_port()
    body = encode_event(an_event()).data

    async with (
        _projector(port, once="/live", FIRESTORE_EMULATOR_HOST=NOBODY) as process,
        httpx2.AsyncClient(timeout=PATIENCE) as client,
    ):
        pushing = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", content=body))
        async with asyncio.timeout(PATIENCE):
            while (await client.get(f"http://127.0.0.1:{port}/lag")).json()["in_hand"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # Two of the same kind might arrive as one.
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()
        await asyncio.gather(pushing, return_exceptions=True)

    assert 130 == code


def _most_memory(pid: int) -> float:
    """Return the most memory that a process had so far, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1_024


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how much memory a process has")
async def test_large_pushes_at_once_stay_within_the_memory() -> None:
    """Forty pushes of 13 MB at once leave a projector below 512 MiB, whatever JSON is in them."""
    RawPubSub.provisioned()
    port = unused_port()
    event = json.loads(encode_event(an_event()).data)
    event["run"]["result"] = {"value": [{}] * 3_200_000}
    data = base64.b64encode(json.dumps(event, separators=(",", ":")).encode()).decode()
    body = json.dumps({"message": {"data": data, "messageId": "1"}}).encode()

    async with _projector(port) as process, httpx2.AsyncClient(timeout=PATIENCE) as client:

        async def pushed() -> int:
            try:
                return (await client.post(f"http://127.0.0.1:{port}/", content=body)).status_code
            except httpx2.TransportError:
                return 429  # refused before all of it was sent

        statuses = set(await asyncio.gather(*(pushed() for _ in range(40))))
        small = await client.post(f"http://127.0.0.1:{port}/", content=encode_event(an_event()).data)
        memory = _most_memory(process.pid)

    assert {204, 429} == statuses
    assert 204 == small.status_code
    assert memory < 512


async def test_a_token_is_asked_for() -> None:
    """With tokens verified by the projector itself, a push without one is not let in, health checks are."""
    port = unused_port()
    verified = {
        "RUN_LOG_PUSH_AUTH": "oidc",
        "RUN_LOG_PUSH_AUDIENCE": "https://projector.example.com",
        "RUN_LOG_PUSH_SERVICE_ACCOUNT": "pusher@project.iam.gserviceaccount.com",
    }
    async with _projector(port, **verified), httpx2.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/", content=b"{}")

        assert 401 == answer.status_code
        assert await _answers(port, "/live")


async def test_it_says_where_events_come_from_and_go_to(emulator_project: str) -> None:
    """The first line of its log says where pushes are taken and where events are written to."""
    port = unused_port()
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--host", "127.0.0.1", "--port", str(port)),
        env={**os.environ, "RUN_LOG_PUSH_AUTH": "iam"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        started = json.loads(await process.stderr.readline())
        process.terminate()
        await process.communicate()

    assert ("INFO", "run_log_projector_started") == (started["severity"], started["message"])
    assert f"pushes to 127.0.0.1:{port}" == started["source"]
    assert f"projects/{emulator_project}/databases/(default)/documents/autopilot_runs" == started["into"]
    assert f"projects/{emulator_project}/topics/run-log-dead-letters" == started["dead_letters"]
    assert 0 == process.returncode


async def test_it_says_what_is_missing() -> None:
    """Without a word on who may push, the command ends at once with 2 and says what to set."""
    assert Settings.from_env().push_auth is None
    process = await asyncio.create_subprocess_exec(*COMMAND, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()

    assert 2 == process.returncode
    assert b"set RUN_LOG_PUSH_AUTH" in said
