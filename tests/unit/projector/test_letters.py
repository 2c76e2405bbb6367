from __future__ import annotations

import base64
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.pubsub_v1 import PublishRequest
from tests.fuzz.pipes import Letterbox

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    InvalidArgumentError,
    Message,
    ReceivedMessage,
    encode_event,
)
from run_log.core.wire import MAX_MESSAGE_BYTES, message_fault
from run_log.projector import DeadLetter, LetterChoice
from run_log.projector.dead_letters.letters import COMPRESSED, PLAIN, UNKNOWN_REASON, packed, unpacked
from run_log.projector.pubsub import PubSubDeadLetters
from run_log.testing import an_event

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

OURS = {
    "run-log-reason": "undecodable",
    "run-log-error": "the body is not JSON",
    "run-log-message-id": "17",
    "run-log-attributes-left-out": "4",
}


def a_letter(
    data: bytes = b"no json", attributes: Mapping[str, str] = OURS, *, message_id: str = "4711"
) -> DeadLetter:
    """Return the letter that a message of the dead-letter subscription is."""
    return DeadLetter.from_message(
        ReceivedMessage(
            data=data,
            attributes=attributes,
            message_id=message_id,
            ack_id="a",
            delivery_attempt=2,
            published_at=NOON,
        )
    )


def test_a_projectors_letter() -> None:
    """A letter tells what a projector wrote down, and keeps the message's own attributes apart from that."""
    letter = a_letter(attributes={**OURS, "from": "elsewhere", "run-log-reason-of-mine": "x"})

    assert ("4711", "17", NOON, 2) == (
        letter.message_id,
        letter.original_id,
        letter.published_at,
        letter.delivery_attempt,
    )
    assert ("undecodable", "the body is not JSON", 4) == (letter.reason, letter.error, letter.left_out)
    assert {"from": "elsewhere", "run-log-reason-of-mine": "x"} == letter.attributes
    assert b"no json" == letter.data


def test_a_letter_of_pubsubs_own() -> None:
    """What Pub/Sub gave up by itself has been delivered too often, and its notes are not the message's."""
    letter = a_letter(
        attributes={
            "CloudPubSubDeadLetterSourceDeliveryCount": "50",
            "CloudPubSubDeadLetterSourceSubscription": "run-log-projector",
            "ce-id": "e",
        }
    )

    assert DeadLetterReason.TOO_MANY_DELIVERIES == letter.reason
    assert "after 50 deliveries" in letter.error
    assert (None, {"ce-id": "e"}) == (letter.original_id, letter.attributes)


def test_a_letter_from_anybody() -> None:
    """A message of which nobody says why it is there is a letter without a known reason."""
    letter = a_letter(attributes={})

    assert (UNKNOWN_REASON, None, 0) == (letter.reason, letter.original_id, letter.left_out)


@pytest.mark.parametrize("count", ["", "many", "-1", "²", "1.5", "9" * 5_000])
def test_a_count_that_is_none(count: str) -> None:
    """A count of attributes that is no number is taken for none."""
    assert 0 == a_letter(attributes={**OURS, "run-log-attributes-left-out": count}).left_out


EVENT = encode_event(an_event(workflow_id="a/b c", id="run 1"))
BODY: dict[str, Any] = json.loads(EVENT.data)
LONG = encode_event(an_event(workflow_id="ä" * 400, id="r"))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (EVENT, ("a/b c", "run 1")),
        (Message(data=EVENT.data), ("a/b c", "run 1")),
        (Message(data=b"\xff", attributes=EVENT.attributes), ("a/b c", "run 1")),
        (Message(data=json.dumps(BODY["run"]).encode()), ("a/b c", "run 1")),
        (Message(data=b'{"run": {"id": 7, "workflow_id": "w"}}'), ("w", None)),
        (Message(data=b'{"run": [], "id": "r"}'), (None, None)),
        (Message(data=b"[1]", attributes={"ce-source": "//elsewhere", "ce-subject": "runs/"}), (None, None)),
        (Message(data=b"", attributes=LONG.attributes), (None, "r")),
        (Message(data=b"[" * 100_000), (None, None)),
    ],
    ids=["event", "body", "attributes", "bare run", "half", "wrong", "elsewhere", "hashed", "deep"],
)
def test_whose_a_letter_is(message: Message, told: tuple[str | None, str | None]) -> None:
    """Body or else attributes tell workflow and run, whatever else is wrong with the message."""
    letter = a_letter(message.data, message.attributes)

    assert told == (letter.workflow_id, letter.run_id)


@pytest.mark.parametrize(
    ("data", "body"),
    [(b'{"a": [1, NaN]}', {"a": [1, "NaN"]}), (b"{", None), (b"\xff\xfe\xfd", None), (b"9" * 5_000, None)],
    ids=["names", "text", "bytes", "digits"],
)
def test_bodies(data: bytes, body: Any) -> None:
    """A body is JSON that can be written again, or none."""
    assert body == a_letter(data).body


