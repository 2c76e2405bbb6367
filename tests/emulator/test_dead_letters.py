"""Dead letters of a real projector: looked at, re-driven, repaired and thrown away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from run_log.core import (
    DeadLetterReason,
    Message,
    Outcome,
    ReceivedMessage,
    RunStatus,
    TransportRefusedError,
    encode_event,
    utc_now,
)
from run_log.core.models import RunKey
from run_log.core.wire import MAX_MESSAGE_BYTES
from run_log.projector import (
    DeadLetter,
    HandledLetter,
    LeasedLetters,
    LetterChoice,
    LetterOutcome,
    PullWorker,
    discard,
    redrive,
)
from run_log.projector.dead_letters.leased import PAGE
from run_log.projector.google_cloud import event_topic, leased_letters, pull
from run_log.projector.pubsub import PubSubDeadLetters, PubSubSource
from run_log.testing import an_event

from .firestore_kit import OpenedService
from .projector_kit import provisioned_with_short_leases, until, until_true, wired
from .pubsub_kit import RawPubSub

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

GOOD = an_event(id="good")
MENDED = an_event(id="mended")
NEWER = encode_event(an_event(id="newer"))
SPOILT = an_event(id="spoilt", status=RunStatus.RUNNING)

POISON = {
    "undecodable": Message(data=b"\xff no json", attributes={"from": "elsewhere", "n": "1"}),
    "unsupported_version": Message(
        data=NEWER.data.replace(b"run-state.v1", b"run-state.v2"), attributes=NEWER.attributes
    ),
    "invalid_event": Message(data=encode_event(MENDED).data.replace(b'"event_id"', b'"event"')),
    "write_refused": encode_event(an_event(SPOILT.run, status=RunStatus.SUCCESS)),
}
"""A message for each of these reasons; the last one for a run whose document is spoilt."""

_SPOILT_PATH = "autopilot_runs/{}/runs/{}".format(*SPOILT.key)

EVERYTHING = LetterChoice()

PATIENCE = 60.0
"""Where all that is looked for is there, nothing takes so long."""


@pytest.fixture
def raw(emulator_environment: object) -> RawPubSub:  # noqa: ARG001 - tests that use `projector` ask for it first
    """Return a Pub/Sub with topics and subscriptions."""
    return provisioned_with_short_leases()


@pytest.fixture
async def store(emulator_environment: object) -> AsyncIterator[OpenedService]:  # noqa: ARG001 - see raw
    """Yield what holds the projection."""
    service = OpenedService.from_env()
    yield service
    await service.close()


@pytest.fixture
async def projector(raw: RawPubSub) -> AsyncIterator[PullWorker]:  # noqa: ARG001 - it makes what is pulled
    """Yield a projector that works until the test ends."""
    async with wired() as it:
        stop = asyncio.Event()
        running = asyncio.create_task(it.worker.run(stop=stop))
        yield it.worker
        stop.set()
        await running


async def spoil(store: OpenedService) -> None:
    """Store a run, and write into its document what no projector can merge with."""
    await store.apply([SPOILT])
    await store.reference(_SPOILT_PATH).update({"status": "no such"})


async def mend(store: OpenedService) -> None:
    """Write into the document of `spoil` what was there."""
    await store.reference(_SPOILT_PATH).update({"status": "running"})


async def poisoned(raw: RawPubSub, store: OpenedService) -> dict[str, str]:
    """Have the projector dead-letter what is in `POISON`; return the letters' ids by reason."""
    await spoil(store)
    raw.publish([*POISON.values(), encode_event(GOOD)])
    await has_total(store, 2)
    return {letter.reason: letter.message_id for letter in await read(raw, len(POISON))}


async def has_total(store: OpenedService, total: int) -> None:
    """Wait until the stats count so many runs."""

    async def counts() -> bool:
        return (await store.get_stats("workflow-1"))["total"] == total

    await until(counts)


@asynccontextmanager
async def leased(raw: RawPubSub) -> AsyncGenerator[LeasedLetters]:
    """Lease the dead letters."""
    async with leased_letters(raw.settings, quiet_seconds=PATIENCE) as letters:
        yield letters


