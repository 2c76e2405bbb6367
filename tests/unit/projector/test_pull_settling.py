from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from run_log.core import (
    ConfigurationError,
    Message,
    Outcome,
    ReceivedMessage,
    StoreUnavailableError,
    TransportRefusedError,
    TransportUnavailableError,
    encode_event,
)
from run_log.projector.pull import absence
from run_log.testing import InMemorySubscription, ManualClock, an_event

from .doubles import (
    JUNK,
    Letters,
    ScriptedStore,
    WatchedSource,
    down,
    eventually,
    logged,
    make_worker,
    published,
    worked_off,
)


async def test_acknowledged_only_when_durable() -> None:
    """While the store works on a batch, nothing of it is acknowledged."""
    source = WatchedSource(published(an_event()))
    store = ScriptedStore()
    store.gate.clear()
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(source, store).run(stop=stop))

    await store.entered.wait()
    before = list(source.acknowledged)
    store.gate.set()
    await eventually(lambda: bool(source.acknowledged))
    stop.set()
    await running

    assert before == []
    assert [source.pulled[0].ack_id] == source.acknowledged


async def test_an_unavailable_store_gives_back_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    """While the store does not answer messages are given back, and none is lost; bad ones are kept once."""
    subscription = published(JUNK, an_event(id="a"), an_event(id="b"))
    source, letters = WatchedSource(subscription), Letters()
    store = ScriptedStore([StoreUnavailableError("busy")] * 3)

    report = await worked_off(make_worker(source, store, letters), subscription)

    assert letters.reasons == ["undecodable"]
    assert await store.get_stats("workflow-1") == {"total": 2, "successful": 2}
    assert report.released == len(source.released) >= 3
    assert report.pulled == report.released + 3
    assert [record["error"] for record in logged(caplog, "run_log_store_unavailable")] == ["busy"] * 3


async def test_waits_for_the_store_grow() -> None:
    """Retries of a store that does not answer are spread over a growing time."""
    ranges: list[tuple[float, float]] = []

    def uniform(shortest: float, longest: float) -> float:
        ranges.append((shortest, longest))
        return 0.0

    store = ScriptedStore([StoreUnavailableError("busy")] * 7)
    subscription = published(an_event())
    await worked_off(make_worker(subscription, store, uniform=uniform), subscription)

    assert [(0, longest) for longest in (1, 2, 4, 8, 16, 30, 30)] == ranges


def _altered(**changes: object) -> Message:
    body = {**json.loads(encode_event(an_event()).data), **changes}
    return Message(data=json.dumps({key: value for key, value in body.items() if value is not None}).encode())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (JUNK, "undecodable"),
        (Message(data=b"[]"), "undecodable"),
        (Message(data=b"\xff\xfe"), "undecodable"),
        (Message(data=b"", attributes={"only": "attributes"}), "undecodable"),
        (_altered(type="somebody.elses.v1"), "unknown_type"),
        (_altered(type="run-log.run-state.v2"), "unsupported_version"),
        (_altered(event_id=None), "invalid_event"),
        (_altered(run={"id": "r", "result": {"\ud800": 1}, "\ud800": 1}), "invalid_event"),
        (_altered(event_id="\ud800"), "invalid_event"),
    ],
)
async def test_what_is_no_event_is_dead_lettered(message: Message, reason: str) -> None:
    """A message that cannot be read is kept with its reason, as it came, and its neighbours are projected."""
    subscription = published(an_event(id="before"), message, an_event(id="after"))
    store, letters = ScriptedStore(), Letters()

    report = await worked_off(make_worker(subscription, store, letters), subscription)

    assert [reason] == letters.reasons
    kept, _, error = letters.kept[0]
    assert (message.data, message.attributes) == (kept.data, kept.attributes)
    assert error
    assert (report.pulled, report.dead_lettered, report.released) == (3, 1, 0)
    assert await store.get_stats("workflow-1") == {"total": 2, "successful": 2}


async def test_neighbours_do_not_wait_for_dead_letters() -> None:
    """Good events are durable and acknowledged while the dead letters beside them are still being kept."""
    subscription = published(JUNK, an_event())

    class Slow(Letters):
        async def put(self, *_: object, **__: object) -> None:
            await eventually(lambda: subscription.backlog == 1)

    report = await worked_off(make_worker(subscription, ScriptedStore(), Slow()), subscription)

    assert (report.outcomes[Outcome.APPLIED], report.dead_lettered, subscription.backlog) == (1, 1, 0)


