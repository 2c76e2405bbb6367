from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from run_log.core import InvalidArgumentError, Message, ReceivedMessage, TransportUnavailableError
from run_log.projector import DeadLetter, LeasedLetters, LetterChoice
from run_log.projector.dead_letters.leased import PAGE, PULL_SECONDS
from run_log.projector.dead_letters.letters import MESSAGE_ID_ATTRIBUTE
from run_log.testing import InMemorySubscription, InMemoryTopic, ManualClock

from .doubles import CountedSource, WatchedSource, down, eventually, logged

QUIET = 0.02
EVERYTHING = LetterChoice()


def letters_of(count: int) -> InMemorySubscription:
    """Return a subscription that holds so many letters."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish([Message(data=str(number).encode()) for number in range(count)])
    return subscription


@asynccontextmanager
async def leased(source: WatchedSource) -> AsyncGenerator[LeasedLetters]:
    """Lease letters, which are all seen as soon as none has come for a moment."""
    async with LeasedLetters(source, quiet_seconds=QUIET, stop_seconds=QUIET) as letters:
        yield letters


async def every(letters: LeasedLetters, choice: LetterChoice = EVERYTHING) -> list[DeadLetter]:
    """Return all letters that are chosen."""
    return [letter async for page in letters.chosen(choice) for letter in page]


async def test_each_letter_once_and_given_back() -> None:
    """Each letter is returned once, in any number of pulls; nobody else has it meanwhile, but afterwards."""
    subscription = letters_of(2 * PAGE + 1)
    source = WatchedSource(subscription)

    async with leased(source) as letters:
        found = await every(letters)
        meanwhile = await subscription.pull(1, wait=0)
        seen = letters.seen

    assert {str(number).encode() for number in range(2 * PAGE + 1)} == {letter.data for letter in found}
    assert 2 * PAGE + 1 == len(found) == seen
    assert [] == meanwhile
    assert (2 * PAGE + 1, 0) == (subscription.backlog, subscription.outstanding)


async def test_acknowledged_letters_are_gone() -> None:
    """What is acknowledged is out of the dead letters; the others are given back."""
    subscription = letters_of(3)

    async with leased(WatchedSource(subscription)) as letters:
        found = await every(letters)
        await letters.acknowledge(found[:2])
        seen = letters.seen

    (left,) = await subscription.pull(10, wait=0)
    assert (3, found[2].message_id) == (seen, left.message_id)


async def test_it_ends_with_the_last_id() -> None:
    """Letters that are named are looked for no longer than until the last of them is seen."""
    source = WatchedSource(letters_of(3))

    async with asyncio.timeout(30), LeasedLetters(source, quiet_seconds=3_600) as letters:
        found = await every(letters, LetterChoice(ids=frozenset({"1", "2"})))

    assert {"1", "2"} == {letter.message_id for letter in found}


def letters_that_were(*message_ids: str) -> InMemorySubscription:
    """Return a subscription of letters, whose own ids are 1, 2 and so on, that were these messages."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish(
        [Message(data=b"", attributes={MESSAGE_ID_ATTRIBUTE: message_id}) for message_id in message_ids]
    )
    return subscription


@pytest.mark.parametrize(
    ("were", "ids", "found"),
    [
        (["m-1", "m-2", "m-3"], {"m-3", "1", "m-1", "not-there"}, ["1", "3"]),
        (["2", "m"], {"2"}, ["2"]),
        ([], {"2"}, []),
    ],
    ids=["either", "its own goes first", "nothing there"],
)
async def test_the_message_that_a_letter_was(were: list[str], ids: set[str], found: list[str]) -> None:
    """A letter is named by its own id or else by that of the message that it was, each once."""
    async with asyncio.timeout(30), leased(WatchedSource(letters_that_were(*were))) as letters:
        chosen = await every(letters, LetterChoice(ids=frozenset(ids)))

    assert found == [letter.message_id for letter in chosen]