async def read(raw: RawPubSub, count: int, choice: LetterChoice = EVERYTHING) -> list[DeadLetter]:
    """Return *count* dead letters, which have to be there."""
    found: list[DeadLetter] = []
    async with leased(raw) as letters:
        async for page in letters.chosen(choice):
            found += page
            if len(found) >= count:
                break
    return found


async def redriven(
    raw: RawPubSub, ids: Sequence[str], *, repaired: bytes | None = None
) -> dict[str, HandledLetter]:
    """Re-drive letters by their ids, and return what became of each."""
    told: list[HandledLetter] = []
    async with leased(raw) as letters, event_topic(raw.settings) as topic:
        await redrive(
            letters,
            topic,
            LetterChoice(ids=frozenset(ids)),
            tell=told.extend,
            repaired=repaired,
        )
    return {one.letter.message_id: one for one in told}


@pytest.mark.usefixtures("projector")
async def test_letters_of_a_projector(raw: RawPubSub, store: OpenedService) -> None:
    """Each letter tells why it is there, and is the message that it was; looking changes nothing."""
    await poisoned(raw, store)

    found = await read(raw, len(POISON))
    again = await read(raw, len(POISON))

    assert set(POISON) == {letter.reason for letter in found}
    assert {letter.message_id: letter for letter in found} == {letter.message_id: letter for letter in again}
    for letter in found:
        message = POISON[letter.reason]
        assert (message.data, message.attributes) == (letter.data, letter.attributes)
        assert letter.error
        assert letter.original_id
        assert letter.published_at is not None
    runs = {letter.reason: (letter.workflow_id, letter.run_id) for letter in found}
    assert {
        "undecodable": (None, None),
        "unsupported_version": ("workflow-1", "newer"),
        "invalid_event": MENDED.key,
        "write_refused": SPOILT.key,
    } == runs


@pytest.mark.usefixtures("projector")
async def test_the_largest_messages_there_may_be(raw: RawPubSub) -> None:
    """Poison as large as can be published becomes a dead letter, whole or but for the end of random bytes."""
    size = MAX_MESSAGE_BYTES
    chance = random.Random(14)
    messages = {
        message_id: message
        for message in (
            Message(data=b"x" * size),
            Message(data=chance.randbytes(size)),
            Message(data=chance.randbytes(size - 1_000)),
            Message(data=b"x" * (size - 100 * 26), attributes={f"{n:017}": "v" for n in range(100)}),
        )
        for message_id in raw.publish([message])
    }

    letters = await read(raw, len(messages))

    assert messages.keys() == {letter.original_id for letter in letters}
    assert {"undecodable"} == {letter.reason for letter in letters}
    for letter in letters:
        message = messages[str(letter.original_id)]
        assert message.attributes == letter.attributes
        assert message.data[: size - letter.cut] == letter.data
        assert letter.cut < 500
    assert 1 == sum(letter.cut > 0 for letter in letters)


@pytest.mark.usefixtures("projector")
async def test_a_message_with_all_attributes_is_projected_once_it_is_redriven(
    raw: RawPubSub, store: OpenedService
) -> None:
    """A letter of a good event with a hundred attributes, one of which alone tells its type, is re-driven."""
    event = encode_event(an_event(id="untyped"))
    own = {f"run-log-{number:02}": str(number) for number in range(98)}
    message = ReceivedMessage(
        data=event.data.replace(b'{"type":"run-log.run-state.v1",', b"{"),
        attributes={**own, "ce-type": event.attributes["ce-type"], "run-log-reason": "of its publisher"},
        message_id="17",
        ack_id="a",
    )
    letters = PubSubDeadLetters(raw.connection, raw.settings.dead_letter_topic)
    await letters.put(message, reason=DeadLetterReason.TOO_MANY_DELIVERIES, error="why")
    await letters.close()
    (letter,) = await read(raw, 1)

    handled = await redriven(raw, [letter.message_id])

    assert [LetterOutcome.REDRIVEN] == [one.outcome for one in handled.values()]
    assert (message.data, message.attributes) == (letter.data, letter.attributes)
    await has_total(store, 1)


@pytest.mark.usefixtures("projector")
async def test_more_letters_than_a_pull_brings(raw: RawPubSub) -> None:
    """Each of many letters is there once, however many pulls they take."""
    count = 2 * PAGE + 5
    raw.publish([Message(data=b"no json", attributes={"n": str(number)}) for number in range(count)])

    found = await _each(raw, count)

    assert {str(number) for number in range(count)} == {letter.attributes["n"] for letter in found}
    assert len(found) == len({letter.message_id for letter in found})