@pytest.mark.parametrize("error", [down(), TransportRefusedError("no topic; run `run-log provision`")])
async def test_what_cannot_be_kept_comes_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A dead letter that is not kept is not acknowledged: it is given back, and kept when it comes again."""
    subscription = published(JUNK)
    source, letters = WatchedSource(subscription), Letters([error] * 2)

    report = await worked_off(make_worker(source, ScriptedStore(), letters), subscription)

    assert letters.reasons == ["undecodable"]
    assert [message.ack_id for message in source.pulled][:2] == source.released
    assert [source.pulled[2].ack_id] == source.acknowledged
    assert (report.pulled, report.dead_lettered, report.released) == (3, 1, 2)
    assert [str(error)] * 2 == [record["error"] for record in logged(caplog, "run_log_dead_letter_failed")]


async def test_what_the_store_refuses_is_dead_lettered() -> None:
    """An event that the store never takes is dead-lettered with its reason; the others are projected."""
    subscription = published(*(an_event(id=str(number)) for number in range(9)))
    store, letters = ScriptedStore(refuses=lambda event: event.run.id in "37"), Letters()

    report = await worked_off(make_worker(subscription, store, letters), subscription)

    assert [(r.value, error) for _, r, error in letters.kept] == [("write_refused", "too large")] * 2
    assert await store.get_stats("workflow-1") == {"total": 7, "successful": 7}
    assert (report.outcomes[Outcome.APPLIED], report.outcomes[Outcome.REJECTED]) == (7, 2)


async def test_a_failed_acknowledgement_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be acknowledged is delivered again, and changes nothing."""
    subscription = published(an_event())
    store = ScriptedStore()
    source = WatchedSource(subscription, answer_errors=[down()])

    first = await make_worker(source, store).run(stop=asyncio.Event(), until_idle=0.05)
    await subscription.release([source.pulled[0].ack_id])
    second = await worked_off(make_worker(source, store), subscription)

    assert (first.outcomes[Outcome.APPLIED], second.outcomes[Outcome.DUPLICATE]) == (1, 1)
    assert [record["error"] for record in logged(caplog, "run_log_acknowledge_failed")] == ["down"]


async def test_a_failed_release_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """A message that could not be given back ends no work; being idle with it unsettled is no success."""
    source = WatchedSource(published(JUNK, an_event()), answer_errors=[down(), down()])
    worker = make_worker(source, ScriptedStore(), Letters([down()]))

    with pytest.raises(TransportUnavailableError, match="down"):
        await worker.run(stop=asyncio.Event(), until_idle=0.05)

    assert (worker.report.pulled, worker.report.released) == (2, 1)
    assert [record["error"] for record in logged(caplog, "run_log_release_failed")] == ["down"]


async def test_a_store_that_is_not_there_ends_the_work() -> None:
    """A store that needs somebody's action ends run() with its error, and everything is given back."""
    subscription = published(an_event(), an_event())

    with pytest.raises(ConfigurationError, match="no such database"):
        await make_worker(subscription, ScriptedStore([ConfigurationError("no such database")])).run(
            stop=asyncio.Event()
        )

    assert (subscription.backlog, subscription.outstanding) == (2, 0)


class Counted(WatchedSource):
    """A subscription that says of each message that it was delivered so often.

    Args:
        subscription: Has the messages.
        deliveries: How often.
    """

    def __init__(self, subscription: InMemorySubscription, deliveries: int) -> None:
        super().__init__(subscription)
        self._deliveries = deliveries

    async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
        """See `MessageSource.pull`."""
        messages = await super().pull(max_messages, wait=wait)
        return [replace(message, delivery_attempt=self._deliveries) for message in messages]


def test_what_is_given_back_comes_later_and_later() -> None:
    """What is delivered again and again comes at once at first, then after 10 s to 10 minutes."""
    waits = [absence(deliveries) for deliveries in range(46)]

    assert [0.0] * 11 + [10, 20, 40, 80, 160, 320] == waits[:17]
    assert {600.0} == set(waits[17:])
    # An outage is over, or an operator there, before Pub/Sub gives a message up.
    assert sum(waits) > timedelta(hours=4).total_seconds()


async def test_an_outage_of_hours_gives_nothing_up() -> None:
    """While the store is away, what was delivered often stays leased for minutes: each return would count."""
    source = Counted(published(an_event(), an_event()), deliveries=30)
    stop = asyncio.Event()
    running = asyncio.create_task(
        make_worker(source, ScriptedStore([StoreUnavailableError("away")] * 9)).run(stop=stop)
    )
    await eventually(lambda: bool(source.extended))
    pulled = [message.ack_id for message in source.pulled]
    extended, early = list(source.extended), list(source.released)
    stop.set()
    report = await running

    assert ([(pulled, 600.0)], []) == (extended, early)
    assert (pulled, 2) == (source.released, report.released)


async def test_what_stays_away_is_no_silence() -> None:
    """A worker does not end as idle while something that it gave back has yet to come again."""
    clock = ManualClock()

    class Early(Counted):
        pulls = 0

        async def pull(self, max_messages: int, *, wait: float) -> list[ReceivedMessage]:
            self.pulls += 1
            return await super().pull(max_messages, wait=wait)

        async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
            assert seconds == 10
            await super().release(ack_ids)

    source = Early(published(an_event()), deliveries=11)
    store = ScriptedStore([StoreUnavailableError("away")])
    worker = make_worker(source, store, now=clock.monotonic)
    running = asyncio.create_task(worker.run(stop=asyncio.Event(), until_idle=1))
    await eventually(lambda: bool(source.acknowledged))
    clock.advance(2)
    pulls = source.pulls
    await eventually(lambda: source.pulls > pulls + 4 or running.done())
    early = running.done()
    clock.advance(10)
    report = await running

    assert not early
    assert 1 == report.outcomes[Outcome.APPLIED]
