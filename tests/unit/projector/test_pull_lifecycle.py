from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from google.api_core import exceptions as google_errors
from google.pubsub_v1 import PullResponse

from run_log.core import (
    ConfigurationError,
    Message,
    Outcome,
    ReceivedMessage,
    RunEvent,
    StoreError,
    StoreUnavailableError,
    TransportRefusedError,
    encode_event,
)
from run_log.projector import GroupLimits, PullLimits, PullWorker
from run_log.projector.dead_letters.leased import PULL_SECONDS, STOP_SECONDS
from run_log.projector.pubsub import ANSWER_SECONDS, PubSubSource
from run_log.pubsub import PubSubConnection
from run_log.testing import InMemorySubscription, InMemoryTopic, ManualClock, an_event

from .doubles import (
    JUNK,
    CountedSource,
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
from .groups import turns


async def _one_turn(_seconds: float) -> None:
    await asyncio.sleep(0)


def _longest(_shortest: float, longest: float) -> float:
    return longest


class Timed(WatchedSource):
    """A subscription that answers at once, and whose pulls take so many seconds by a clock."""

    def __init__(self, subscription: InMemorySubscription, clock: ManualClock, seconds: float) -> None:
        super().__init__(subscription)
        self._clock = clock
        self._seconds = seconds
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        self.asked.set()
        await self.answers.wait()
        await turns(100)
        messages = await super().pull(max_messages, wait=wait * 0)
        self._clock.advance(self._seconds)
        return messages


def _timed(source: WatchedSource, clock: ManualClock, store: ScriptedStore, **limits: Any) -> PullWorker:
    return make_worker(
        source, store, limits=PullLimits(pulls=1, messages=1, **limits), now=clock.monotonic, sleep=_one_turn
    )


async def test_failing_pulls_are_backed_off_and_recovered(caplog: pytest.LogCaptureFixture) -> None:
    """Pulls that fail are tried again after a growing wait, and what waits meanwhile is projected."""
    sleeps: list[float] = []
    store = ScriptedStore()

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        await asyncio.sleep(0)

    stop = asyncio.Event()
    source = WatchedSource(published(an_event()), pull_errors=[down()] * 8)
    worker = make_worker(
        source,
        store,
        limits=PullLimits(pulls=1, stop_seconds=0.01),
        sleep=sleep,
        uniform=_longest,
    )
    running = asyncio.create_task(worker.run(stop=stop))
    await eventually(lambda: bool(source.acknowledged))
    stop.set()
    report = await running

    # What comes after is no wait for the broker.
    assert sleeps[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert report.outcomes[Outcome.APPLIED] == 1
    assert list(range(1, 9)) == [record["failures"] for record in logged(caplog, "run_log_pull_failed")]


async def test_a_refused_pull_ends_the_work() -> None:
    """A subscription that is not there ends run() with that error."""
    source = WatchedSource(published(), pull_errors=[TransportRefusedError("run `run-log provision`")])

    with pytest.raises(TransportRefusedError, match="run-log provision"):
        await make_worker(source, ScriptedStore()).run(stop=asyncio.Event())


async def test_a_refused_pull_gives_back_what_is_in_hand() -> None:
    """When the subscription is taken away, what is in the store's hands and what waits is given back."""
    subscription = published(*(an_event() for _ in range(9)))
    store = ScriptedStore()
    store.gate.clear()

    class Vanishing(WatchedSource):
        async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
            if self.pulled:
                await store.entered.wait()
                raise TransportRefusedError("gone")
            return await super().pull(max_messages, wait=wait)

        async def release(self, ack_ids: Sequence[str]) -> None:
            await turns(20 if self.released else 0)
            await super().release(ack_ids)

    source = Vanishing(subscription)
    worker = make_worker(
        source, store, limits=PullLimits(pulls=1, group=GroupLimits(batch=4), drain_seconds=0.01)
    )
    with pytest.raises(TransportRefusedError, match="gone"):
        await worker.run(stop=asyncio.Event())

    assert sorted(message.ack_id for message in source.pulled) == sorted(source.released)
    assert (subscription.backlog, subscription.outstanding) == (9, 0)
    assert worker.report.released == 9


@pytest.mark.parametrize("ends", [True, False], ids=["in time", "never"])
async def test_stop_finishes_what_ends_in_time(*, ends: bool) -> None:
    """Told to stop, a worker projects what it has; if the store hangs, it gives all back after its time."""
    subscription = published(*(an_event(id=str(number)) for number in range(9)))
    store = ScriptedStore()
    store.gate.clear()
    stop = asyncio.Event()
    drain = 30 if ends else 0.01
    limits = PullLimits(group=GroupLimits(batch=2), stop_seconds=0.01, drain_seconds=drain)
    running = asyncio.create_task(make_worker(subscription, store, limits=limits).run(stop=stop))
    await store.entered.wait()

    stop.set()
    if ends:
        store.gate.set()
    report = await running

    assert ((9, 0) if ends else (0, 9)) == (report.outcomes[Outcome.APPLIED], report.released)
    assert (report.released, 0) == (subscription.backlog, subscription.outstanding)


async def test_a_worker_can_run_again() -> None:
    """A worker whose first run gave everything back projects it in the second, once."""
    subscription = published(an_event())
    store = ScriptedStore()
    store.gate.clear()
    stop = asyncio.Event()
    limits = PullLimits(pull_seconds=0.01, stop_seconds=0.01, drain_seconds=0.01)
    worker = make_worker(subscription, store, limits=limits)
    running = asyncio.create_task(worker.run(stop=stop))
    await store.entered.wait()
    stop.set()
    await running

    store.gate.set()
    report = await worker.run(stop=asyncio.Event(), until_idle=0.05)

    assert (report.pulled, report.released, report.outcomes[Outcome.APPLIED]) == (2, 1, 1)
    assert subscription.backlog == 0


async def test_stop_during_a_backoff() -> None:
    """A worker that waits for a broker or a store to come back stops at once."""
    slept = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        slept.set()
        await asyncio.Event().wait()

    stop = asyncio.Event()
    source = WatchedSource(published(), pull_errors=[down()])
    limits = PullLimits(pulls=1, stop_seconds=0.01)
    running = asyncio.create_task(
        make_worker(source, ScriptedStore(), limits=limits, sleep=sleep).run(stop=stop)
    )
    await slept.wait()

    stop.set()

    assert (await running).pulled == 0


async def test_until_idle_counts_from_the_last_arrival() -> None:
    """The worker ends by itself once nothing has arrived for as long as it is told, and not before."""
    clock = ManualClock()
    source = Timed(published(*(an_event(id=str(number)) for number in range(3))), clock, 4)

    report = await _timed(source, clock, ScriptedStore()).run(stop=asyncio.Event(), until_idle=10)

    assert report.pulled == 3
    assert clock.monotonic() >= 4 * 3 + 10


@pytest.mark.parametrize("answers", [True, False], ids=["slowly", "never"])
async def test_until_idle_waits_for_a_slow_broker(*, answers: bool) -> None:
    """A broker that takes longer to answer than the worker may be idle is waited for, but not for ever."""
    clock = ManualClock()
    clock.advance(1_000)
    source = Timed(published(*(an_event(id=str(number)) for number in range(9))), clock, 2)
    source.answers.clear()
    worker = _timed(source, clock, ScriptedStore(), answer_seconds=5, stop_seconds=0.01)
    running = asyncio.create_task(worker.run(stop=asyncio.Event(), until_idle=1))
    await source.asked.wait()
    clock.advance(4)
    await turns(100)
    early = running.done()
    if answers:
        source.answers.set()
    else:
        clock.advance(1)

    assert (9 if answers else 0) == (await running).pulled
    assert not early


async def test_until_idle_counts_from_when_there_was_room() -> None:
    """While there is no room for more nothing can arrive: that is no silence, however long it lasts."""
    clock = ManualClock()
    source = Timed(published(*(an_event(id=str(number)) for number in range(9))), clock, 0.1)

    class Slow(ScriptedStore):
        async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
            clock.advance(3_600)
            return await super().apply(events)

    worker = _timed(source, clock, Slow(), group=GroupLimits(messages=1))
    report = await worker.run(stop=asyncio.Event(), until_idle=1)

    assert (9, 9) == (report.pulled, report.outcomes[Outcome.APPLIED])


async def test_until_idle_waits_for_what_is_in_hand() -> None:
    """However long the store takes, an idle worker does not end before what it has is projected."""
    clock = ManualClock()
    source = WatchedSource(published(an_event()))
    store = ScriptedStore()
    store.gate.clear()
    worker = make_worker(source, store, now=clock.monotonic, sleep=_one_turn)
    running = asyncio.create_task(worker.run(stop=asyncio.Event(), until_idle=1))
    await store.entered.wait()
    clock.advance(3_600)
    await turns(100)
    early = running.done()
    store.gate.set()
    await eventually(lambda: bool(source.acknowledged))
    clock.advance(3_600)

    assert 1 == (await running).outcomes[Outcome.APPLIED]
    assert not early


async def test_what_waits_is_bounded() -> None:
    """While the store hangs, pulling pauses: no more is leased than what waits, is pulled and is in hand."""
    subscription = published(*(an_event() for _ in range(100)))
    store = ScriptedStore()
    store.gate.clear()
    limits = PullLimits(
        pulls=2, messages=5, group=GroupLimits(batch=3, messages=10), stop_seconds=0.01, drain_seconds=0.01
    )
    source = WatchedSource(subscription)
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(source, store, limits=limits).run(stop=stop))

    await eventually(lambda: len(source.pulled) >= 10)
    for _ in range(100):
        await asyncio.sleep(0)
    held = subscription.outstanding
    stop.set()
    await running

    assert 10 <= held <= 10 + 2 * 5 + 3
    assert subscription.outstanding == 0


async def test_large_messages_come_as_there_is_room_for_them() -> None:
    """However many pulls there are, those under way bring no more large bodies than there is room for."""
    size = 10_000
    subscription = published(*(Message(data=b"x" * size) for _ in range(20)))

    class Slow(WatchedSource):
        under_way = most = 0

        async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
            self.under_way += 1
            if self.pulled:
                self.most = max(self.most, self.under_way)
            await turns(20)
            try:
                return await super().pull(max_messages, wait=wait)
            finally:
                self.under_way -= 1

    source = Slow(subscription)
    limits = PullLimits(pulls=4, pull_seconds=0.01, group=GroupLimits(data_bytes=2 * size))
    worker = make_worker(source, ScriptedStore(), limits=limits)
    await worked_off(worker, subscription)

    assert 20 == worker.report.dead_lettered
    assert source.most <= 2


async def test_a_cancelled_worker_gives_everything_back() -> None:
    """A worker that is cancelled, also while a dead letter is kept, leaves nothing leased and no pull."""
    entered = asyncio.Event()

    class Hanging(Letters):
        async def put(self, *_: object, **__: object) -> None:
            entered.set()
            await asyncio.Event().wait()

    topic = InMemoryTopic()
    subscription = topic.subscribe()
    store = ScriptedStore()
    store.gate.clear()
    running = asyncio.create_task(make_worker(subscription, store, Hanging()).run(stop=asyncio.Event()))
    topic.publish([encode_event(an_event()), JUNK])
    await store.entered.wait()
    await entered.wait()

    running.cancel()
    await asyncio.wait({running})
    topic.publish([encode_event(an_event())])

    assert running.cancelled()
    assert len(asyncio.all_tasks()) == 1
    assert (subscription.backlog, subscription.outstanding) == (3, 0)


_PATIENT = PullLimits(pulls=2, pull_seconds=0.05, stop_seconds=60)


@pytest.mark.parametrize("end", ["stop", "idle", "cancelled", "refused", "store gone"])
async def test_no_pull_is_cut_off(end: str) -> None:
    """However the work ends, pulls under way end by themselves: cut off, they would go on at the broker."""
    refused = [down(), TransportRefusedError("gone")] if end == "refused" else []
    source = CountedSource(published(an_event()) if end == "store gone" else published(), pull_errors=refused)
    store = ScriptedStore([ConfigurationError("no database")])
    stop = asyncio.Event()
    worker = make_worker(source, store, limits=_PATIENT)
    running = asyncio.create_task(worker.run(stop=stop, until_idle=0.01 if end == "idle" else None))
    await eventually(lambda: source.begun >= 2)
    if end == "stop":
        stop.set()
    if end == "cancelled":
        running.cancel()
    await asyncio.wait({running})

    assert 0 == source.cut_off
    assert 1 == len(asyncio.all_tasks())


async def test_what_the_last_pull_brings_is_finished() -> None:
    """What comes while the worker waits for its last pulls is projected, not left leased."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    source = CountedSource(subscription)
    store = ScriptedStore()
    stop = asyncio.Event()
    limits = PullLimits(pulls=1, pull_seconds=60, stop_seconds=60)
    running = asyncio.create_task(make_worker(source, store, limits=limits).run(stop=stop))
    await eventually(lambda: source.begun == 1)
    stop.set()
    await turns(10)
    topic.publish([encode_event(an_event())])
    report = await running

    assert (1, 0) == (report.outcomes[Outcome.APPLIED], report.released)
    assert (1, 0, 0) == (source.begun, subscription.backlog, subscription.outstanding)


async def test_no_answer_is_no_silence() -> None:
    """A pull that the broker did not answer in time does not mean that nothing is there."""
    clock = ManualClock()
    source: Any = WatchedSource(published(an_event()))
    answered, unanswered_until = source.pull, clock.monotonic() + 4

    async def pull(max_messages: int, *, wait: float) -> Sequence[ReceivedMessage] | None:
        clock.advance(1.1)
        await asyncio.sleep(0)
        return await answered(max_messages, wait=wait * 0) if clock.monotonic() > unanswered_until else None

    source.pull = pull
    limits = PullLimits(pulls=1, answer_seconds=5)
    worker = make_worker(source, ScriptedStore(), limits=limits, now=clock.monotonic, sleep=_one_turn)
    report = await worker.run(stop=asyncio.Event(), until_idle=1)

    assert 1 == report.pulled


async def test_pulls_end_when_it_may_be_idle() -> None:
    """No pull waits for much longer than until the worker may end: it would have to wait for it."""
    source = CountedSource(published())
    worker = make_worker(source, ScriptedStore(), limits=PullLimits(pulls=1))

    await worker.run(stop=asyncio.Event(), until_idle=0.02)

    assert {0.5} == set(source.waits)


@pytest.mark.parametrize(
    ("pull", "stop"),
    [
        (PullLimits().pull_seconds, PullLimits().stop_seconds),
        (PULL_SECONDS, STOP_SECONDS),
    ],
)
def test_stopping_waits_for_longer_than_a_pull_takes(pull: float, stop: float) -> None:
    """Whoever stops has the time to let the longest pull end by itself."""
    assert stop > pull + ANSWER_SECONDS


class _AskedSource(WatchedSource):
    """A subscription that knows for how many messages it was asked."""

    def __init__(self, subscription: InMemorySubscription) -> None:
        super().__init__(subscription)
        self.asked: list[int] = []

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        self.asked.append(max_messages)
        return await super().pull(max_messages, wait=wait)


async def test_few_are_asked_for_until_they_are_known_to_be_small() -> None:
    """First pulls ask for few messages, as if they were large; as many more as they turn out to be small."""
    subscription = published(*(an_event(id=f"r{number}") for number in range(500)))
    source = _AskedSource(subscription)
    limits = PullLimits(pulls=4, pull_seconds=0.01, stop_seconds=0.01)

    await worked_off(make_worker(source, ScriptedStore(), limits=limits), subscription)

    assert max(source.asked[:4]) * 4 * 2**20 <= limits.group.data_bytes
    assert max(source.asked) > 100


async def test_large_messages_are_asked_for_one_at_a_time() -> None:
    """Of messages of 10 MB no pull asks for more than one, and no more are in hand than there is room for."""
    large = Message(data=b"x" * 10_000_000)
    subscription = published(*([large] * 30))
    source = _AskedSource(subscription)
    worker = make_worker(source, ScriptedStore(), limits=PullLimits(pulls=2, pull_seconds=0.01))

    report = await worked_off(worker, subscription)

    assert 30 == report.dead_lettered
    assert {1} == set(source.asked[4:])


class _Vendor(PubSubConnection):
    """Answers pulls with messages of a size, or not at all, and knows how many were asked for."""

    def __init__(self, size: int) -> None:
        self.project = "p"
        self.size = size
        self.too_large_above = 1_000
        self.asked: list[int] = []

    def async_subscriber(self) -> Any:
        """Return itself."""
        return self

    async def pull(self, *, request: dict[str, Any], **_options: Any) -> Any:
        """See the vendor's client."""
        asked = request["max_messages"]
        self.asked.append(asked)
        if asked > self.too_large_above:
            raised: Any = google_errors.ResourceExhausted  # not annotated
            raise raised("CLIENT: Received message larger than max (9 vs. 8)")
        message = {"data": b"x" * self.size, "message_id": "1"}
        return PullResponse(
            received_messages=[{"ack_id": "a", "message": message}] * (asked if self.size else 0)
        )


async def test_an_answer_of_pubsub_is_bounded() -> None:
    """More messages are asked of Pub/Sub as they are small, and one where an answer was too large to take."""
    vendor = _Vendor(1_000)
    source = PubSubSource(vendor, "s")

    for _ in range(12):
        await source.pull(1_000, wait=0)
    vendor.too_large_above = 10
    none = await source.pull(1_000, wait=0)
    one = await source.pull(1_000, wait=0)
    for _ in range(5):
        await source.pull(1_000, wait=0)
    vendor.size = 0
    vendor.too_large_above = 1_000
    await source.pull(1_000, wait=0)
    vendor.size = 9_000_000
    for _ in range(3):
        await source.pull(1_000, wait=0)

    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000] == vendor.asked[:12]
    assert (None, [1_000, 1]) == (none, vendor.asked[12:14])
    assert one is not None
    assert 1 == len(one)
    assert [1, 1, 1] == vendor.asked[-3:]


