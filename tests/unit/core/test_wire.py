from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest

from run_log.core import DeadLetterReason, EventDecodeError, Message, decode_event, encode_event
from run_log.core.clock import micros_of
from run_log.core.nearest import MAX_DEPTH
from run_log.core.wire import EVENT_TYPE, MAX_STAMPED_AHEAD, SCHEMA_VERSION, check_stamp

from .builders import NOON, body, make_event, message

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


def _in_run(**changes: Any) -> dict[str, Any]:
    return body(run={**body()["run"], **changes})


def _spliced(before: str, after: str) -> bytes:
    """Return a valid body's bytes with *before* replaced: for what `json.dumps` does not write."""
    content = json.dumps(_in_run(result={"deep": "HERE"}))
    assert before in content
    return content.replace(before, after).encode()


def test_the_attributes_of_an_event() -> None:
    """These are the CloudEvents attributes that routers and subscriptions filter on."""
    expected = {
        "ce-specversion": "1.0",
        "ce-id": "e001",
        "ce-source": "//run-log/workflows/a%2Fb%20%C3%A9",
        "ce-type": EVENT_TYPE,
        "ce-subject": "runs/r%3F1",
        "ce-time": "2026-03-04T12:00:00.000000Z",
        "ce-dataschema": f"urn:run-log:schema:run-state:{SCHEMA_VERSION}",
        "content-type": "application/json",
    }

    assert expected == encode_event(make_event(workflow_id="a/b é", id="r?1")).attributes


def test_long_ids_become_digests_in_attributes() -> None:
    """An id that would not fit into an attribute stands there as its digest; the body keeps it."""
    event = make_event(workflow_id="é" * 512, id="x" * 1_024)
    encoded = encode_event(event)

    assert encoded.attributes["ce-source"].startswith("//run-log/workflows/sha256-")
    assert encoded.attributes["ce-subject"].startswith("runs/sha256-")
    assert event == decode_event(encoded)
    assert "runs/" + "x" * 1_019 == encode_event(make_event(id="x" * 1_019)).attributes["ce-subject"]


@pytest.mark.parametrize(
    ("parent", "state", "carried"),
    [
        (PARENT, "v=1", {"traceparent": PARENT, "tracestate": "v=1"}),
        (PARENT, None, {"traceparent": PARENT}),
        (PARENT, "x" * 1_024, {"traceparent": PARENT, "tracestate": "x" * 1_024}),
        (PARENT, "x" * 1_025, {"traceparent": PARENT}),
        (None, "v=1", {}),
        ("x" * 1_025, "v=1", {}),
        ("\udcff", "v=1", {}),
        (PARENT, "\udcff", {"traceparent": PARENT}),
    ],
)
def test_only_trace_context_that_pubsub_takes_is_carried(
    parent: str | None, state: str | None, carried: dict[str, str]
) -> None:
    """Trace context that would make the publish fail is left out; the event is published."""
    attributes = encode_event(make_event(traceparent=parent, tracestate=state)).attributes

    assert carried == {name: value for name, value in attributes.items() if name.startswith("trace")}


