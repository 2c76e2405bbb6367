from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_log.core import DeadLetterReason, InvalidArgumentError, Message, ReceivedMessage, encode_event
from run_log.projector import DeadLetter, LetterChoice
from run_log.projector._letters import UNKNOWN_REASON
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


def test_a_reason_that_is_none() -> None:
    """A misspelt reason is refused, with those there are."""
    with pytest.raises(InvalidArgumentError, match=r"'undecoded' is no reason; .*undecodable"):
        LetterChoice(reasons=frozenset({"undecoded", "expired"}))


def test_ids_and_filters() -> None:
    """Ids and filters together are refused: one of them would be ignored."""
    with pytest.raises(InvalidArgumentError, match="not both"):
        LetterChoice(ids=frozenset({"1"}), workflow_id="w")


def test_every_reason_can_be_chosen() -> None:
    """Every reason that a projector writes can be chosen, and the one where nobody did."""
    reasons = frozenset({*(reason.value for reason in DeadLetterReason), UNKNOWN_REASON})

    assert reasons == LetterChoice(reasons=reasons).reasons
