import asyncio
import threading
from datetime import timedelta
from typing import Any, cast

import pytest

from run_log.core import InvalidArgumentError, Message, ReceivedMessage, TransportUnavailableError
from run_log.testing import Faults, InMemorySubscription, InMemoryTopic, ManualClock

LONG = 60.0
"""Seconds that a pull would wait if nothing woke it."""

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> ManualClock:
    """Return the clock of the deliveries' deadlines."""
    return ManualClock()


def messages(count: int) -> list[Message]:
    """Return that many messages, numbered from 0."""
    return [Message(data=str(number).encode(), attributes={"n": str(number)}) for number in range(count)]


def data(received: list[ReceivedMessage]) -> list[str]:
    """Return the numbers of *received*, as text."""
    return [message.data.decode() for message in received]


def published(
    count: int, faults: Faults | None = None, *, seed: int = 0, **options: Any
) -> InMemorySubscription:
    """Return a subscription with that many messages published to its topic."""
    topic = InMemoryTopic(faults=faults or Faults(), seed=seed)
    subscription = topic.subscribe(**options)
    topic.publish(messages(count))
    return subscription


async def drain(subscription: InMemorySubscription) -> list[str]:
    """Pull and acknowledge until nothing is left, and return the numbers that came."""
    received: list[str] = []
    while subscription.backlog:
        pulled = await subscription.pull(3, wait=0)
        await subscription.acknowledge([message.ack_id for message in pulled])
        received += data(pulled)
    return received


async def waiting(subscription: InMemorySubscription) -> asyncio.Task[list[ReceivedMessage]]:
    """Return a pull that has found nothing and waits."""
    pull = asyncio.create_task(subscription.pull(1, wait=LONG))
    for _ in range(3):  # turns that it needs until it waits
        await asyncio.sleep(0)
    assert not pull.done()
    return pull


async def test_every_subscription_gets_every_message() -> None:
    """Each subscription that is there gets each message once, in order, also after a close."""
    topic = InMemoryTopic()
    subscriptions = [topic.subscribe(), topic.subscribe()]

    topic.close()
    topic.publish(messages(3))

    for subscription in subscriptions:
        received = await subscription.pull(10, wait=0)
        assert messages(3) == [Message(data=each.data, attributes=each.attributes) for each in received]
        assert [1, 1, 1] == [message.delivery_attempt for message in received]
    assert [] == await topic.subscribe().pull(1, wait=0)


async def test_a_pull_takes_no_more_than_asked_for() -> None:
    """A pull takes at most max_messages; the rest stays for later pulls."""
    subscription = published(3)

    first = await subscription.pull(2, wait=0)
    second = await subscription.pull(2, wait=0)

    assert (["0", "1"], ["2"]) == (data(first), data(second))


async def test_a_failed_publish_takes_nothing() -> None:
    """A publish that fails has put none of its messages anywhere; after the outage publishing works."""
    topic = InMemoryTopic(faults=Faults(fail=1))
    subscription = topic.subscribe()

    with pytest.raises(TransportUnavailableError):
        topic.publish(messages(3))
    backlog_in_outage = subscription.backlog
    topic.faults = Faults()
    topic.publish(messages(3))

    assert (0, 3) == (backlog_in_outage, subscription.backlog)
    assert Faults() == topic.faults


async def test_a_duplicate_is_the_same_message_with_another_id() -> None:
    """A duplicated message arrives twice, as a publisher's retry would: same content, two message ids."""
    received = await published(2, Faults(duplicate=1)).pull(10, wait=0)

    assert ["0", "0", "1", "1"] == data(received)
    assert 4 == len({message.message_id for message in received})


async def test_reordering_changes_the_order_and_nothing_else() -> None:
    """A shuffled pull takes messages out of order, but each once."""
    in_order = [str(number) for number in range(20)]

    received = await drain(published(20, Faults(reorder=1)))

    assert in_order != received
    assert sorted(in_order) == sorted(received)


