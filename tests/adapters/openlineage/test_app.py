"""OpenLineage's HTTP API: what is taken, and what everything else is answered with."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from tests.unit.producer.transports import PATIENCE, ScriptedTransport, logged

from run_log.adapters.openlineage import app, bodies, create_app, recorder
from run_log.core import Message, MessageRefusedError, TransportUnavailableError
from run_log.producer import reset_default_emitter
from run_log.producer._held import BufferLimits
from run_log.producer._store_transport import StoreTransport
from run_log.stores import InMemoryRunLogService, get_run_log_service, reset_run_log_service

from .kit import NOW, URL, an_event, client_of, emitter_to, lines, receiver, tags

BATCH = f"{URL}/batch"


def _problem(answer: Any, status: int) -> str:
    """Return why a request is refused with *status*, by RFC 9457."""
    assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert status == answer.json()["status"]
    return str(answer.json()["detail"])


async def test_an_event_is_stored_before_it_is_answered() -> None:
    """Once an event is answered, queries see it."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        answer = await client.post(URL, json=an_event())
        run = await log.get_run("n/j", "r")

    assert (200, b"") == (answer.status_code, answer.content)
    assert run is not None


async def test_what_is_not_delivered_in_time() -> None:
    """While nothing is delivered, an event is answered with 503, and sent again it is one event."""
    transport = ScriptedTransport(held=True)
    async with receiver(transport=transport, delivery_seconds=0.01) as client:
        late = await client.post(URL, json=an_event())
        transport.let_go()
        again = late
        while again.status_code != 200:
            again = await client.post(URL, json=an_event())

    assert "send it again" in _problem(late, 503)
    assert "1" == late.headers["retry-after"]
    assert 1 == len({event.version for event in transport.events})


async def test_what_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """An event that is refused for good is answered with 503 as well: it is nowhere."""
    transport = ScriptedTransport([MessageRefusedError("never")])
    async with receiver(transport=transport) as client:
        first = await client.post(URL, json=an_event(run_id="trusted"))
        transport._errors = iter([MessageRefusedError("never")])  # pyright: ignore[reportPrivateUsage] - the next call
        refused = await client.post(URL, json=an_event())
        after = await client.post(URL, json=an_event())

    assert (200, 503, 200) == (first.status_code, refused.status_code, after.status_code)
    assert 1 == len(logged(caplog, "run_log_openlineage_failed"))


