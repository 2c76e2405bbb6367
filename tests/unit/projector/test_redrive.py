from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tests.fuzz.pipes import Letterbox

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Message,
    MessageRefusedError,
    ReceivedMessage,
    RunEvent,
    RunStatus,
    TransportUnavailableError,
    decode_event,
    encode_event,
)
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.wire import message_fault
from run_log.projector import (
    DeadLetter,
    HandledLetter,
    LeasedLetters,
    LetterChoice,
    LetterOutcome,
    PullReport,
    discard,
    redrive,
)
from run_log.projector.dead_letters.letters import (
    ERROR_ATTRIBUTE,
    LEFT_OUT_ATTRIBUTE,
    MESSAGE_ID_ATTRIBUTE,
    REASON_ATTRIBUTE,
)
from run_log.projector.pubsub import PubSubDeadLetters, PubSubEvents
from run_log.stores import InMemoryRunLogService
from run_log.testing import InMemorySubscription, InMemoryTopic, a_run, an_event

from .doubles import JUNK, ScriptedStore, WatchedSource, down, eventually, make_worker

EVERYTHING = LetterChoice()


class Topic:
    """The event topic, which fails as told."""

    def __init__(self, errors: Iterable[Exception | None] = ()) -> None:
        self._errors = iter(errors)
        self._topic = InMemoryTopic()
        self.events = self._topic.subscribe()
        self.published: list[Message] = []

    async def publish(self, message: Message) -> str:
        """See `PubSubEvents.publish`."""
        await asyncio.sleep(0)
        error = next(self._errors, None)
        if error is not None:
            raise error
        self._topic.publish([message])
        self.published.append(message)
        # As the topic counts: what it delivers has the same id.
        return str(len(self.published))


class KeptLetters:
    """Keeps dead letters as the projector does, where operators find them."""

    def __init__(self) -> None:
        self._topic = InMemoryTopic()
        self.subscription = self._topic.subscribe()

    async def put(self, message: ReceivedMessage, *, reason: DeadLetterReason, error: str) -> None:
        """See `DeadLetters.put`."""
        self.keep(message, reason=reason, error=error, original_id=message.message_id)

    def keep(
        self, message: Message, *, reason: DeadLetterReason, error: str = "why", original_id: str = "earlier"
    ) -> None:
        """Keep a message."""
        ours = {
            REASON_ATTRIBUTE: reason.value,
            ERROR_ATTRIBUTE: error,
            MESSAGE_ID_ATTRIBUTE: original_id,
        }
        self._topic.publish([Message(data=message.data, attributes={**message.attributes, **ours})])


@dataclass
class Told:
    """What became of letters."""

    handled: list[HandledLetter] = field(default_factory=list[HandledLetter])

    def __call__(self, handled: Sequence[HandledLetter]) -> None:
        """See `Tell`."""
        self.handled += handled

    @property
    def outcomes(self) -> list[str]:
        """What became of each, without regard to order."""
        return sorted(one.outcome.value for one in self.handled)


@asynccontextmanager
async def leased(source: WatchedSource) -> AsyncGenerator[LeasedLetters]:
    """Lease letters, which are all seen as soon as none has come for a moment."""
    async with LeasedLetters(source, quiet_seconds=0.02, stop_seconds=0.02) as letters:
        yield letters


async def redriven(
    subscription: InMemorySubscription,
    topic: Topic,
    choice: LetterChoice = EVERYTHING,
    *,
    dry_run: bool = False,
    **mended: Any,
) -> Told:
    """Re-drive letters and return what became of them."""
    told = Told()
    async with leased(WatchedSource(subscription)) as letters:
        await redrive(letters, topic.publish, choice, tell=told, dry_run=dry_run, **mended)
    return told


async def projected(
    events: InMemorySubscription, store: InMemoryRunLogService, letters: KeptLetters
) -> PullReport:
    """Project what waits."""
    return await make_worker(events, store, letters).run(stop=asyncio.Event(), until_idle=0.02)