async def test_a_message_is_held_back_three_times_at_most() -> None:
    """A delayed message comes in a later pull, the fourth at the latest."""
    subscription = published(2, Faults(delay=1))

    pulls = [data(await subscription.pull(10, wait=LONG)) for _ in range(4)]

    assert [[], [], [], ["0", "1"]] == pulls


@pytest.mark.parametrize("seed", range(5))
async def test_faults_lose_nothing(seed: int) -> None:
    """With every fault at work, each message that was taken is delivered at least once."""
    topic = InMemoryTopic(faults=Faults(duplicate=0.3, reorder=0.3, delay=0.3, fail=0.3), seed=seed)
    subscription = topic.subscribe()
    taken: list[str] = []
    for message in messages(50):
        try:
            topic.publish([message])
        except TransportUnavailableError:
            continue
        taken.append(message.data.decode())

    received = await drain(subscription)

    assert set(taken) == set(received)
    assert len(taken) < len(received)


async def test_one_seed_is_one_schedule() -> None:
    """The same calls on topics of the same seed meet the same faults."""
    faults = Faults(duplicate=0.3, reorder=0.3, delay=0.3)

    first, again, other = [await drain(published(50, faults, seed=seed)) for seed in (1, 1, 2)]

    assert first == again
    assert first != other


async def test_what_is_not_acknowledged_in_time_is_delivered_again(clock: ManualClock) -> None:
    """A delivery that expires is followed by another, with a new ack id and one attempt more."""
    subscription = published(1, now=clock.monotonic, ack_deadline=MINUTE)
    (first,) = await subscription.pull(1, wait=0)
    clock.advance(59)
    before_its_deadline = await subscription.pull(1, wait=0)

    clock.advance(1)
    (second,) = await subscription.pull(1, wait=0)

    assert [] == before_its_deadline
    assert (first.data, first.message_id) == (second.data, second.message_id)
    assert first.ack_id != second.ack_id
    assert (1, 2) == (first.delivery_attempt, second.delivery_attempt)


async def test_what_is_extended_expires_later(clock: ManualClock) -> None:
    """An extended delivery expires that long after it was extended; the others by their own deadlines."""
    subscription = published(3, now=clock.monotonic, ack_deadline=MINUTE)
    first, second = await subscription.pull(2, wait=0)
    clock.advance(10)
    await subscription.pull(1, wait=0)
    clock.advance(40)

    await subscription.extend([first.ack_id, "unknown"], 60)
    await subscription.extend([second.ack_id], 5)
    outstanding: list[int] = []
    for seconds in (4, 1, 14, 1, 39, 1):
        clock.advance(seconds)
        outstanding.append(subscription.outstanding)

    assert [3, 2, 2, 1, 1, 0] == outstanding


async def test_what_comes_late_is_ignored(clock: ManualClock) -> None:
    """Acknowledging or releasing an expired delivery, or an unknown one, does nothing."""
    subscription = published(1, now=clock.monotonic, ack_deadline=MINUTE)
    (expired,) = await subscription.pull(1, wait=0)
    clock.advance(MINUTE)

    await subscription.acknowledge([expired.ack_id, "unknown"])
    await subscription.release([expired.ack_id, "unknown"])

    assert 1 == subscription.backlog
    assert 1 == len(await subscription.pull(10, wait=0))


async def test_what_is_acknowledged_never_comes_back(clock: ManualClock) -> None:
    """An acknowledged message has left the subscription, even after its deadline."""
    subscription = published(1, now=clock.monotonic, ack_deadline=MINUTE)
    (received,) = await subscription.pull(1, wait=0)
    counts = [(subscription.outstanding, subscription.backlog)]

    await subscription.acknowledge([received.ack_id])
    counts.append((subscription.outstanding, subscription.backlog))
    clock.advance(MINUTE)

    assert [(1, 1), (0, 0)] == counts
    assert [] == await subscription.pull(1, wait=0)