@pytest.mark.parametrize(
    ("choice", "is_taken"),
    [
        (LetterChoice(), True),
        (LetterChoice(ids=frozenset({"4711", "1"})), True),
        (LetterChoice(ids=frozenset({"17"})), True),
        (LetterChoice(ids=frozenset({"1"})), False),
        (LetterChoice(reasons=frozenset({"undecodable", "expired"})), True),
        (LetterChoice(reasons=frozenset({"expired"})), False),
        (LetterChoice(workflow_id="w\udcff"), False),
        (LetterChoice(since=NOON, until=NOON + SECOND), True),
        (LetterChoice(since=NOON + SECOND), False),
        (LetterChoice(until=NOON), False),
        (LetterChoice(workflow_id="w"), True),
        (LetterChoice(workflow_id="v"), False),
        (LetterChoice(reasons=frozenset({"undecodable"}), workflow_id="v"), False),
    ],
)
def test_choosing(choice: LetterChoice, is_taken: bool) -> None:  # noqa: FBT001 - a column of the table
    """A letter is chosen by its id or its message's, or where all fits; times include their begin."""
    assert is_taken is choice.takes(a_letter(b'{"run": {"workflow_id": "w"}}'))


def test_choosing_by_a_time_that_is_not_known() -> None:
    """A letter whose time nobody knows fits no time, and any other choice."""
    letter = DeadLetter.from_message(ReceivedMessage(data=b"", attributes={}, message_id="1", ack_id="a"))

    assert LetterChoice().takes(letter)
    assert not LetterChoice(since=NOON).takes(letter)
    assert not LetterChoice(until=NOON).takes(letter)


def test_choices_that_are_none() -> None:
    """A misspelt reason is refused, with those there are; so are ids and filters together."""
    reasons = frozenset({*(reason.value for reason in DeadLetterReason), UNKNOWN_REASON})

    with pytest.raises(InvalidArgumentError, match=r"'undecoded' is not a reason; .*undecodable"):
        LetterChoice(reasons=frozenset({"undecoded", "expired"}))
    with pytest.raises(InvalidArgumentError, match="not both"):
        LetterChoice(ids=frozenset({"1"}), workflow_id="w")
    assert reasons == LetterChoice(reasons=reasons).reasons


SIZES = (10_000_000, 9_999_999, 9_999_000)