@pytest.mark.parametrize(
    "ours",
    [
        {REASON_ATTRIBUTE: "too_many_deliveries", MESSAGE_ID_ATTRIBUTE: "17"},
        {REASON_ATTRIBUTE: "unsupported_version"},
        {REASON_ATTRIBUTE: "reason-of-a-newer-projector"},
        {REASON_ATTRIBUTE: "undecodable", LEFT_OUT_ATTRIBUTE: "4", MESSAGE_ID_ATTRIBUTE: "17"},
    ],
    ids=["a projector", "an older projector", "a newer projector", "attributes lost"],
)
async def test_what_can_be_projected_goes_back_as_it_was(ours: dict[str, str]) -> None:
    """A letter that states an event is published with its own body and attributes, whoever put it there."""
    event = encode_event(an_event())
    message = Message(data=event.data, attributes={**event.attributes, "own": "ä"})
    topic, letters = Topic(), InMemoryTopic()
    subscription = letters.subscribe()
    letters.publish([Message(data=event.data, attributes={**message.attributes, **ours})])

    told = await redriven(subscription, topic)

    assert [message] == topic.published
    assert (["redriven"], 0) == (told.outcomes, subscription.backlog)


POISON = {
    DeadLetterReason.UNDECODABLE: JUNK,
    DeadLetterReason.UNKNOWN_TYPE: Message(data=b'{"type": "somebody.elses"}'),
    DeadLetterReason.UNSUPPORTED_VERSION: Message(
        data=encode_event(an_event()).data.replace(b"run-state.v1", b"run-state.v2")
    ),
    DeadLetterReason.INVALID_EVENT: Message(
        data=encode_event(an_event()).data.replace(b'"event_id"', b'"event"')
    ),
}


@pytest.mark.parametrize("reason", POISON, ids=lambda reason: reason.value)
@pytest.mark.parametrize("by_id", [True, False])
async def test_what_is_no_event_is_kept(reason: DeadLetterReason, by_id: bool) -> None:  # noqa: FBT001 - a column of the table
    """What still states no event stays where it is, however it is chosen: it would only come back."""
    letters, topic = KeptLetters(), Topic()
    letters.keep(POISON[reason], reason=reason)
    ids, reasons = (
        (frozenset({"1"}), frozenset[str]()) if by_id else (frozenset[str](), frozenset({reason.value}))
    )

    told = await redriven(letters.subscription, topic, LetterChoice(ids=ids, reasons=reasons))

    (kept,) = told.handled
    assert (LetterOutcome.KEPT, []) == (kept.outcome, topic.published)
    assert kept.why.startswith(f"{reason.value}: ")
    assert (1, 0) == (letters.subscription.backlog, letters.subscription.outstanding)


async def test_what_a_wrong_clock_stamped() -> None:
    """A letter stamped too far ahead waits for its time, or goes as stamped so much earlier, in its order."""
    now = PROCESS_CLOCK.tick()
    year = timedelta(days=365)
    ahead = now + year // timedelta(microseconds=1)
    run = a_run(status=RunStatus.RUNNING)
    events = [an_event(run, hlc=ahead), an_event(run, hlc=ahead + 1, status=RunStatus.SUCCESS)]
    letters, topic = KeptLetters(), Topic()
    for event in reversed(events):
        letters.keep(encode_event(event), reason=DeadLetterReason.CLOCK_AHEAD)
    letters.keep(encode_event(an_event(hlc=now)), reason=DeadLetterReason.CLOCK_AHEAD)

    at_once = await redriven(letters.subscription, topic)
    too_little = await redriven(letters.subscription, topic, earlier=timedelta(days=300))
    told = await redriven(letters.subscription, topic, earlier=year)

    assert ["kept", "kept", "redriven"] == at_once.outcomes
    assert {"clock_ahead"} == {one.why.partition(":")[0] for one in at_once.handled if one.why}
    assert (["kept"] * 2, ["redriven"] * 2) == (too_little.outcomes, told.outcomes)
    published = [decode_event(message) for message in topic.published[1:]]
    assert [(now + 1, events[1].event_id), (now, events[0].event_id)] == [
        (event.hlc, event.event_id) for event in published
    ]
    assert {event.occurred_at - year for event in events} == {event.occurred_at for event in published}