async def test_an_id_that_means_several() -> None:
    """A message that became several letters is refused, with theirs; by its own id each is named."""
    subscription = letters_that_were("m", "n", "m")

    async with leased(WatchedSource(subscription)) as letters:
        found = await every(letters, LetterChoice(ids=frozenset({"1", "3"})))
    with pytest.raises(InvalidArgumentError, match="message 'm' became several dead letters, '1' and '3'"):
        async with leased(WatchedSource(subscription)) as letters:
            await every(letters, LetterChoice(ids=frozenset({"m"})))

    assert ["1", "3"] == [letter.message_id for letter in found]
    assert (3, 0) == (subscription.backlog, subscription.outstanding)


async def test_an_interrupted_look_gives_back_too() -> None:
    """Interrupted, it gives back what it has and what its pull still brings: cut off, that would be lost."""
    topic = InMemoryTopic()
    subscription = topic.subscribe()
    topic.publish([Message(data=b"first")])
    source = CountedSource(subscription)

    looking = asyncio.create_task(_look(source))
    await eventually(lambda: source.begun == 2)
    looking.cancel()
    topic.publish([Message(data=b"second")])
    with pytest.raises(asyncio.CancelledError):
        await looking

    assert {b"first", b"second"} == {message.data for message in source.pulled}
    assert (2, 0) == (subscription.backlog, subscription.outstanding)
    assert 0 == source.cut_off
    assert all(wait <= PULL_SECONDS for wait in source.waits)


async def _look(source: WatchedSource) -> None:
    async with LeasedLetters(source, quiet_seconds=3_600, stop_seconds=60) as letters:
        await every(letters)


async def test_a_lease_that_has_ended() -> None:
    """A letter that is delivered again is not returned again, and its newer delivery is given back."""
    clock = ManualClock()
    topic = InMemoryTopic()
    subscription = topic.subscribe(now=clock.monotonic, ack_deadline=timedelta(seconds=10))
    topic.publish([Message(data=b"x")])
    source = WatchedSource(subscription)

    async with leased(source) as letters:
        (found,) = await letters.more()
        clock.advance(11)
        again = await letters.more()
        seen = letters.seen

    assert ([], 1) == (again, seen)
    assert source.pulled[1].ack_id == source.released[0]
    assert found.message_id == source.pulled[1].message_id
    assert 0 == subscription.outstanding


async def test_a_lost_acknowledgement_is_said_again() -> None:
    """A letter that comes again although it was acknowledged is acknowledged again, and not returned."""
    source = _Repeating(letters_of(1))

    async with leased(source) as letters:
        found = await letters.more()
        await letters.acknowledge(found)
        again = await letters.more()

    assert [] == again
    assert {"again", source.pulled[0].ack_id} == set(source.acknowledged)
    assert [] == source.released


class _Repeating(WatchedSource):
    """A subscription that delivers its first message a second time, whatever was said of it."""

    pulls = 0

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        self.pulls += 1
        if self.pulls != 2:
            return await super().pull(max_messages, wait=wait)
        first = self.pulled[0]
        return [ReceivedMessage(data=first.data, message_id=first.message_id, ack_id="again")]


async def test_leases_are_extended() -> None:
    """Leases of letters are extended for as long as the block lasts."""
    clock = ManualClock()
    source = WatchedSource(letters_of(2))

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    async with LeasedLetters(source, now=clock.monotonic, sleep=sleep) as letters:
        await letters.more()
        await eventually(lambda: len(source.extended) > 2)

    leased_ids = [message.ack_id for message in source.pulled]
    assert all(ack_ids == leased_ids for ack_ids, _ in source.extended)


async def test_a_broker_that_does_not_answer() -> None:
    """Where the broker does not answer, looking fails, and what is leased comes again by itself."""
    source = WatchedSource(letters_of(1), pull_errors=[down()])

    with pytest.raises(TransportUnavailableError):
        async with leased(source) as letters:
            await letters.more()

    assert [] == source.released


async def test_giving_back_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Where letters cannot be given back, that is logged: they come again when their leases end."""
    source = WatchedSource(letters_of(2), answer_errors=[down()])

    async with leased(source) as letters:
        await letters.more()

    (record,) = logged(caplog, "run_log_release_failed")
    assert (2, "down") == (record["messages"], record["error"])
