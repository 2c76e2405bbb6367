"""What does not answer is told soon, with what was tried: refused, silent, nowhere, or stuck."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from run_log.console.work.doctor import examine
from run_log.console.work.opening import REACH_SECONDS, opened_run_log, opened_store, reached
from run_log.core import ConfigurationError, Settings, StoreUnavailableError, TransportUnavailableError
from run_log.pubsub import PubSubConnection
from run_log.stores.firestore import Connection

from .processes import run_log

TOLD_SECONDS = 5
"""After which a user has to know: what starts the process comes on top of what is waited for."""

BOUND = 0.2
"""How long a test waits for what never answers."""


PATIENCE = 30.0


@asynccontextmanager
async def _refused() -> AsyncGenerator[str]:
    """Yield where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@asynccontextmanager
async def _silent() -> AsyncGenerator[str]:
    """Yield where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def _nowhere() -> AsyncGenerator[str]:
    """Yield a name that nobody has (https://www.rfc-editor.org/rfc/rfc6761#section-6.4)."""
    yield "nowhere.invalid:1"


Answer = Callable[[Any], Awaitable[bytes]]


async def _never(_context: Any) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def _denies(context: Any) -> bytes:
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
    raise AssertionError


class _Calls:
    """Takes every call, and answers each alike."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, handler_call_details: object) -> Any:
        """Return what answers a call."""

        async def one(_request: bytes, context: object) -> bytes:
            return await self._answer(context)

        async def several(_request: bytes, context: object) -> AsyncIterator[bytes]:
            yield await self._answer(context)

        streams = "BatchGet" in getattr(handler_call_details, "method", "")
        make: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(several if streams else one)


@asynccontextmanager
async def _serving(answer: Answer) -> AsyncGenerator[str]:
    """Yield where a server takes calls."""
    server: Any = grpc.aio.server()
    server.add_generic_rpc_handlers([_Calls(answer)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def _stuck() -> AsyncGenerator[str]:
    """Yield where a server takes calls, and never answers one."""
    async with _serving(_never) as away:
        yield away


@pytest.fixture(params=[_refused, _silent, _nowhere, _stuck], ids=lambda make: make.__name__[1:])
async def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Yield where neither Firestore nor Pub/Sub is, for both to be looked for there."""
    async with request.param() as away:
        for name in ("FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"):
            monkeypatch.setenv(name, away)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
        yield away


async def test_firestore_that_does_not_answer(host: str) -> None:
    """A Firestore that does not answer within the time given is told with host, project and database."""
    connection = Connection("p", "d")

    with pytest.raises(StoreUnavailableError) as caught:
        await connection.reach("runs", BOUND)
    await connection.close()

    assert f"(emulator at {host}, project 'p', database 'd') does not answer" in str(caught.value)


async def test_pubsub_that_does_not_answer(host: str) -> None:
    """A Pub/Sub that does not answer within the time given is told with host and project."""
    connection = PubSubConnection("p")

    for resource in (connection.topic_path("t"), connection.subscription_path("s")):
        with pytest.raises(TransportUnavailableError) as caught:
            await asyncio.to_thread(connection.reach, resource, BOUND)
        assert f"(emulator at {host}, project 'p') does not answer" in str(caught.value)


async def test_who_may_not_look_has_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pub/Sub that lets nobody look answers: who may publish or pull need not be one who may look."""
    async with _serving(_denies) as here:
        for name in ("FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"):
            monkeypatch.setenv(name, here)
        broker, database = PubSubConnection("p"), Connection("p", None)

        for resource in (broker.topic_path("t"), broker.subscription_path("s")):
            await asyncio.to_thread(broker.reach, resource, PATIENCE)
        with pytest.raises(ConfigurationError, match="denies access"):
            await database.reach("runs", PATIENCE)
        await database.close()


@pytest.mark.parametrize("opened", [opened_run_log, opened_store])
async def test_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, opened: Callable[[], Any]) -> None:
    """What a command would read is not opened where nobody answers."""
    async with _refused() as away:
        monkeypatch.setenv("RUN_LOG_BACKEND", "firestore")
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", away)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")

        with pytest.raises(StoreUnavailableError, match=away):
            async with opened():
                raise AssertionError


async def test_the_doctor_looks_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor tells each service that does not answer, once, and tries nothing else of it."""
    async with _refused() as away:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", away)
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", away)
        settings = Settings(backend="firestore", project="p")

        checks = {check.name: check async for check in examine(settings, probe=60.0)}

    assert ["settings", "credentials", "Pub/Sub", "Firestore"] == list(checks)
    assert all(away in checks[name].found and checks[name].remedy for name in ("Pub/Sub", "Firestore"))


async def test_who_waits_is_told_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes longer than a moment, and nothing else, is told on stderr, and how long it may take."""
    answered, said = asyncio.Event(), asyncio.Event()

    async def reach(seconds: float) -> None:
        assert REACH_SECONDS == seconds
        await answered.wait()

    async def answer() -> None:
        # The line is due now, and comes before what is scheduled after it.
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0, said.set)
        await said.wait()
        answered.set()

    async def refuse(_seconds: float) -> None:
        raise StoreUnavailableError("refused")

    with pytest.raises(StoreUnavailableError):
        await reached("here", refuse)
    await asyncio.gather(reached("Firestore (here)", reach, told_after=0), answer())

    assert ("", "waiting for Firestore (here), 3 s at most\n") == capsys.readouterr()


@pytest.mark.search  # each waits for seconds
@pytest.mark.parametrize(
    ("backend", "command"),
    [
        ("firestore", ("runs", "list", "w")),
        ("sqlite", ("dead-letters", "list")),
        ("pubsub", ("emit", "w")),
    ],
)
def test_commands_say_so_in_time(backend: str, command: tuple[str, ...], tmp_path: Path) -> None:
    """Against a server that takes connections and says nothing, commands exit 5 in time, having said why."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        away = f"127.0.0.1:{listening.getsockname()[1]}"
        ended = run_log(
            *command,
            folder=tmp_path,
            RUN_LOG_BACKEND=backend,
            FIRESTORE_EMULATOR_HOST=away,
            PUBSUB_EMULATOR_HOST=away,
            GOOGLE_CLOUD_PROJECT="p",
        )

    assert TOLD_SECONDS > REACH_SECONDS + 1
    assert (5, "") == (ended.code, ended.out)
    waiting, why = ended.err.splitlines()
    assert waiting.startswith("waiting for ")
    assert why.startswith("run-log: ")
    assert waiting.endswith(f", {REACH_SECONDS:g} s at most")
    assert f"emulator at {away}, project 'p'" in waiting
    assert f"emulator at {away}, project 'p'" in why