UNTYPED = Message(
    data=encode_event(an_event()).data.replace(b'{"type":"run-log.run-state.v1",', b"{"),
    attributes={
        **{f"a-{number:02}": str(number) for number in range(97)},
        "ce-type": "run-log.run-state.v1",
        "run-log-reason": "of the publisher's own",
        "CloudPubSubDeadLetterSourceDeliveryCount": "7",
    },
)
"""All attributes that there may be, the type among them, and names like ours."""


async def lettered(message: Message) -> InMemorySubscription:
    """Return the dead letters' subscription, with *message* as the projector puts it there."""
    box, letters = Letterbox(), InMemoryTopic()
    subscription = letters.subscribe()
    received = ReceivedMessage(data=message.data, attributes=message.attributes, message_id="17", ack_id="a")
    await PubSubDeadLetters(box, "letters").put(
        received, reason=DeadLetterReason.TOO_MANY_DELIVERIES, error="why"
    )
    letters.publish(box.letters)
    return subscription


async def test_all_attributes_go_back() -> None:
    """A letter whose message has as many attributes as there may be, of any name, is re-driven with each."""
    subscription, topic = await lettered(UNTYPED), Topic()

    told = await redriven(subscription, topic)

    assert (["redriven"], [UNTYPED]) == (told.outcomes, topic.published)
    assert decode_event(UNTYPED).run == an_event().run


async def test_a_repaired_letter_has_no_more_attributes_than_there_may_be() -> None:
    """A repaired event is published with its own attributes in place of the letter's, a hundred at most."""
    event = encode_event(an_event(id="repaired"))
    subscription, topic = await lettered(UNTYPED), Topic()

    await redriven(subscription, topic, LetterChoice(ids=frozenset({"17"})), repaired=event.data)

    (published,) = topic.published
    assert message_fault(published) is None
    assert decode_event(event).run == decode_event(published).run
    assert published.attributes.keys() == UNTYPED.attributes.keys()


async def test_a_letter_that_is_not_whole_is_kept() -> None:
    """A letter of which the end had to make room is not published as if it were the message that it was."""
    message = Message(data=random.Random(1).randbytes(10_000_000))
    subscription, topic = await lettered(message), Topic()
    event = encode_event(an_event())

    (kept,) = (await redriven(subscription, topic)).handled
    repaired = await redriven(subscription, topic, LetterChoice(ids=frozenset({"17"})), repaired=event.data)

    assert LetterOutcome.KEPT is kept.outcome
    assert "bytes of its body are lost" in kept.why
    assert ["redriven"] == repaired.outcomes
    assert event.data == topic.published[0].data


async def test_what_only_a_push_can_carry_is_kept() -> None:
    """A letter whose message was pushed with an attribute that Pub/Sub never takes is kept, and told why."""
    event = encode_event(an_event())
    subscription = await lettered(Message(data=event.data, attributes={"odd": "\ud800"}))
    told = Told()

    async with leased(WatchedSource(subscription)) as letters:
        await redrive(letters, PubSubEvents(Letterbox(), "events").publish, EVERYTHING, tell=told)

    (kept,) = told.handled
    assert LetterOutcome.KEPT is kept.outcome
    assert "does not take this message" in kept.why


@pytest.mark.parametrize("reason", [DeadLetterReason.WRITE_REFUSED, DeadLetterReason.EXPIRED])
async def test_what_does_not_pass_by_itself_is_asked_for(reason: DeadLetterReason) -> None:
    """What the store refused, or what has expired, is re-driven by id or by reason, and not with others."""
    letters, topic = KeptLetters(), Topic()
    for number in range(2):
        letters.keep(encode_event(an_event(id=str(number))), reason=reason)

    everything = await redriven(letters.subscription, topic, LetterChoice(workflow_id="workflow-1"))
    published = len(topic.published)
    by_id = await redriven(letters.subscription, topic, LetterChoice(ids=frozenset({"1"})))
    by_reason = await redriven(letters.subscription, topic, LetterChoice(reasons=frozenset({reason.value})))

    assert (["kept", "kept"], 0) == (everything.outcomes, published)
    assert [["redriven"], ["redriven"]] == [by_id.outcomes, by_reason.outcomes]
    assert {"0", "1"} == {decode_event(message).run.id for message in topic.published}
    assert 0 == letters.subscription.backlog


