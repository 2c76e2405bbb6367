from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest

from run_log.core import DeadLetterReason, Message, ReceivedMessage, StoreUnavailableError, encode_event
from run_log.projector import LeasedLetters, LetterChoice, discard, redrive
from run_log.projector.dead_letters.noted import (
    MAX_WAITING,
    LetterNotices,
    NotedDeadLetters,
    notice_key,
)
from run_log.stores import InMemoryRunLogService
from run_log.stores.notices import DeadLetterNotice, Notice, NoticeKind
from run_log.testing import InMemoryTopic, an_event

from .doubles import JUNK, Letters, WatchedSource, down, eventually, logged, make_worker, worked_off
from .test_redrive import KeptLetters, Told, Topic

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
EVERYTHING = LetterChoice()
AWAY = StoreUnavailableError("away")


class Store(InMemoryRunLogService):
    """Keeps notices once it is let, after raising the errors it is given."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        super().__init__(now=lambda: NOON)
        self.errors = iter(errors)
        self.commits: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        """See `NoticeStore.put_notices`."""
        self.commits.append(len(notices))
        await self.gate.wait()
        for error in self.errors:
            raise error
        await super().put_notices(kind, notices)

    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        """See `NoticeStore.remove_notices`."""
        for error in self.errors:
            raise error
        await super().remove_notices(kind, keys)

    async def letters(self) -> tuple[DeadLetterNotice, ...]:
        """Return the notices of dead letters."""
        return (await self.get_notices()).dead_letters

    async def ids(self) -> set[str]:
        """Return the ids of the messages that there is a notice of."""
        return {notice.message_id for notice in await self.letters()}


def received(message_id: str, message: Message = JUNK) -> ReceivedMessage:
    """Return *message* as it is delivered."""
    return ReceivedMessage(
        data=message.data, attributes=message.attributes, message_id=message_id, ack_id=message_id
    )


async def put(
    noted: NotedDeadLetters, *messages: ReceivedMessage, error: str = "it is no JSON\nat line 1"
) -> None:
    """Have messages become dead letters, all at once."""
    reason = DeadLetterReason.UNDECODABLE
    await asyncio.gather(*(noted.put(message, reason=reason, error=error) for message in messages))


async def test_a_letter_is_noted() -> None:
    """The store is told of each letter once it is kept: when, why, and which run it was of."""
    letters, store = Letters(), Store()
    noted = NotedDeadLetters(letters, store, now=lambda: NOON)
    event = encode_event(an_event(workflow_id="w/ä", id="r"))

    await put(noted, received("7", event), error=f"\n  {'x' * 400}\nmore")
    await noted.close()

    (notice,) = await store.letters()
    assert ["7"] == [message.message_id for message, _, _ in letters.kept]
    assert (NOON, "undecodable", "7", "w/ä", "r") == (
        notice.at,
        notice.reason,
        notice.message_id,
        notice.workflow_id,
        notice.run_id,
    )
    assert f"{'x' * 299}…" == notice.error


async def test_the_body_is_not_looked_at() -> None:
    """Only attributes tell the run: a body that ended other projectors is not decoded here."""
    store = Store()
    noted = NotedDeadLetters(Letters(), store, now=lambda: NOON)
    event = encode_event(an_event())

    await put(noted, received("7", Message(data=event.data)))
    await noted.close()

    assert [(None, None)] == [(one.workflow_id, one.run_id) for one in await store.letters()]


async def test_what_is_not_kept_is_not_noted() -> None:
    """While the dead letters are away nothing is told, and the error goes on to who has to return it."""
    store = Store()
    noted = NotedDeadLetters(Letters([down()]), store)

    with pytest.raises(type(down())):
        await put(noted, received("1"))
    await noted.close()

    assert ((), []) == (await store.letters(), store.commits)


async def test_nothing_is_written_where_all_is_well() -> None:
    """Events that are projected cost no notice."""
    store, topic = Store(), InMemoryTopic()
    subscription = topic.subscribe()
    noted = NotedDeadLetters(Letters(), store)
    topic.publish([encode_event(an_event(id=str(number))) for number in range(20)])

    await worked_off(make_worker(WatchedSource(subscription), store, noted), subscription)
    await noted.close()

    assert ([], 20) == (store.commits, (await store.get_stats("workflow-1"))["total"])


async def test_a_message_counts_once() -> None:
    """A message that becomes a dead letter again has one notice, with or without an id."""
    store = Store()
    noted = NotedDeadLetters(Letters(), store, now=lambda: NOON)
    anonymous = received("", Message(data=b"of nobody"))

    for _ in range(3):
        await put(noted, received("1"), anonymous, received("", Message(data=b"another")))
    await noted.close()

    assert ["", "", "1"] == sorted(one.message_id for one in await store.letters())


async def test_a_storm_is_written_together() -> None:
    """Letters that come while one commit is under way are in the next ones, many in each."""
    store = Store()
    store.gate.clear()
    noted = NotedDeadLetters(Letters(), store, now=lambda: NOON)

    await put(noted, received("first"))
    await eventually(lambda: store.commits == [1])
    await put(noted, *(received(str(number)) for number in range(499)))
    store.gate.set()
    await noted.close()

    assert [1, 200, 200, 99] == store.commits
    assert 500 == len(await store.ids())


async def test_too_many_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of more than may wait the oldest are left out, and it is told how many; the letters are all kept."""
    letters, store = Letters(), Store()
    store.gate.clear()
    noted = NotedDeadLetters(letters, store, now=lambda: NOON)

    await put(noted, received("first"))
    await eventually(lambda: store.commits == [1])
    await put(noted, *(received(str(number)) for number in range(MAX_WAITING + 3)))
    store.gate.set()
    await noted.close()

    assert MAX_WAITING + 4 == len(letters.kept)
    assert [3] == [one["notices"] for one in logged(caplog, "run_log_notices_left_out")]
    assert MAX_WAITING + 1 == sum(store.commits)


