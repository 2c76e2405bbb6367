"""What is taken live is the same event after an archive, a dead letter and a spool; what is not, is none."""

from __future__ import annotations

import codecs
import functools
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.bodies import Bodies
from tests.fuzz.pipes import Letterbox
from tests.unit.projector.archives import write_avro

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Message,
    ReceivedMessage,
    RunEvent,
    decode_event,
    encode_event,
)
from run_log.core.wire import EVENT_TYPE
from run_log.producer._segment import Segment, encode_record
from run_log.projector import DeadLetter
from run_log.projector.archive import ArchiveWriter, read_records
from run_log.projector.beam.steps import read_events
from run_log.projector.pubsub import PubSubDeadLetters
from run_log.testing import an_event

from .core_strategies import examples

GOOD: Final = encode_event(an_event(id="r1", result={"deep": "HERE"}))
BARE: Final[dict[str, Any]] = {
    key: value for key, value in json.loads(GOOD.data)["run"].items() if key != "type"
}
V0: Final = "run-log.run-state.v0"
UNTYPED: Final = GOOD.data.replace(b'"type":"run-log.run-state.v1",', b"")


TYPED: Final = json.dumps({**BARE, "type": V0}).encode()


def nested(levels: int) -> bytes:
    """Return so many lists, each in another."""
    return b"[" * levels + b"]" * levels


def spliced(text: bytes) -> Message:
    """Return a good body with *text* in place of a value."""
    return Message(data=GOOD.data.replace(b'"HERE"', text))


def bare(**attributes: str) -> Message:
    """Return a run as its platform dumped it, over several lines."""
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return Message(data=json.dumps(BARE, indent=1).encode(), attributes=named)


NAMED: Final[dict[str, Message]] = {
    "ours": GOOD,
    "names": spliced(b"[NaN, Infinity, -Infinity]"),
    "too large a number": spliced(b"[1e999, -1e999, 1e-999, -0, -0.0, 1E400]"),
    "huge integers": spliced(b"[%b, -%b]" % (b"9" * 4_300, b"9" * 4_000)),
    "too many digits": spliced(b"9" * 4_301),
    "a mark": Message(data=codecs.BOM_UTF8 + GOOD.data),
    "two marks": Message(data=2 * codecs.BOM_UTF8 + GOOD.data),
    "utf-16": Message(data=GOOD.data.decode().encode("utf-16")),
    "utf-16-le": Message(data=GOOD.data.decode().encode("utf-16-le")),
    "utf-32-be": Message(data=GOOD.data.decode().encode("utf-32-be")),
    "lone surrogates": spliced(b'["\\ud800", {"\\udfff\\ud800": 1}]'),
    "raw surrogates": spliced(b'"\xed\xa0\x80"'),
    "control characters": spliced(b'"\x01"'),
    "text": spliced('"é\u2028\U0001f600\x7f\x85"'.encode()),
    "keys twice": Message(data=GOOD.data.replace(b'"hlc"', b'"hlc":1,"type":"x","type":"%b","hlc"' % b"x")),
    "a type twice": Message(data=b'{"type":"x",' + GOOD.data[1:]),
    "type in attributes": Message(data=UNTYPED, attributes={"ce-type": EVENT_TYPE}),
    "no type": Message(data=UNTYPED),
    "empty type": Message(data=UNTYPED, attributes={"ce-type": ""}),
    "null type": Message(data=UNTYPED.replace(b"{", b'{"type":null,', 1), attributes={"ce-type": EVENT_TYPE}),
    "another type in attributes": Message(data=GOOD.data, attributes={"ce-type": "x", "": ""}),
    "bare": bare(ce_type=V0),
    "bare without type": bare(),
    "bare numbers": Message(
        data=b" "
        + json.dumps({**BARE, "result": 0}).replace('"result": 0', '"result":{"a":1E2,"a":1.0}').encode(),
        attributes={"ce-type": V0},
    ),
    "lines": Message(data=json.dumps(json.loads(GOOD.data), indent=2).replace("\n", "\r\n").encode()),
    "blanks around": Message(data=b" \t" + GOOD.data + b" "),
    "a feed before": Message(data=b"\x0c" + GOOD.data),
    "a feed behind": Message(data=GOOD.data + b"\x0b"),
    "lines around": Message(data=b"\n\n" + GOOD.data + b"\r\n"),
    "two bodies": Message(data=GOOD.data + b"\n" + GOOD.data),
    "no json": Message(data=b"no json\nat all\r"),
    "as gzip begins": Message(data=b"\x1f\x8b" + GOOD.data),
    "as avro begins": Message(data=b"Obj\x01" + GOOD.data),
    "as a kept message begins": Message(data=b'{"run-log-message":{"attributes":{},"data":"e30="}}'),
    "a list": Message(data=b"[1]", attributes={"ce-type": EVENT_TYPE}),
    "deep": spliced(nested(497)),
    "too deep": spliced(nested(498)),
    "as deep as a parser goes": spliced(nested(980)),
    "bare and deep": Message(data=TYPED.replace(b'"HERE"', nested(497))),
    "bare and too deep": Message(data=TYPED.replace(b'"HERE"', nested(498))),
    "traced": Message(
        data=GOOD.data, attributes={**GOOD.attributes, "traceparent": "00-1", "tracestate": ""}
    ),
    "large": spliced(b'["%b", 1]' % (b"x" * 1_300_000)),
}
"""Each of a kind of its own."""


def taken(message: Message) -> RunEvent | str:
    """Return the event that *message* states, or why it states none."""
    try:
        # The trace context travels beside the event, and is no part of it.
        return decode_event(message).model_copy(update={"traceparent": None, "tracestate": None})
    except EventDecodeError as error:
        return error.reason