@pytest.mark.parametrize("at", ["pull", "acknowledge"])
async def test_what_nobody_foresaw_does_not_end_a_worker(at: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the broker's client that nobody foresaw is tried again, and told by its name alone."""
    subscription = published(*(an_event(id=f"r{number}") for number in range(5)))
    error = KeyError("secret")
    source = WatchedSource(
        subscription,
        pull_errors=[error] if at == "pull" else [],
        answer_errors=[error] if at == "acknowledge" else [],
    )
    store = ScriptedStore()

    worker = make_worker(source, store)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop=stop))
    await eventually(lambda: sum(worker.report.outcomes.values()) >= 5)
    stop.set()
    await running

    assert {"total": 5, "successful": 5} == await store.get_stats("workflow-1")
    event = f"run_log_{at}_failed"
    assert ["KeyError" in line["error"] for line in logged(caplog, event)] == [True]
    assert "secret" not in str([vars(record) for record in caplog.records])


async def test_a_store_that_fails_as_nobody_foresaw_does_not_end_a_worker() -> None:
    """A worker goes on after an error of the store that nobody foresaw; an idle one ends with it."""
    subscription = published(*(an_event(id=f"r{number}") for number in range(5)))
    store = ScriptedStore([KeyError("x")])

    await worked_off(make_worker(WatchedSource(subscription), store), subscription)
    broken = make_worker(WatchedSource(published(an_event())), ScriptedStore([KeyError("x")] * 10_000))
    with pytest.raises(StoreError, match="projecting failed with KeyError"):
        await broken.run(stop=asyncio.Event(), until_idle=0.1)

    assert {"total": 5, "successful": 5} == await store.get_stats("workflow-1")


async def test_an_idle_worker_whose_store_is_away_ends_with_that() -> None:
    """A worker that ends when idle does not wait for a store that is away, whatever comes again."""
    subscription = published(an_event())
    backing_off = asyncio.Event()
    longest = 12.5

    async def sleep(seconds: float) -> None:
        if seconds == longest:
            backing_off.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    def uniform(_low: float, _high: float) -> float:
        return longest

    store = ScriptedStore([StoreUnavailableError("away")] * 100)
    worker = make_worker(WatchedSource(subscription), store, sleep=sleep, uniform=uniform)
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailableError, match="away"):
            await worker.run(stop=asyncio.Event(), until_idle=0.05)

    assert backing_off.is_set()
    assert subscription.backlog == 1