@pytest.mark.parametrize("extended", [True, False], ids=["extended by nothing", "released"])
async def test_what_is_given_back_is_available_at_once(extended: bool) -> None:  # noqa: FBT001
    """It comes in the next pull, as published, with a new ack id and one attempt more."""
    subscription = published(1)
    (first,) = await subscription.pull(1, wait=0)
    cast("dict[str, str]", first.attributes).clear()

    await (subscription.extend([first.ack_id], 0) if extended else subscription.release([first.ack_id]))
    (second,) = await subscription.pull(1, wait=0)

    assert first.ack_id != second.ack_id
    assert (2, {"n": "0"}) == (second.delivery_attempt, second.attributes)


async def test_a_pull_of_nothing_waits_no_longer_than_asked(clock: ManualClock) -> None:
    """Where no message comes, a pull returns empty after its wait, whatever clock the deadlines run on."""
    subscription = published(1, now=clock.monotonic, ack_deadline=timedelta(microseconds=1))
    await subscription.pull(1, wait=0)

    assert [] == await subscription.pull(1, wait=0.05)


async def test_a_waiting_pull_is_woken_by_a_publish_from_another_thread() -> None:
    """A pull that waits returns as soon as any thread publishes."""
    topic = InMemoryTopic()
    pull = await waiting(topic.subscribe())

    await asyncio.to_thread(topic.publish, messages(1))

    assert ["0"] == data(await pull)


async def test_a_waiting_pull_is_woken_by_a_release() -> None:
    """A pull that waits returns as soon as another reader releases a message."""
    subscription = published(1)
    (first,) = await subscription.pull(1, wait=0)
    pull = await waiting(subscription)

    await subscription.release([first.ack_id])

    assert ["0"] == data(await pull)


async def test_a_waiting_pull_is_woken_by_an_expiry() -> None:
    """A pull that waits returns as soon as another reader's delivery expires."""
    subscription = published(1, ack_deadline=timedelta(milliseconds=20))
    await subscription.pull(1, wait=0)

    assert [2] == [message.delivery_attempt for message in await subscription.pull(1, wait=LONG)]


@pytest.mark.parametrize("end", ["closed", "cancelled"])
async def test_a_waiting_pull_that_ends_takes_nothing(end: str) -> None:
    """Closing lets waiting pulls return empty. What is published then is there for the next reader."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    pull = await waiting(subscription)

    if end == "closed":
        await subscription.close()
    else:
        pull.cancel()
    await asyncio.wait([pull])
    topic.publish(messages(1))

    assert pull.cancelled() if end == "cancelled" else [] == pull.result()
    assert (0, 1) == (subscription.outstanding, subscription.backlog)
    assert ["0"] == data(await subscription.pull(1, wait=LONG))


async def test_concurrent_readers_share_the_messages() -> None:
    """Readers in several event loops and threads get each message exactly once between them."""
    subscription = published(50)
    received: list[str] = []

    async def read() -> None:
        while subscription.backlog:
            pulled = await subscription.pull(2, wait=0.01)
            received.extend(data(pulled))
            await subscription.acknowledge([message.ack_id for message in pulled])

    async def read_twice() -> None:
        await asyncio.gather(read(), read())

    readers = [threading.Thread(target=lambda: asyncio.run(read_twice())) for _ in range(3)]
    for reader in readers:
        reader.start()
    await asyncio.gather(*(asyncio.to_thread(reader.join) for reader in readers))

    assert sorted(str(number) for number in range(50)) == sorted(received)


@pytest.mark.parametrize("field", ["duplicate", "reorder", "delay", "fail"])
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_fault_is_a_probability(field: str, probability: float) -> None:
    """Anything outside of 0 to 1 is refused, by name."""
    with pytest.raises(InvalidArgumentError, match=field):
        Faults(**{field: probability})


async def test_what_could_deliver_nothing_is_refused() -> None:
    """An ack deadline is positive, and a pull asks for at least one message."""
    with pytest.raises(InvalidArgumentError, match="ack_deadline"):
        InMemoryTopic().subscribe(ack_deadline=timedelta(0))
    with pytest.raises(InvalidArgumentError, match="max_messages"):
        await InMemoryTopic().subscribe().pull(0, wait=0)