def content(kind: str, size: int) -> bytes:
    """Return so many bytes."""
    chance = random.Random(size)
    match kind:
        case "text":
            return b'{"a": "%b"}' % (b"x" * (size - 9))
        case "random text":
            # As close to random bytes as UTF-8 comes.
            points = chance.choices(range(0x20, 0x800), weights=[9] * 96 + [1] * 1_920, k=100_000)
            text = "".join(map(chr, points)).encode()
            return (text * (size // len(text))).ljust(size, b"x")
        case _:
            return chance.randbytes(size)


async def kept(message: Message, error: str = "why " * 1_000) -> tuple[Message, DeadLetter]:
    """Return what is published as the dead letter of *message*, which Pub/Sub has to take, and the letter."""
    box = Letterbox()
    received = ReceivedMessage(data=message.data, attributes=message.attributes, message_id="17", ack_id="a")
    await PubSubDeadLetters(box, "letters").put(received, reason=DeadLetterReason.UNDECODABLE, error=error)
    (published,) = box.letters
    vendor: Any = PublishRequest  # not annotated
    request = vendor(
        topic="projects/fuzz/topics/letters",
        messages=[{"data": published.data, "attributes": dict(published.attributes)}],
    )
    assert message_fault(published) is None
    assert vendor.pb(request).ByteSize() <= MAX_MESSAGE_BYTES
    return published, a_letter(published.data, published.attributes)


@pytest.mark.parametrize("kind", ["text", "random text"])
@pytest.mark.parametrize("count", [0, 1, 100])
async def test_a_text_as_large_as_can_be_published_is_kept_whole(kind: str, count: int) -> None:
    """A message of any size that Pub/Sub takes becomes a dead letter, whole wherever its body is a text."""
    attributes = {f"{number:0>256}": "é" * 512 for number in range(count)}
    for size in SIZES if kind == "text" else SIZES[:1]:
        message = Message(data=content(kind, size - 1_288 * count), attributes=attributes)
        assert message_fault(message) is None

        _, letter = await kept(message)

        assert (message.data, message.attributes, 0) == (letter.data, letter.attributes, letter.cut)
        assert ("undecodable", "17") == (letter.reason, letter.original_id)
        assert letter.error.startswith("why why")


@pytest.mark.parametrize("size", [9_999_000, 9_999_900, 10_000_000, 12_000_000])
@pytest.mark.parametrize("attributes", [{}, {"run-log-reason": "forged"}], ids=["bare", "forged"])
async def test_of_random_bytes_only_what_does_not_fit_is_left_out(
    size: int, attributes: dict[str, str], metered: Callable[[], Counter[tuple[str, ...]]]
) -> None:
    """Of what does not compress the very end makes room for why it is here; letter, log and metric say so."""
    before = metered()["run_log.projector.dead_letters.cut",]
    message = Message(data=content("bytes", size - 64 * len(attributes)), attributes=attributes)

    _, letter = await kept(message)

    assert message.data == letter.data + message.data[len(letter.data) :]
    assert len(message.data) - len(letter.data) == letter.cut
    assert letter.cut <= max(0, size - 9_999_500)
    assert (attributes, "undecodable", "17") == (letter.attributes, letter.reason, letter.original_id)
    assert letter.error.startswith("why why")
    assert bool(letter.cut) == metered()["run_log.projector.dead_letters.cut",] - before


async def test_a_metric_that_raises_costs_no_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter is kept once, whatever the metric does that counts what it leaves out."""

    class Broken:
        def add(self, *_: object) -> None:
            raise RuntimeError("theirs")

    monkeypatch.setattr("run_log.projector.pubsub._cut_letters", Broken())

    _, letter = await kept(Message(data=content("bytes", 10_000_000)))

    assert letter.cut


async def test_attributes_that_no_message_has_are_said_to_be_left_out() -> None:
    """Whatever is pushed becomes a letter, also where its attributes alone are more than a message holds."""
    chance = random.Random(5)
    huge = {f"n{number}": base64.b64encode(chance.randbytes(1_100_000)).decode() for number in range(10)}

    _, letter = await kept(Message(data=b"body", attributes=huge))

    assert (b"body", {}, 10) == (letter.data, letter.attributes, letter.left_out)


@pytest.mark.parametrize(
    "attributes",
    [
        {f"n{number}": "v" for number in range(96)},
        {f"n{number}": "v" for number in range(97)},
        {f"n{number}": "v" for number in range(100)},
        {f"n{number}": "v" for number in range(300)},
        dict(OURS),
        {"run-log-packed": "zlib", "run-log-body-left-out": "1"},
        {"CloudPubSubDeadLetterSourceDeliveryCount": "5", "run-log-reason": "x"},
        {"googclient_traceparent": "00", "goog": ""},
        {"": "", "\ud800": "\udfff", "n" * 3_000: "v" * 3_000, "\n\x00": '"\\\n'},
    ],
    ids=["96", "97", "100", "300", "ours", "packed", "Pub/Sub's", "Google's", "odd"],
)
@pytest.mark.parametrize("data", [b"", b"no json\n\x00", EVENT.data], ids=["empty", "bytes", "event"])
async def test_a_letter_gives_back_what_was_published(data: bytes, attributes: dict[str, str]) -> None:
    """A letter has its message's body byte for byte, and each attribute, whatever it is called."""
    published, letter = await kept(Message(data=data, attributes=attributes))
    again, inner = await kept(published)

    assert (data, attributes, 0, 0) == (letter.data, letter.attributes, letter.left_out, letter.cut)
    assert ("undecodable", "17") == (letter.reason, letter.original_id)
    # A letter that somebody publishes as an event is one more message.
    assert (published.data, published.attributes) == (inner.data, inner.attributes)
    assert again != published
    # Where there is room for ours, any tool sees what was published.
    if all(name.startswith("n") and len(attributes) <= 97 for name in attributes):
        assert data == published.data
        assert attributes.items() <= published.attributes.items()


def test_names_like_ours_in_what_pubsub_gave_up() -> None:
    """Of a message that Pub/Sub itself gave up, what is called as ours are was published, and is kept."""
    forged = {**OURS, "run-log-packed": "plain"}

    letter = a_letter(EVENT.data, {**forged, "CloudPubSubDeadLetterSourceDeliveryCount": "50"})

    assert (DeadLetterReason.TOO_MANY_DELIVERIES, EVENT.data, forged) == (
        letter.reason,
        letter.data,
        letter.attributes,
    )


@pytest.mark.parametrize("how", [PLAIN, COMPRESSED, "of a newer version"])
def test_a_packed_letter_that_is_damaged(how: str) -> None:
    """What was packed and is damaged is an error, never another message, and its letter is not whole."""
    whole = packed(EVENT, how)
    bomb = zlib.compress(b"{}\n" + bytes(20 * 2**20), 1)
    chance = random.Random(3)
    for damaged in (b"", b"\xff", b"[1]\n", whole[: len(whole) // 4], bomb, chance.randbytes(500)):
        with pytest.raises(EventDecodeError, match="does not hold a message"):
            unpacked(damaged, how)
        letter = a_letter(damaged, {**OURS, "run-log-packed": how})

        assert (damaged, {}, len(damaged)) == (letter.data, letter.attributes, letter.cut)
        assert "does not hold a message" in letter.error