NO_EVENTS: dict[DeadLetterReason, list[object]] = {
    DeadLetterReason.UNDECODABLE: [
        *(b"", b"not json", b"\xff\xfe{", b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000),
        *([1], "text", None),
        _spliced('"HERE"', "[" * 100_000 + "]" * 100_000),
        _spliced('"hlc": 7', '"hlc": 1' + "0" * 5_000),
    ],
    DeadLetterReason.UNKNOWN_TYPE: [
        *({}, {"type": 5}, {"type": None}, {"type": ["run-log.run-state.v1"]}),
        *(body(type="com.example.order.v1"), body(type="run-log.run-state.v")),
        *(body(type="run-log.run-state.v-1"), body(type="run-log.run-state.v\uff11")),
    ],
    DeadLetterReason.UNSUPPORTED_VERSION: [
        *(body(type="run-log.run-state.v2"), body(type="run-log.run-state.v999999999")),
    ],
    DeadLetterReason.INVALID_EVENT: [
        _spliced('"hlc": 7', '"hlc": 1' + "0" * 4_000),
        _spliced('"hlc": 7', '"hlc": NaN'),
        _spliced('"duration_ms": 0.0', '"duration_ms": NaN'),
        _spliced('"duration_ms": 0.0', '"duration_ms": 1e999'),
        *(body(hlc=-1), body(hlc=2**62), body(hlc=1.5), body(run=[])),
        *(body(occurred_at="2026-03-04T12:00:00"), body(occurred_at=10**400)),
        *(_in_run(status="finished"), _in_run(id=""), _in_run(id="\ud800"), _in_run(attempt=10**30)),
        _in_run(started_at="0001-01-01T00:00:00+14:00"),
    ],
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(content, reason) for reason, contents in NO_EVENTS.items() for content in contents],
    ids=lambda part: part.value if isinstance(part, DeadLetterReason) else str(part)[:32],
)
def test_what_is_no_event_is_refused_with_its_reason(content: object, reason: DeadLetterReason) -> None:
    """Whatever arrives that is no event raises `EventDecodeError` with the reason for its dead letter."""
    with pytest.raises(EventDecodeError) as caught:
        decode_event(message(content))

    assert reason == caught.value.reason
    assert len(str(caught.value)) < 1_000


def _deepest(content: Callable[[int], bytes]) -> int:
    """Return how many levels the JSON parser takes of *content*, from about here."""
    shallow, deep = 1, 200_000
    while shallow + 1 < deep:
        middle = (shallow + deep) // 2
        try:
            json.loads(content(middle))
        except RecursionError:
            deep = middle
        else:
            shallow = middle
    return shallow


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_another_encoding_is_no_event(encoding: str) -> None:
    """A body is UTF-8, with a mark or without; anything else is refused, here as in an archive."""
    text = json.dumps(_in_run(result={"é": "+"}), ensure_ascii=False)

    with pytest.raises(EventDecodeError) as caught:
        decode_event(Message(data=text.encode(encoding)))

    assert caught.value.reason == DeadLetterReason.UNDECODABLE
    assert decode_event(Message(data=text.encode("utf-8-sig"))) == decode_event(Message(data=text.encode()))


@pytest.mark.parametrize("version", [0, 1])
def test_nesting_is_bounded_for_everybody(version: int) -> None:
    """What nests deeper than our own events is refused, however deep the reader's own stack is."""
    run = {**body()["run"], "result": {"deep": "HERE"}}
    whole = json.dumps({"type": "run-log.run-state.v0", **run} if version == 0 else body(run=run))

    def nested(levels: int) -> Message:
        return Message(data=whole.replace('"HERE"', "[" * levels + "]" * levels).encode())

    event = decode_event(nested(MAX_DEPTH - 3))
    for levels in (MAX_DEPTH - 2, MAX_DEPTH, 900):
        with pytest.raises(EventDecodeError, match=r"nests more than|not JSON") as caught:
            decode_event(nested(levels))
        assert caught.value.reason == DeadLetterReason.UNDECODABLE
    assert event == decode_event(encode_event(event))


@pytest.mark.parametrize("name", ["result", "status", "started_at", "completed_at", "pause", "id", "more"])
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'], ids=["lists", "objects"])
def test_nesting_at_the_parsers_limit_is_an_event_or_refused(name: str, version: int, brackets: str) -> None:
    """A body nested about as deep as this Python's parser goes is an event, or refused with a reason."""
    begin, end = brackets[:-1], brackets[-1]
    run = {**body()["run"], name: "DEEP"}
    whole = json.dumps({"type": "run-log.run-state.v0", **run} if version == 0 else body(run=run)).encode()

    def nested(levels: int) -> bytes:
        return whole.replace(b'"DEEP"', begin.encode() * levels + b"1" + end.encode() * levels)

    deepest = _deepest(nested)
    reasons = set[str]()
    for levels in range(deepest - 25, deepest + 25):
        try:
            decode_event(Message(data=nested(levels)))
        except EventDecodeError as error:
            reasons.add(error.reason)

    assert {"undecodable"} <= reasons <= {"undecodable", "invalid_event"}