async def test_a_dry_run_changes_nothing() -> None:
    """A dry run tells what would become of each letter, without its body, publishes nothing, keeps all."""
    letters, topic = KeptLetters(), Topic()
    letters.keep(JUNK, reason=DeadLetterReason.UNDECODABLE)
    letters.keep(encode_event(an_event()), reason=DeadLetterReason.TOO_MANY_DELIVERIES)

    told = await redriven(letters.subscription, topic, dry_run=True)
    really = await redriven(letters.subscription, topic)

    assert ["kept", "redriven"] == told.outcomes == really.outcomes
    assert {b""} == {one.letter.data for one in told.handled}
    assert 1 == len(topic.published) == letters.subscription.backlog


async def test_repaired_poison_is_projected() -> None:
    """A repaired body is published as the event that it states, whatever the letter said it was."""
    event = an_event(id="mended")
    poison = Message(data=b"{", attributes={"ce-type": "somebody.elses", "ce-id": "wrong", "own": "1"})
    letters, topic, store = KeptLetters(), Topic(), InMemoryRunLogService()
    letters.keep(poison, reason=DeadLetterReason.UNDECODABLE)
    stated = encode_event(event)

    told = await redriven(
        letters.subscription, topic, LetterChoice(ids=frozenset({"1"})), repaired=b" " + stated.data
    )
    report = await projected(topic.events, store, letters)

    assert (["redriven"], 0) == (told.outcomes, letters.subscription.backlog)
    assert [Message(data=stated.data, attributes={**stated.attributes, "own": "1"})] == topic.published
    assert (1, 0) == (report.pulled, report.dead_lettered)
    assert event.run == await store.get_run(*event.key)


async def test_a_repair_that_is_none() -> None:
    """A repaired body that is no event is an error, and the letter stays."""
    letters, topic = KeptLetters(), Topic()
    letters.keep(JUNK, reason=DeadLetterReason.UNDECODABLE)

    with pytest.raises(EventDecodeError):
        await redriven(letters.subscription, topic, repaired=b"[]")

    assert ([], 1, 0) == (topic.published, letters.subscription.backlog, letters.subscription.outstanding)


async def test_a_letter_that_the_topic_refuses() -> None:
    """A letter that the event topic does not take is kept with why; the others are re-driven."""
    letters, topic = KeptLetters(), Topic([MessageRefusedError("too large")])
    for number in range(3):
        letters.keep(encode_event(an_event(id=str(number))), reason=DeadLetterReason.TOO_MANY_DELIVERIES)

    told = await redriven(letters.subscription, topic)

    assert ["kept", "redriven", "redriven"] == told.outcomes
    assert ["too large"] == [one.why for one in told.handled if one.why]
    assert 1 == letters.subscription.backlog


async def test_a_topic_that_does_not_answer() -> None:
    """Where publishing fails, what is published is done and told, the rest is kept; then it fails."""
    letters, topic, told = KeptLetters(), Topic([None, down()]), Told()
    for number in range(3):
        letters.keep(encode_event(an_event(id=str(number))), reason=DeadLetterReason.TOO_MANY_DELIVERIES)

    with pytest.raises(TransportUnavailableError):
        async with leased(WatchedSource(letters.subscription)) as source:
            await redrive(source, topic.publish, EVERYTHING, tell=told)

    assert ["redriven", "redriven"] == told.outcomes
    assert (1, 0) == (letters.subscription.backlog, letters.subscription.outstanding)


class _Unacknowledged(WatchedSource):
    """A subscription to which no acknowledgement comes through."""

    def __init__(self, subscription: InMemorySubscription) -> None:
        super().__init__(subscription)
        self.reached = asyncio.Event()

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        assert ack_ids
        self.reached.set()
        await asyncio.Event().wait()


