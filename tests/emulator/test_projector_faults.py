from __future__ import annotations

import asyncio
import socket

import pytest

from run_log.core import (
    DeadLetterReason,
    ReceivedMessage,
    Settings,
    TransportUnavailableError,
    encode_event,
)
from run_log.projector.google_cloud import pull
from run_log.projector.pubsub import PubSubDeadLetters, PubSubSource
from run_log.pubsub import PubSubConnection
from run_log.testing import an_event

from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

_MESSAGE = ReceivedMessage(data=b"x", attributes={}, message_id="1", ack_id="a")


async def test_a_source_leases_and_answers() -> None:
    """What is pulled is leased; released it comes again, acknowledged it does not. Nothing is fine too."""
    raw = RawPubSub.provisioned()
    raw.publish([encode_event(an_event())])
    source = PubSubSource(raw.connection, raw.settings.subscription)

    (first,) = await _pulled(source)
    leased = raw.is_empty()
    await source.release([first.ack_id])
    raw.publish([encode_event(an_event())])
    others = await _pulled(source, 2)
    await source.acknowledge([message.ack_id for message in others])
    await source.acknowledge([])
    await source.release([])
    nothing = await source.pull(10, wait=0.1)
    await source.close()

    assert leased
    assert [] == nothing
    assert first.message_id in {message.message_id for message in others}
    assert first.data == next(m.data for m in others if m.message_id == first.message_id)
    assert raw.is_empty()


async def test_a_broker_that_does_not_answer_a_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker does not answer in time, a pull does not tell that nothing is there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        source = PubSubSource(PubSubConnection("p"), "s")
        answer = await source.pull(1, wait=0)
        await source.close()

    assert answer is None


async def test_a_dead_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens every call ends with an error that says where it looked."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    connection = PubSubConnection("p")
    source, letters = PubSubSource(connection, "s"), PubSubDeadLetters(connection, "t")

    for call in (
        source.pull(1, wait=5),
        source.acknowledge(["a"]),
        source.release(["a"]),
        letters.put(_MESSAGE, reason=DeadLetterReason.UNDECODABLE, error="no json"),
    ):
        with pytest.raises(TransportUnavailableError, match=r"emulator at 127.0.0.1:1.*is it up"):
            await call
    await source.close()
    await letters.close()


async def test_pulling_from_a_dead_port_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker without a broker does not take its silence for idleness: it fails and says where it looked."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")

    with pytest.raises(TransportUnavailableError, match=r"emulator at 127.0.0.1:1"):
        await pull(Settings.from_env(), stop=asyncio.Event(), until_idle=0.2)

    errors = [
        vars(record)["error"]
        for record in caplog.records
        if vars(record).get("event") == "run_log_pull_failed"
    ]
    assert errors
    assert all("emulator at 127.0.0.1:1" in error for error in errors)


async def _pulled(source: PubSubSource, count: int = 1) -> list[ReceivedMessage]:
    messages: list[ReceivedMessage] = []
    async with asyncio.timeout(60):
        while len(messages) < count:
            messages += await source.pull(count, wait=5) or []
    return messages
