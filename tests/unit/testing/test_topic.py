import asyncio
import threading
from datetime import timedelta
from typing import cast

import pytest

from run_log.core import InvalidArgumentError, Message, ReceivedMessage, TransportUnavailableError
from run_log.testing import Faults, InMemorySubscription, InMemoryTopic, ManualClock

LONG = 60.0
"""Seconds that a pull would wait if nothing woke it."""

MINUTE = timedelta(minutes=1)


def messages(count: int) -> list[Message]:
    """Return that many messages, numbered from 0."""
    return [Message(data=str(number).encode(), attributes={"n": str(number)}) for number in range(count)]


def data(received: list[ReceivedMessage]) -> list[str]:
    """Return the numbers of *received*, as text."""
    return [message.data.decode() for message in received]


async def drain(subscription: InMemorySubscription) -> list[ReceivedMessage]:
    """Pull and acknowledge until nothing is left."""
    received: list[ReceivedMessage] = []
    while subscription.backlog:
        pulled = await subscription.pull(3, wait=0)
        await subscription.acknowledge([message.ack_id for message in pulled])
        received += pulled
    return received


async def test_every_subscription_gets_every_message() -> None:
    """Each subscription gets each message once, in order, as it was published."""
    topic = InMemoryTopic()
    subscriptions = [topic.subscribe(), topic.subscribe()]

    topic.publish(messages(3))

    for subscription in subscriptions:
        received = await subscription.pull(10, wait=0)
        assert messages(3) == [Message(data=each.data, attributes=each.attributes) for each in received]
        assert [1, 1, 1] == [message.delivery_attempt for message in received]


async def test_a_later_subscription_gets_nothing_from_before() -> None:
    """What was published before a subscription was made never reaches it."""
    topic = InMemoryTopic()
    topic.publish(messages(1))

    subscription = topic.subscribe()

    assert [] == await subscription.pull(1, wait=0)


async def test_publishing_goes_on_after_close() -> None:
    """Closing a topic ends nothing, however often."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()

    topic.close()
    topic.close()
    topic.publish(messages(1))

    assert 1 == subscription.backlog


async def test_a_pull_takes_no_more_than_asked_for() -> None:
    """A pull takes at most max_messages; the rest stays for later pulls."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(messages(3))

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
    topic = InMemoryTopic(faults=Faults(duplicate=1))
    subscription = topic.subscribe()
    topic.publish(messages(2))

    received = await subscription.pull(10, wait=0)

    assert ["0", "0", "1", "1"] == data(received)
    assert 4 == len({message.message_id for message in received})


async def test_reordering_changes_the_order_and_nothing_else() -> None:
    """A shuffled pull takes messages out of order, but each once."""
    topic = InMemoryTopic(faults=Faults(reorder=1))
    subscription = topic.subscribe()
    topic.publish(messages(20))
    in_order = [str(number) for number in range(20)]

    received = data(await drain(subscription))

    assert in_order != received
    assert sorted(in_order) == sorted(received)


async def test_a_message_is_held_back_three_times_at_most() -> None:
    """A delayed message comes in a later pull, the fourth at the latest."""
    topic = InMemoryTopic(faults=Faults(delay=1))
    subscription = topic.subscribe()
    topic.publish(messages(2))

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

    received = data(await drain(subscription))

    assert set(taken) == set(received)
    assert len(taken) < len(received)


async def test_one_seed_is_one_schedule() -> None:
    """The same calls on topics of the same seed meet the same faults."""

    async def schedule(seed: int) -> list[str]:
        topic = InMemoryTopic(faults=Faults(duplicate=0.3, reorder=0.3, delay=0.3), seed=seed)
        subscription = topic.subscribe()
        topic.publish(messages(50))
        return data(await drain(subscription))

    first, again, other = await schedule(1), await schedule(1), await schedule(2)

    assert first == again
    assert first != other


async def test_what_is_not_acknowledged_in_time_is_delivered_again() -> None:
    """A delivery that expires is followed by another, with a new ack id and one attempt more."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=MINUTE)
    topic.publish(messages(1))
    (first,) = await subscription.pull(1, wait=0)
    clock.advance(59)
    before_its_deadline = await subscription.pull(1, wait=0)

    clock.advance(1)
    (second,) = await subscription.pull(1, wait=0)

    assert [] == before_its_deadline
    assert (first.data, first.message_id) == (second.data, second.message_id)
    assert first.ack_id != second.ack_id
    assert (1, 2) == (first.delivery_attempt, second.delivery_attempt)


async def test_only_what_is_due_expires() -> None:
    """A delivery expires by its own deadline, not by that of an earlier one."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=MINUTE)
    topic.publish(messages(2))
    await subscription.pull(1, wait=0)
    clock.advance(30)
    await subscription.pull(1, wait=0)

    clock.advance(30)

    assert (1, 2) == (subscription.outstanding, subscription.backlog)


async def test_what_is_extended_expires_later() -> None:
    """An extended delivery expires that long after it was extended; the others as they would have."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=MINUTE)
    topic.publish(messages(3))
    first, second, _third = await subscription.pull(3, wait=0)
    clock.advance(50)

    await subscription.extend([first.ack_id, "unknown"], 60)
    await subscription.extend([second.ack_id], 5)
    outstanding: list[int] = []
    for seconds in (4, 1, 5, 49, 1):
        clock.advance(seconds)
        outstanding.append(subscription.outstanding)

    assert [3, 2, 1, 1, 0] == outstanding


async def test_what_is_extended_by_nothing_is_available_at_once() -> None:
    """Extending a delivery by no time gives it back, as with Pub/Sub."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(messages(1))
    (first,) = await subscription.pull(1, wait=0)

    await subscription.extend([first.ack_id], 0)

    assert ["0"] == data(await subscription.pull(1, wait=0))