@pytest.mark.parametrize("published_at", [None, NOON - MAX_STAMPED_AHEAD, NOON])
def test_a_stamp_may_be_a_day_ahead(published_at: datetime | None) -> None:
    """The later of the reader's clock and the transport's counts. Beyond a day, what to do is said."""
    now = NOON if published_at != NOON else NOON - MAX_STAMPED_AHEAD
    bound = micros_of(NOON + MAX_STAMPED_AHEAD)

    check_stamp(make_event(hlc=bound), now, published_at)
    with pytest.raises(EventDecodeError, match="correct the clock") as caught:
        check_stamp(make_event(hlc=bound + 1), now, published_at)

    assert caught.value.reason == DeadLetterReason.CLOCK_AHEAD


class _NoTextError(Exception):
    def __str__(self) -> str:
        raise MemoryError


class _Unreadable:
    """Stands for bytes that cannot be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def decode(self, *_: object) -> str:
        raise self._error


@pytest.mark.parametrize("error", [MemoryError(), _NoTextError()], ids=["no memory", "no text"])
def test_whatever_is_raised_is_a_decoding_error(error: Exception) -> None:
    """An error that nobody thought of is an `EventDecodeError` too, and names it, with a text or not."""
    with pytest.raises(EventDecodeError, match=type(error).__name__) as caught:
        decode_event(Message(data=cast("bytes", _Unreadable(error))))

    assert caught.value.reason == DeadLetterReason.UNDECODABLE
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "content",
    [
        {"type": "x" * 10_000_000},
        {"type": "\ud800"},
        {**body(), "type": "run-log.run-state.v0", "started_at": "\ud800" * 5_000},
        {**body(), "type": "run-log.run-state.v0", "started_at": ["x" * 5_000] * 100},
    ],
    ids=["long", "surrogate", "long surrogates", "long list"],
)
def test_what_is_said_of_a_body_can_be_published(content: object) -> None:
    """What is wrong is said in UTF-8, and in short, whatever stands in the body."""
    with pytest.raises(EventDecodeError) as caught:
        decode_event(message(content))

    assert 0 < len(str(caught.value).encode()) <= 2_000


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "googclient_traceparent"])
def test_an_odd_trace_context_costs_no_event(name: str) -> None:
    """A trace context that no header could carry is left out; the event is read."""
    for value in ("\ud800", "é", "x" * 2_000, ""):
        assert decode_event(message(body())) == decode_event(message(body(), **{name: value}))


@pytest.mark.parametrize("milliseconds", [-419_944.1, -1, -1e308])
def test_a_negative_duration_is_read_as_none(milliseconds: float) -> None:
    """An event that was stored with a negative duration is read, and took no time."""
    assert decode_event(message(_in_run(duration_ms=milliseconds))).run.duration_ms == 0


@pytest.mark.parametrize(
    "changes",
    [
        *({"id": 5}, {"id": True}, {"workflow_id": ["w"]}, {"trigger_data": [1]}),
        *({"result": "text"}, {"error": 5}, {"error": {}}, {"pause": {"reason": 5}}),
    ],
    ids=repr,
)
def test_the_wire_is_as_its_schema_says(changes: dict[str, object]) -> None:
    """What a workflow may hand over in any form, other publishers have to write as the schema says."""
    with pytest.raises(EventDecodeError, match="not an event: run") as caught:
        decode_event(message(_in_run(**changes)))

    assert caught.value.reason == DeadLetterReason.INVALID_EVENT


def test_what_has_no_newer_field_is_said_as_before() -> None:
    """The body of a run without labels, parent, trace and type of error is that of schema 1-0-1."""
    older = {
        "id", "workflow_id", "status", "trigger_type", "trigger_data", "result", "error", "started_at",
        "completed_at", "duration_ms", "attempt", "pause",
    }  # fmt: skip

    assert older == json.loads(encode_event(make_event()).data)["run"].keys()


def test_a_wrong_addition_costs_no_event() -> None:
    """What cannot be a label, a parent, a trace or a type of error is left out; the event stays."""
    labels = {"team": "a", "Not A Key": "b", "count": 3, "long": "x" * 129, "deep": ["x"], "none": None}
    run = decode_event(message(_in_run(labels=labels, parent=["w"], trace_id="0" * 32, error_type=5))).run
    text = decode_event(message(_in_run(labels="x", parent="p", trace_id=7, error_type=["E"]))).run

    assert {"team": "a", "count": "3"} == run.labels
    assert (None, None, None) == (run.parent, run.trace_id, text.error_type)
    assert (None, None) == (text.parent, text.trace_id)


def test_unknown_fields_are_ignored() -> None:
    """Fields of a later minor version, in the body, the run and the pause, change nothing."""
    pause = {"reason": "why"}
    known = _in_run(pause=pause)
    newer = {**_in_run(pause={**pause, "channel": "x"}, tags=["a"]), "region": {"nested": [1]}}

    assert decode_event(message(known)) == decode_event(message(newer))


def test_a_message_is_made_once() -> None:
    """Changing the run's payload after encoding does not change the message."""
    event = make_event(result={"a": [1]})
    encoded = encode_event(event)
    event.run.result["a"].append(2)

    assert decode_event(Message(data=encoded.data)).run.result == {"a": [1]}