async def _each(raw: RawPubSub, count: int) -> list[DeadLetter]:
    """Return letters as soon as they are of *count* messages: each may have been dead-lettered twice."""
    found: list[DeadLetter] = []
    async with leased(raw) as letters:
        while len({letter.original_id for letter in found}) < count:
            page = await letters.more()
            assert page
            found += page
    return found


@pytest.mark.usefixtures("projector")
async def test_repaired_poison_end_to_end(raw: RawPubSub, store: OpenedService) -> None:
    """Poison whose cause is mended, or whose body is repaired, is re-driven until queries see its run."""
    ids = await poisoned(raw, store)

    kept = await redriven(raw, [ids["undecodable"], ids["invalid_event"], ids["unsupported_version"]])
    await mend(store)
    asked = await redriven(raw, [ids["write_refused"]])
    repaired = await redriven(raw, [ids["invalid_event"]], repaired=encode_event(MENDED).data)
    await store_has(store, MENDED.key, RunStatus.SUCCESS)
    await store_has(store, SPOILT.key, RunStatus.SUCCESS)

    assert [LetterOutcome.KEPT] * 3 == [one.outcome for one in kept.values()]
    assert [LetterOutcome.REDRIVEN] * 2 == [one.outcome for one in (asked | repaired).values()]
    assert MENDED.run == await store.get_run(*MENDED.key)
    assert {"total": 3, "successful": 3} == await store.get_stats("workflow-1")
    left = await read(raw, 2)
    assert {"undecodable", "unsupported_version"} == {letter.reason for letter in left}


async def store_has(store: OpenedService, key: RunKey, status: RunStatus) -> None:
    """Wait until the store has a run in that status."""

    async def has() -> bool:
        run = await store.get_run(*key)
        return run is not None and run.status is status

    await until(has)


async def test_what_has_expired(raw: RawPubSub, store: OpenedService) -> None:
    """An event of an expired run comes back, and is projected once the retention is raised."""
    settings = raw.settings.model_copy(update={"retention_days": 1})
    old = an_event(occurred_at=utc_now() - timedelta(days=3))
    stop = asyncio.Event()
    running = asyncio.create_task(pull(settings, stop=stop))
    raw.publish([encode_event(old)])
    (letter,) = await read(raw, 1)

    await redriven(raw, [letter.message_id])
    (back,) = await read(raw, 1)
    stop.set()
    await running
    stop.clear()
    running = asyncio.create_task(pull(raw.settings, stop=stop))
    await redriven(raw, [back.message_id])
    await has_total(store, 1)
    stop.set()
    await running

    assert [DeadLetterReason.EXPIRED] * 2 == [letter.reason, back.reason]
    assert letter.message_id != back.message_id
    assert old.run == await store.get_run(*old.key)


@pytest.mark.usefixtures("projector")
async def test_beside_a_running_projector(raw: RawPubSub, store: OpenedService) -> None:
    """While a projector runs, what it refuses again is kept and told, and goes round no more."""
    await poisoned(raw, store)
    told: list[HandledLetter] = []

    async def until_it_is_back() -> None:
        async with leased(raw) as letters, event_topic(raw.settings) as topic:
            reasons = frozenset({"write_refused", "undecodable"})
            await redrive(letters, topic, LetterChoice(reasons=reasons), tell=told.extend)

    def is_back() -> bool:
        return any("came back" in one.why for one in told) and "undecodable" in {
            one.letter.reason for one in told
        }

    redriving = asyncio.create_task(until_it_is_back())
    await until_true(is_back)
    redriving.cancel()
    await asyncio.gather(redriving, return_exceptions=True)

    outcomes = {(one.letter.reason, one.outcome.value) for one in told}
    assert {("undecodable", "kept"), ("write_refused", "kept"), ("write_refused", "redriven")} == outcomes
    assert 1 == sum(one.outcome is LetterOutcome.REDRIVEN for one in told)
    assert set(POISON) == {letter.reason for letter in await read(raw, len(POISON))}
    assert GOOD.run == await store.get_run(*GOOD.key)