async def test_a_kill_between_publishing_and_acknowledging() -> None:
    """Killed between publish and acknowledgement, a re-drive is repeated, and changes nothing twice."""
    events = [an_event(id=str(number)) for number in range(5)]
    letters, topic, store = KeptLetters(), Topic(), InMemoryRunLogService()
    for event in events:
        letters.keep(encode_event(event), reason=DeadLetterReason.TOO_MANY_DELIVERIES)
    source = _Unacknowledged(letters.subscription)

    async def first() -> None:
        async with leased(source) as leases:
            await redrive(leases, topic.publish, EVERYTHING, tell=Told())

    killed = asyncio.create_task(first())
    await source.reached.wait()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    left = letters.subscription.backlog
    told = await redriven(letters.subscription, topic)
    report = await projected(topic.events, store, letters)

    assert (5, ["redriven"] * 5, 0) == (left, told.outcomes, letters.subscription.backlog)
    assert 10 == len(topic.published) == report.pulled
    assert {"total": 5, "successful": 5} == await store.get_stats("workflow-1")


async def test_what_comes_back_is_not_re_driven_for_ever() -> None:
    """A letter that a projector refuses again while a re-drive goes on is kept, and told with why."""
    refused = an_event(id="bad")

    def is_bad(event: RunEvent) -> bool:
        return event.run.id == "bad"

    letters, topic, store, told = KeptLetters(), _Answered(), ScriptedStore(refuses=is_bad), Told()
    letters.keep(encode_event(refused), reason=DeadLetterReason.WRITE_REFUSED)
    stop = asyncio.Event()
    projecting = asyncio.create_task(make_worker(topic.events, store, letters).run(stop=stop))

    async with asyncio.timeout(30), leased(WatchedSource(letters.subscription)) as leases:
        topic.is_back = lambda: letters.subscription.backlog > 1
        await redrive(leases, topic.publish, LetterChoice(reasons=frozenset({"write_refused"})), tell=told)
    stop.set()
    await projecting

    assert ["kept", "redriven"] == told.outcomes
    assert ["it was re-driven, and came back: too large"] == [one.why for one in told.handled if one.why]
    assert (1, 1) == (len(topic.published), letters.subscription.backlog)


class _Answered(Topic):
    """An event topic whose answer takes until the projector has dealt with the message."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back: Callable[[], bool] = lambda: True

    async def publish(self, message: Message) -> str:
        """See `PubSubEvents.publish`."""
        message_id = await super().publish(message)
        await eventually(self.is_back)
        return message_id


async def test_discarding() -> None:
    """What is chosen is discarded once it is saved; a dry run only tells what would be."""
    letters, saved, told, dry = KeptLetters(), list[tuple[DeadLetter, int]](), Told(), Told()
    choice = LetterChoice(reasons=frozenset({"undecodable"}))
    letters.keep(JUNK, reason=DeadLetterReason.UNDECODABLE)
    letters.keep(encode_event(an_event()), reason=DeadLetterReason.EXPIRED)

    def save(page: Sequence[DeadLetter]) -> None:
        saved.extend((letter, letters.subscription.backlog) for letter in page)

    async with leased(WatchedSource(letters.subscription)) as leases:
        await discard(leases, choice, tell=dry, save=save, dry_run=True)
    assert ([], 2) == (saved, letters.subscription.backlog)
    async with leased(WatchedSource(letters.subscription)) as leases:
        await discard(leases, choice, tell=told, save=save)

    ((letter, backlog),) = saved
    assert (JUNK.data, JUNK.attributes, 2) == (letter.data, letter.attributes, backlog)
    assert (["discarded"], ["discarded"]) == (dry.outcomes, told.outcomes)
    assert 1 == letters.subscription.backlog


async def test_what_cannot_be_saved_is_not_discarded() -> None:
    """Where saving fails, the letters stay."""
    letters = KeptLetters()
    letters.keep(JUNK, reason=DeadLetterReason.UNDECODABLE)

    def save(_letters: Sequence[DeadLetter]) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        async with leased(WatchedSource(letters.subscription)) as leases:
            await discard(leases, EVERYTHING, tell=Told(), save=save)

    assert (1, 0) == (letters.subscription.backlog, letters.subscription.outstanding)