async def test_an_acknowledgement_that_comes_late_is_ignored() -> None:
    """Acknowledging or releasing an expired delivery, or an unknown one, does nothing."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=MINUTE)
    topic.publish(messages(1))
    (expired,) = await subscription.pull(1, wait=0)
    clock.advance(MINUTE)

    await subscription.acknowledge([expired.ack_id, "unknown"])
    await subscription.release([expired.ack_id, "unknown"])

    assert 1 == subscription.backlog
    assert 1 == len(await subscription.pull(10, wait=0))


async def test_what_is_acknowledged_never_comes_back() -> None:
    """An acknowledged message has left the subscription, even after its deadline."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=MINUTE)
    topic.publish(messages(1))
    (received,) = await subscription.pull(1, wait=0)
    counts = [(subscription.outstanding, subscription.backlog)]

    await subscription.acknowledge([received.ack_id])
    counts.append((subscription.outstanding, subscription.backlog))
    clock.advance(MINUTE)

    assert [(1, 1), (0, 0)] == counts
    assert [] == await subscription.pull(1, wait=0)


async def test_what_is_released_is_available_at_once() -> None:
    """A released message comes in the next pull, with a new ack id and one attempt more."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(messages(1))
    (first,) = await subscription.pull(1, wait=0)

    await subscription.release([first.ack_id])
    (second,) = await subscription.pull(1, wait=0)

    assert first.ack_id != second.ack_id
    assert 2 == second.delivery_attempt


async def test_a_reader_cannot_change_what_the_next_one_gets() -> None:
    """Attributes that a reader changes are as published when the message is delivered again."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(messages(1))
    (first,) = await subscription.pull(1, wait=0)
    cast("dict[str, str]", first.attributes).clear()

    await subscription.release([first.ack_id])

    assert [{"n": "0"}] == [message.attributes for message in await subscription.pull(1, wait=0)]


async def test_a_pull_of_nothing_waits_no_longer_than_asked() -> None:
    """Where no message comes, a pull returns empty after its wait, whatever clock the deadlines run on."""
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=ManualClock().monotonic, ack_deadline=timedelta(microseconds=1))
    topic.publish(messages(1))
    await subscription.pull(1, wait=0)

    assert [] == await subscription.pull(1, wait=0.05)


async def test_a_waiting_pull_is_woken_by_a_publish_from_another_thread() -> None:
    """A pull that waits returns as soon as any thread publishes."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    pull = await waiting(subscription)

    await asyncio.to_thread(topic.publish, messages(1))

    assert ["0"] == data(await pull)


async def test_a_waiting_pull_is_woken_by_a_release() -> None:
    """A pull that waits returns as soon as another reader releases a message."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(messages(1))
    (first,) = await subscription.pull(1, wait=0)
    pull = await waiting(subscription)

    await subscription.release([first.ack_id])

    assert ["0"] == data(await pull)


async def test_a_waiting_pull_is_woken_by_an_expiry() -> None:
    """A pull that waits returns as soon as another reader's delivery expires."""
    topic = InMemoryTopic()
    subscription = topic.subscribe(ack_deadline=timedelta(milliseconds=20))
    topic.publish(messages(1))
    await subscription.pull(1, wait=0)

    received = await subscription.pull(1, wait=LONG)

    assert [2] == [message.delivery_attempt for message in received]


async def test_closing_lets_waiting_pulls_return_empty() -> None:
    """Closing ends the waits there are; the subscription stays for a next reader."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    pull = await waiting(subscription)

    await subscription.close()
    ended = await pull
    topic.publish(messages(1))

    assert [] == ended
    assert ["0"] == data(await subscription.pull(1, wait=LONG))


async def test_a_cancelled_pull_takes_nothing() -> None:
    """What is published after a waiting pull was cancelled is there for the next one."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    pull = await waiting(subscription)

    pull.cancel()
    await asyncio.wait([pull])
    topic.publish(messages(1))

    assert pull.cancelled()
    assert (0, 1) == (subscription.outstanding, subscription.backlog)


async def test_concurrent_readers_share_the_messages() -> None:
    """Readers in several event loops and threads get each message exactly once between them."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    received: list[str] = []

    async def read() -> None:
        while subscription.backlog:
            pulled = await subscription.pull(2, wait=0.01)
            received.extend(data(pulled))
            await subscription.acknowledge([message.ack_id for message in pulled])

    def read_twice() -> None:
        async def both() -> None:
            await asyncio.gather(read(), read())

        asyncio.run(both())

    readers = [threading.Thread(target=read_twice) for _ in range(3)]
    topic.publish(messages(50))
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


def test_an_ack_deadline_is_positive() -> None:
    """A subscription whose deliveries would expire at once is refused."""
    with pytest.raises(InvalidArgumentError, match="ack_deadline"):
        InMemoryTopic().subscribe(ack_deadline=timedelta(0))


async def test_a_pull_asks_for_at_least_one_message() -> None:
    """A pull that could take nothing is refused."""
    with pytest.raises(InvalidArgumentError, match="max_messages"):
        await InMemoryTopic().subscribe().pull(0, wait=0)


async def waiting(subscription: InMemorySubscription) -> asyncio.Task[list[ReceivedMessage]]:
    """Return a pull that has found nothing and waits."""
    pull = asyncio.create_task(subscription.pull(1, wait=LONG))
    for _ in range(3):  # turns that it needs until it waits
        await asyncio.sleep(0)
    assert not pull.done()
    return pull