async def test_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """What the store does not take is told, changes no letter, and does not keep later notices from it."""
    letters, store = Letters(), Store([AWAY, ValueError("a secret")])
    noted = NotedDeadLetters(letters, store, now=lambda: NOON)

    for number in range(3):
        await put(noted, received(str(number)))
        await noted.close()

    failed = logged(caplog, "run_log_notices_failed")
    assert [(1, "away"), (1, "ValueError")] == [(one["notices"], one["error"]) for one in failed]
    assert (3, {"2"}) == (len(letters.kept), await store.ids())


async def test_a_notice_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with a notice, its letter is kept: returned, the message would become another."""

    def broken() -> datetime:
        raise OverflowError

    letters = Letters()

    await put(NotedDeadLetters(letters, Store(), now=broken), received("1"))

    assert ["OverflowError"] == [one["error"] for one in logged(caplog, "run_log_notices_failed")]
    assert 1 == len(letters.kept)


async def test_an_end_waits_for_no_store(caplog: pytest.LogCaptureFixture) -> None:
    """At the end a store that hangs is given up, and what was not written is told."""
    store = Store()
    store.gate.clear()
    noted = NotedDeadLetters(Letters(), store, now=lambda: NOON)
    await put(noted, received("1"))
    await eventually(lambda: store.commits == [1])
    await put(noted, received("2"))

    await noted.close(0)
    await noted.close(0)

    assert [2] == [one["notices"] for one in logged(caplog, "run_log_notices_failed")]


class Dead:
    """Dead letters, and the store that has a notice of each."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        self.store = Store()
        self.letters = KeptLetters()
        self._errors = errors
        self.opened = 0

    async def put(self, *messages: ReceivedMessage, reason: DeadLetterReason) -> None:
        """Have messages become dead letters."""
        noted = NotedDeadLetters(self.letters, self.store, now=lambda: NOON)
        for message in messages:
            await noted.put(message, reason=reason, error="why")
        await noted.close()
        self.store.errors = iter(self._errors)

    async def open(self) -> Store:
        """Return the store."""
        self.opened += 1
        return self.store

    def leased(self) -> LeasedLetters:
        """Lease the letters, which are all seen as soon as none has come for a moment."""
        source = WatchedSource(self.letters.subscription)
        taken_out = LetterNotices(self.open).forget
        return LeasedLetters(source, quiet_seconds=0.02, stop_seconds=0.02, taken_out=taken_out)


async def test_what_is_redriven_is_forgotten() -> None:
    """The notice of a letter goes once it is published again; what is kept keeps its notice."""
    dead, topic = Dead(), Topic()
    good = encode_event(an_event())
    await dead.put(received("1", good), received("2", JUNK), reason=DeadLetterReason.UNDECODABLE)

    async with dead.leased() as letters:
        await redrive(letters, topic.publish, EVERYTHING, tell=Told(), dry_run=True)
    untouched = await dead.store.ids()
    async with dead.leased() as letters:
        await redrive(letters, topic.publish, EVERYTHING, tell=Told())

    assert ({"1", "2"}, {"2"}, 1) == (untouched, await dead.store.ids(), len(topic.published))


async def test_what_is_discarded_is_forgotten() -> None:
    """The notice of a letter that is thrown away goes, also that of a message without an id."""
    dead = Dead()
    await dead.put(received("1"), received("", JUNK), reason=DeadLetterReason.UNDECODABLE)

    async with dead.leased() as letters:
        await discard(letters, EVERYTHING, tell=Told(), dry_run=True)
    untouched = len(await dead.store.letters())
    async with dead.leased() as letters:
        await discard(letters, EVERYTHING, tell=Told())

    assert (2, ()) == (untouched, await dead.store.letters())


async def test_a_command_does_not_need_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """Letters are taken out whether or not their notices can be; that these stay is told once."""
    dead, told = Dead([AWAY]), Told()
    await dead.put(
        *(received(str(number), Message(data=b"x")) for number in range(150)),
        reason=DeadLetterReason.UNDECODABLE,
    )

    async with dead.leased() as letters:
        await discard(letters, EVERYTHING, tell=told)

    assert (["discarded"] * 150, 0) == (told.outcomes, dead.letters.subscription.backlog)
    assert [("away", 1)] == [(one["error"], dead.opened) for one in logged(caplog, "run_log_notices_failed")]
    assert 150 == len(await dead.store.letters())


async def test_nothing_is_opened_for_a_look() -> None:
    """Who only looks at dead letters needs no store."""
    dead = Dead()
    await dead.put(received("1"), reason=DeadLetterReason.UNDECODABLE)

    async with dead.leased() as letters:
        assert 1 == len([letter async for page in letters.chosen(EVERYTHING) for letter in page])

    assert (0, {"1"}) == (dead.opened, await dead.store.ids())


def test_keys() -> None:
    """A message is known by its id, else by its body."""
    assert "17" == notice_key("17", b"x")
    assert notice_key("", b"x") == notice_key("", b"x") != notice_key("", b"y")
    assert "\\ud800" == notice_key("\ud800", b"")