def received(message: Message, message_id: str = "17") -> ReceivedMessage:
    """Return *message* as it is pulled."""
    return ReceivedMessage(
        data=message.data, attributes=message.attributes, message_id=message_id, ack_id="a"
    )


def archived(messages: Sequence[Message], folder: Path) -> list[RunEvent | str]:
    """Return what a rebuild takes of *messages* from the archive of one machine."""
    writer = ArchiveWriter(folder)
    writer.append(map(received, messages))
    writer.close()
    return read_back(b"".join(path.read_bytes() for path in folder.iterdir()))


def read_back(content: bytes) -> list[RunEvent | str]:
    """Return what a rebuild takes of a file."""
    records = list(read_records(io.BytesIO(content)))
    assert [None] * len(records) == [record.fault for record in records]
    found = [taken(Message(data=record.data, attributes=record.attributes)) for record in records]
    # And so does the pipeline.
    piped = list(read_events("a", io.BytesIO(content)))
    reasons = [json.loads(each)["reason"] if isinstance(each, str) else each.event_id for each in piped]
    assert reasons == [each if isinstance(each, str) else each.event_id for each in found]
    return found


async def lettered(message: Message) -> Message:
    """Return what is re-driven of *message*, once it was a dead letter."""
    box = Letterbox()
    await PubSubDeadLetters(box, "letters").put(
        received(message), reason=DeadLetterReason.EXPIRED, error="an error\n" * 500
    )
    (kept,) = box.letters
    letter = DeadLetter.from_message(received(kept, "4711"))
    assert ("expired", "17") == (letter.reason, letter.original_id)
    return Message(data=letter.data, attributes=letter.attributes)


@pytest.mark.parametrize("message", NAMED.values(), ids=NAMED)
async def test_what_is_taken_live_is_taken_alike(message: Message, tmp_path: Path) -> None:
    """An event taken live is the same after an archive, a dead letter and a spool; the rest is refused."""
    live = taken(message)
    write_avro(tmp_path / "avro", [message])

    assert [live] == archived([message], tmp_path / "lines")
    assert [live] == read_back((tmp_path / "avro").read_bytes())
    assert message == await lettered(message)
    if isinstance(live, RunEvent):
        assert live == spooled(live, tmp_path)


def spooled(event: RunEvent, folder: Path) -> RunEvent | str:
    """Return what is published of *event*, once it was spooled."""
    message = encode_event(event)
    segment = Segment.create(folder)
    segment.append([encode_record(message)])
    (record,) = segment.scan()
    segment.close()
    assert record is not None
    assert record.event is not None
    assert message == record.event.message
    return taken(record.event.message)


@pytest.mark.parametrize("first", NAMED.values(), ids=NAMED)
def test_no_message_spoils_the_file_of_another(first: Message, tmp_path: Path) -> None:
    """Whatever message a file of an archive begins with, the others are read as they were published."""
    messages = [first, GOOD, *NAMED.values()]

    assert [*map(taken, messages)] == archived(messages, tmp_path)


def test_what_is_taken_is_what_is_documented() -> None:
    """UTF-8 is taken, with a mark or without, and names of no numbers as texts; other encodings are not."""
    events = {name: taken(message) for name, message in NAMED.items()}
    refused = {name for name, event in events.items() if isinstance(event, str)}

    assert events["ours"] == events["a mark"] == events["type in attributes"] == events["lines"]
    assert {"two marks", "utf-16", "utf-16-le", "utf-32-be", "raw surrogates"} | {
        "too deep",
        "bare and too deep",
    } <= refused
    names = events["names"], events["too large a number"]
    assert [{"deep": ["NaN", "Infinity", "-Infinity"]}] == [
        e.run.result for e in names[:1] if isinstance(e, RunEvent)
    ]
    assert [["Infinity", "-Infinity", 0.0, 0, -0.0, "Infinity"]] == [
        e.run.result["deep"] for e in names[1:] if isinstance(e, RunEvent)
    ]


@functools.cache
def _made() -> Bodies:
    return Bodies(seed=23, count=1_000)


@pytest.fixture(scope="module")
def made() -> None:
    """Have Hypothesis make the values of bodies before it tries any."""
    _made()


bodies = st.integers(0, 10**6).map(lambda number: _made()(number).message)


@pytest.mark.search
@pytest.mark.usefixtures("made")
@examples(150)
@given(st.lists(bodies, min_size=1, max_size=8))
def test_any_message_is_taken_alike(messages: list[Message]) -> None:
    """However odd messages are, an archive of them gives the events that the live projector takes."""
    with tempfile.TemporaryDirectory() as folder:
        found = archived(messages, Path(folder))

    assert [taken(message) for message in messages if message.data.strip()] == found


OWN: Final = ("reason", "error", "message-id", "packed", "attributes-left-out", "body-left-out", "x")
VENDORS: Final = (
    *("CloudPubSubDeadLetterSourceDeliveryCount", "CloudPubSubDeadLetterSourceX", "googclient_traceparent"),
)

names = st.one_of(
    st.text(max_size=300),
    st.sampled_from(["ce-type", *(f"run-log-{name}" for name in OWN), *VENDORS]),
)
attributes = st.dictionaries(names, st.text(max_size=1_100), max_size=100)
many = st.integers(90, 100).map(lambda count: {f"n{number}": "v" for number in range(count)})


@examples(150)
@given(st.binary(max_size=100) | st.just(GOOD.data), attributes | many)
async def test_any_message_comes_back_from_the_dead_letters(data: bytes, own: Mapping[str, str]) -> None:
    """Whatever was published is re-driven byte for byte, attribute for attribute."""
    message = Message(data=data, attributes=own)

    assert message == await lettered(message)