class _Dying(PubSubSource):
    """A subscription whose operator is killed before its first acknowledgement: it hears nothing more."""

    def __init__(self, raw: RawPubSub) -> None:
        super().__init__(raw.connection, raw.settings.dead_letter_topic)
        self.reached = asyncio.Event()

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        assert ack_ids
        self.reached.set()
        await asyncio.Event().wait()

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""


async def test_a_kill_between_publishing_and_acknowledging(
    raw: RawPubSub, store: OpenedService, projector: PullWorker
) -> None:
    """Killed between publish and acknowledgement, a re-drive is done again, and counts nothing twice."""
    ids = await poisoned(raw, store)
    await mend(store)
    source = _Dying(raw)

    async def first() -> None:
        choice = LetterChoice(ids=frozenset({ids["write_refused"]}))
        async with (
            LeasedLetters(source, quiet_seconds=PATIENCE) as letters,
            event_topic(raw.settings) as topic,
        ):
            await redrive(letters, topic, choice, tell=lambda _handled: None)

    killed = asyncio.create_task(first())
    reached = asyncio.create_task(source.reached.wait())
    await asyncio.wait({killed, reached}, return_when=asyncio.FIRST_COMPLETED)
    assert not killed.done(), killed.result()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    await source.close()
    handled = await redriven(raw, [ids["write_refused"]])
    # The good one, and the letter twice.
    expected = {Outcome.APPLIED: 2, Outcome.DUPLICATE: 1}
    await until_true(lambda: all(projector.report.outcomes[of] >= least for of, least in expected.items()))

    assert [LetterOutcome.REDRIVEN] == [one.outcome for one in handled.values()]
    assert 2 == projector.report.outcomes[Outcome.APPLIED]
    assert {"total": 2, "successful": 2} == await store.get_stats("workflow-1")
    assert 2 == len(await store.get_history(*SPOILT.key))


@pytest.mark.usefixtures("projector")
async def test_a_dry_run(raw: RawPubSub, store: OpenedService) -> None:
    """A dry run tells what would become of letters; nothing is published, and all are still there."""
    ids = await poisoned(raw, store)
    told: list[HandledLetter] = []

    async with leased(raw) as letters:
        choice = LetterChoice(ids=frozenset(ids.values()))
        await redrive(letters, _nowhere, choice, tell=told.extend, dry_run=True)

    outcomes = {one.letter.reason: one.outcome.value for one in told}
    assert {**dict.fromkeys(POISON, "kept"), "write_refused": "redriven"} == outcomes
    assert set(POISON) == {letter.reason for letter in await read(raw, len(POISON))}


async def _nowhere(message: Message) -> str:
    raise AssertionError(message)


@pytest.mark.usefixtures("projector")
async def test_discarded_letters_are_gone(raw: RawPubSub, store: OpenedService) -> None:
    """What is discarded is gone; the rest is still there."""
    ids = await poisoned(raw, store)
    told, saved = list[HandledLetter](), list[DeadLetter]()

    async with leased(raw) as letters:
        choice = LetterChoice(ids=frozenset({ids["undecodable"], ids["write_refused"]}))
        await discard(letters, choice, tell=told.extend, save=saved.extend)

    assert {"undecodable", "write_refused"} == {letter.reason for letter in saved}
    assert [LetterOutcome.DISCARDED] * 2 == [one.outcome for one in told]
    assert POISON["undecodable"].data in {letter.data for letter in saved}
    left = await read(raw, 2)
    assert {"unsupported_version", "invalid_event"} == {letter.reason for letter in left}


@pytest.mark.usefixtures("projector")
async def test_an_event_topic_that_is_not_there(raw: RawPubSub) -> None:
    """Where the event topic is not there, re-driving fails with what to run, and the letters stay."""
    raw.publish([Message(data=b"no json")])
    (letter,) = await read(raw, 1)
    broken = raw.settings.model_copy(update={"topic": "not-there"})

    with pytest.raises(TransportRefusedError, match="topics/not-there is not there; run `run-log provision`"):
        async with leased(raw) as letters, event_topic(broken) as topic:
            await redrive(
                letters,
                topic,
                LetterChoice(ids=frozenset({letter.message_id})),
                tell=lambda _handled: None,
                repaired=encode_event(MENDED).data,
            )

    assert [letter] == await read(raw, 1)