class _Refusing(StoreTransport):
    """Refuses what it is told to."""

    is_refusing = False

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport`."""
        if self.is_refusing:
            raise MessageRefusedError("not now")
        super().publish(messages)


async def test_what_was_dropped_is_not_taken_as_known() -> None:
    """A late start that was dropped together with what it corrects is as new when it is sent again."""
    log = InMemoryRunLogService()
    transport = _Refusing(lambda: log)
    async with receiver(log, transport) as client:
        answers = [await client.post(URL, json=an_event("COMPLETE", "2026-03-01T10:00:05Z"))]
        transport.is_refusing = True
        answers.append(await client.post(URL, json=an_event()))
        transport.is_refusing = False
        answers.append(await client.post(URL, json=an_event()))
    run = await log.get_run("n/j", "r")

    assert [200, 503, 200] == [answer.status_code for answer in answers]
    assert run is not None
    assert 5_000 == run.duration_ms


async def test_an_outage_that_ends_in_time() -> None:
    """Where delivery is retried and works in time, the sender notices nothing."""
    transport = ScriptedTransport([TransportUnavailableError("away")] * 3)
    async with receiver(transport=transport, delivery_seconds=PATIENCE) as client:
        assert 200 == (await client.post(URL, json=an_event())).status_code


async def test_others_do_not_hold_up() -> None:
    """Many events at once are each answered once it is delivered."""
    log = InMemoryRunLogService()
    async with receiver(log, delivery_seconds=PATIENCE) as client:
        events = [an_event(run_id=str(number)) for number in range(200)]
        answers = await asyncio.gather(*(client.post(URL, json=event) for event in events))

    assert {200} == {answer.status_code for answer in answers}
    assert {"total": 200, "successful": 0} == await log.get_stats("n/j")


async def test_of_one_run_at_once() -> None:
    """Events of one run that arrive at once are joined as if they came one after the other."""
    log = InMemoryRunLogService()
    kinds = [("START", 0), ("OTHER", 1), ("RUNNING", 2), ("COMPLETE", 3)] * 10
    async with receiver(log, delivery_seconds=PATIENCE) as client:
        await asyncio.gather(
            *(
                client.post(
                    URL, json=an_event(kind, f"2026-03-01T10:00:0{second}Z", tags=tags(**{kind.lower(): "1"}))
                )
                for kind, second in kinds
            )
        )
    run = await log.get_run("n/j", "r")

    assert run is not None
    assert ({"start", "other", "running", "complete"}, 3_000) == (set(run.labels), run.duration_ms)


@pytest.mark.parametrize("event", lines("static.jsonl"))
async def test_what_states_no_run(event: dict[str, Any]) -> None:
    """Events of jobs and data sets are taken, as the official client's users expect, and record nothing."""
    log = InMemoryRunLogService()
    async with receiver(log) as client:
        answer = await client.post(URL, json=event)

    assert 200 == answer.status_code
    assert ([], None) == await log.list_workflows()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the body is not JSON"),
        (b"nothing", "the body is not JSON"),
        (b"[]", "post a list of events to .../lineage/batch"),
        (b"{}", "eventTime: Field required"),
        (json.dumps(an_event(at="soon")).encode(), "'soon' is no date and time by RFC 3339"),
        (json.dumps(an_event(at="2027-01-01T00:00:00Z")).encode(), "correct the sender's clock"),
    ],
)
async def test_no_event(content: bytes, told: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no event is answered with 422 and why, and logged."""
    async with receiver() as client:
        answer = await client.post(URL, content=content)

    assert told in _problem(answer, 422)
    assert [422] == [line["status"] for line in logged(caplog, "run_log_openlineage_refused")]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", URL, 405), ("POST", f"{URL}/", 404), ("GET", "/docs", 404)]
)
async def test_other_addresses(method: str, path: str, status: int) -> None:
    """There is nothing else, and errors are problems everywhere."""
    async with receiver() as client:
        _problem(await client.request(method, path), status)


async def test_a_batch() -> None:
    """Of a batch, what is an event is recorded. What is wrong with the rest is said as OpenLineage has it."""
    log = InMemoryRunLogService()
    batch = [
        an_event(),
        {"eventType": "START"},
        *lines("static.jsonl"),
        7,
        an_event("COMPLETE", "2026-03-01T10:00:01Z"),
    ]
    async with receiver(log) as client:
        answer = await client.post(BATCH, json=batch)
        stats = await log.get_stats("n/j")

    assert 200 == answer.status_code
    body = answer.json()
    assert "partial_success" == body["status"]
    assert {"received": 6, "successful": 4, "failed": 2, "retriable": 0, "non_retriable": 2} == body[
        "summary"
    ]
    assert [(1, False), (4, False)] == [(each["index"], each["retriable"]) for each in body["failed_events"]]
    assert "run: Field required" in body["failed_events"][0]["reason"]
    assert {"total": 1, "successful": 1} == stats


@pytest.mark.parametrize("batch", [[], [an_event()]])
async def test_a_batch_without_faults(batch: list[dict[str, Any]]) -> None:
    """A batch of events alone is a success, and so is an empty one."""
    async with receiver() as client:
        body = (await client.post(BATCH, json=batch)).json()

    assert ("success", len(batch), []) == (
        body["status"],
        body["summary"]["successful"],
        body["failed_events"],
    )


async def test_no_batch() -> None:
    """A batch that is no list is refused whole."""
    async with receiver() as client:
        assert "a batch is a list of events, not a dict" in _problem(
            await client.post(BATCH, json=an_event()), 422
        )


async def test_a_batch_of_many() -> None:
    """A batch that does not fit into the emitter's buffer is recorded whole, in parts."""
    log = InMemoryRunLogService()
    batch = [an_event(run_id=str(number)) for number in range(2 * recorder.AT_ONCE + 1)]
    limits = BufferLimits(events=recorder.AT_ONCE)
    with emitter_to(StoreTransport(lambda: log), limits=limits) as emitter:
        app = create_app(log, emitter=emitter, delivery_seconds=PATIENCE, now=lambda: NOW)
        async with client_of(app) as client:
            assert 200 == (await client.post(BATCH, json=batch)).status_code

    assert len(batch) == (await log.get_stats("n/j"))["total"]


async def test_a_batch_that_is_not_delivered() -> None:
    """A batch of which anything is not delivered is answered with 503: all of it is to be sent again."""
    async with receiver(transport=ScriptedTransport(held=True), delivery_seconds=0.01) as client:
        _problem(await client.post(BATCH, json=[an_event()]), 503)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_gzip(encoding: str) -> None:
    """A body may be packed, in several members too."""
    log = InMemoryRunLogService()
    text = json.dumps(an_event()).encode()
    async with receiver(log) as client:
        for packed in (gzip.compress(text, 3), gzip.compress(text[:9]) + gzip.compress(text[9:])):
            answer = await client.post(URL, content=packed, headers={"content-encoding": encoding})
            assert 200 == answer.status_code, answer.text

    assert 1 == (await log.get_stats("n/j"))["total"]


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (gzip.compress(b"{}")[:-3], "gzip", 422),
        (b"{}", "gzip", 422),
        (b"", "gzip", 422),
        (gzip.compress(b"{}") + b"!", "gzip", 422),
        (b"{}", "br", 415),
        (b"{}", "gzip, gzip", 415),
    ],
    ids=["cut", "not packed", "empty", "more behind", "another encoding", "two encodings"],
)
async def test_what_cannot_be_unpacked(content: bytes, encoding: str, status: int) -> None:
    """What is not packed as its header says is refused."""
    async with receiver() as client:
        _problem(await client.post(URL, content=content, headers={"content-encoding": encoding}), status)


async def _endless() -> AsyncGenerator[bytes]:
    while True:
        yield b" " * 2**16


@pytest.mark.parametrize("path", [URL, BATCH])
async def test_large_bodies(path: str) -> None:
    """A body has a most size, packed or not, whether it says its length or none, and is not read beyond."""
    packed = gzip.compress(b" " * (bodies.MAX_BODY_BYTES + 1))
    async with receiver() as client:
        answers = [
            await client.post(path, content=b" " * (bodies.MAX_BODY_BYTES + 1)),
            await client.post(path, content=_endless()),
            await client.post(path, content=packed, headers={"content-encoding": "gzip"}),
            await client.post(path, content=b"", headers={"content-length": "9" * 30}),
        ]

    assert 2**16 > len(packed)
    assert all("16777216 bytes, unpacked" in _problem(answer, 413) for answer in answers)


async def test_what_is_in_hand_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies have so much room together; what is beyond is to be sent again, and the room is given back."""
    monkeypatch.setattr(bodies, "MAX_BYTES_IN_HAND", 2_000)
    transport = ScriptedTransport(held=True)
    padded = {**an_event(), "inputs": ["x" * 1_500]}
    async with receiver(transport=transport, delivery_seconds=PATIENCE) as client:
        first = asyncio.create_task(client.post(URL, json=padded))
        await asyncio.to_thread(transport.entered.wait, PATIENCE)
        second = await client.post(URL, json=padded)
        transport.let_go()
        answers = [await first, await client.post(URL, json=padded)]

    assert "too much is in hand" in _problem(second, 503)
    assert [200, 200] == [answer.status_code for answer in answers]


async def test_a_body_that_does_not_come() -> None:
    """A body that does not arrive in time is given up."""

    async def stalling() -> AsyncGenerator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    reader = bodies.Bodies(read_seconds=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "Bodies", lambda: reader)
        async with receiver() as client:
            request = client.build_request("POST", URL, content=stalling())
            answer = await client.send(request)

    assert "did not arrive in time" in _problem(answer, 408)
    assert 0 == reader._in_hand  # pyright: ignore[reportPrivateUsage] - it cannot be seen


async def test_data_sets_are_not_kept() -> None:
    """However many data sets an event lists, nothing of them is kept."""
    log = InMemoryRunLogService()
    inputs = [{"namespace": "canary17", "name": f"t{number}"} for number in range(50_000)]
    async with receiver(log, delivery_seconds=PATIENCE) as client:
        assert (
            200
            == (await client.post(URL, json={**an_event(), "inputs": inputs, "outputs": inputs})).status_code
        )
    record = await log.get_record("n/j", "r")

    assert "canary17" not in repr(record)


async def test_the_environment_s_run_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments, an app records into what the environment names, and reads it there."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "memory")
    reset_run_log_service()
    reset_default_emitter()
    try:
        async with client_of(create_app(now=lambda: NOW)) as client:
            await client.post(URL, json=an_event())
            await client.post(URL, json=an_event("COMPLETE", "2026-03-01T10:00:01Z"))
        run = await get_run_log_service().get_run("n/j", "r")
    finally:
        reset_default_emitter()
        reset_run_log_service()

    assert run is not None
    assert 1_000 == run.duration_ms


async def test_a_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong unforeseen is answered without what it says."""

    async def failing(connection: HTTPConnection) -> None:
        raise KeyError(f"canary18 {connection.url}")

    async with receiver(auth=failing) as client:
        answer = await client.post(URL, json=an_event())

    assert "canary18" not in _problem(answer, 500)
    assert [] == logged(caplog, "run_log_openlineage_failed")