@pytest.mark.parametrize("name", ["event_id", "hlc", "occurred_at", "run", *sorted(body()["run"])])
def test_a_field_that_is_missing_or_null_is_named(name: str) -> None:
    """What an event needs is refused where it is missing or null. What may be absent reads as empty.

    Without identity, version or moment of its own, an event would be another one at each delivery.
    """
    optional = {"trigger_data", "result", "error", "completed_at", "pause", "duration_ms", "attempt"}
    optional |= {"labels", "parent", "trace_id", "error_type", "progress"}
    is_runs = name in body()["run"]
    changed = [
        body(run=_without(body()["run"], name)) if is_runs else _without(body(), name),
        _in_run(**{name: None}) if is_runs else body(**{name: None}),
    ]
    for content in changed:
        if name in optional:
            assert decode_event(message(body())) == decode_event(message(content))
        else:
            with pytest.raises(EventDecodeError, match=rf"run\.{name}" if is_runs else name) as caught:
                decode_event(message(content))
            assert caught.value.reason == DeadLetterReason.INVALID_EVENT


def test_numbers_that_are_no_json_come_as_their_names() -> None:
    """NaN and what is infinite to Python come as text: what our own encoder makes of them."""
    event = decode_event(message(_spliced('"HERE"', "[NaN, Infinity, -Infinity, 1e999, -1E400, 1e308]")))

    assert event.run.result == {"deep": ["NaN", *["Infinity", "-Infinity"] * 2, 1e308]}
    assert event == decode_event(encode_event(event))


def test_what_may_stand_in_the_attributes() -> None:
    """A body needs no attributes. The type may stand there alone; the trace context stands nowhere else."""
    event = decode_event(message(body()))

    assert (event.event_id, event.hlc, event.occurred_at, event.inferred) == ("e1", 7, NOON, False)
    assert (event.traceparent, event.tracestate) == (None, None)
    assert event == decode_event(message(_without(body(), "type"), **{"ce-type": EVENT_TYPE}))
    assert event == decode_event(message(body(traceparent=PARENT)))
    # Google's publisher writes one of its own.
    for name in ("traceparent", "googclient_traceparent"):
        traced = decode_event(message(body(), **{name: PARENT}, tracestate="v=1"))
        assert (PARENT, "v=1") == (traced.traceparent, traced.tracestate)
