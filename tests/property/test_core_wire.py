from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core import EventDecodeError, Message, PauseRequest, RunEvent, decode_event, encode_event
from run_log.core.ids import MAX_ID_BYTES, bounded_id
from run_log.core.wire import EVENT_TYPE

from .core_strategies import EPOCH, events, examples, ids, json_values, small_event

V0_TYPE = "run-log.run-state.v0"

trace_parents = st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True)


def _repeat(text: str, times: int, end: str) -> str:
    return text * times + end


long_ids = st.builds(
    _repeat,
    st.text(min_size=1, max_size=4),
    st.integers(min_value=250, max_value=1_100),
    st.text(max_size=1),
)
odd = st.one_of(
    json_values,
    st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01", "", "success", "1", "NaN", "v1"]),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(),
)


def _v0_body() -> dict[str, Any]:
    return {
        "type": V0_TYPE,
        "id": "r",
        "workflow_id": "w",
        "status": "running",
        "trigger_type": "manual",
        "started_at": EPOCH.isoformat(),
    }


@examples(100)
@given(events)
def test_an_event_comes_back_from_its_message(event: RunEvent) -> None:
    """Any event comes back from the wire as it was, down to the types inside its payloads.

    Its body alone is enough. Every attribute is there, not empty, ASCII, and within Pub/Sub's 1,024 bytes.
    """
    message = encode_event(event)
    decoded = decode_event(message)

    assert event == decoded == decode_event(Message(data=message.data))
    assert all(value.isascii() and 0 < len(value) <= 1_024 for value in message.attributes.values())
    assert repr((event.run.trigger_data, event.run.result)) == repr(
        (decoded.run.trigger_data, decoded.run.result)
    )


@examples(100)
@given(
    st.lists(ids | long_ids, min_size=4, max_size=4),
    st.lists(ids | long_ids, min_size=4, max_size=4),
    st.sampled_from(["v0", "v1"]),
)
@example(["x" * 50_000] * 4, ["x" * 49_999 + "y"] * 4, "v1")
def test_ids_that_somebody_else_made_are_within_the_bound(
    one: list[str], other: list[str], version: str
) -> None:
    """Ids of any length that are published become ids within the bound: the same each time, and their own."""
    bodies = [_with_ids(texts, version) for texts in (one, other)]
    first, second = (decode_event(Message(data=json.dumps(body).encode())) for body in bodies)

    for event, texts in ((first, one), (second, other)):
        assert _ids_of(event) == list(map(bounded_id, texts))
        assert all(len(text.encode()) <= MAX_ID_BYTES for text in _ids_of(event))
        # As an archive, a spool or another worker has it.
        assert event == decode_event(encode_event(event))
    assert [a == b for a, b in zip(one, other, strict=True)] == [
        a == b for a, b in zip(_ids_of(first), _ids_of(second), strict=True)
    ]


def _with_ids(texts: list[str], version: str) -> dict[str, Any]:
    workflow_id, run_id, assignee, answered_by = texts
    run = {
        **_v0_body(),
        "workflow_id": workflow_id,
        "id": run_id,
        "pause": {"assignee": assignee, "answered_by": answered_by},
    }
    if version == "v0":
        return run
    moment = {"event_id": "e", "hlc": 1, "occurred_at": EPOCH.isoformat()}
    return {"type": EVENT_TYPE, **moment, "run": run}


def _ids_of(event: RunEvent) -> list[str]:
    pause = event.run.pause or PauseRequest()
    return [event.run.workflow_id, event.run.id, pause.assignee or "", pause.answered_by or ""]


@examples(100)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    """Bytes that state no event raise `EventDecodeError` with a reason, and nothing else."""
    reasons = set[str]()
    try:
        decode_event(Message(data=data))
    except EventDecodeError as error:
        reasons.add(error.reason)

    assert reasons <= {"undecodable", "unknown_type"}
    assert reasons


@examples(150)
@given(st.data())
def test_one_wrong_field_is_refused_or_read(data: st.DataObject) -> None:
    """With anything in place of any one field, the body is an event or an `EventDecodeError`."""
    body: dict[str, Any] = json.loads(encode_event(small_event(1)).data)
    place: dict[str, Any] = data.draw(st.sampled_from([body, body["run"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(odd)
    with contextlib.suppress(EventDecodeError):
        event = decode_event(Message(data=json.dumps(body).encode()))

        assert event == decode_event(encode_event(event))


@examples(150)
@given(st.data())
def test_a_bare_run_with_anything_in_it_is_refused_or_read(data: st.DataObject) -> None:
    """A v0 body with anything in any field is an event, the same one each time, or an `EventDecodeError`."""
    names = ["id", "workflow_id", "status", "trigger_type", "trigger_data", "result", "error"]
    moments = ["started_at", "completed_at", "duration_ms", "attempt", "pause", "other"]
    changes = data.draw(st.dictionaries(st.sampled_from(names + moments), odd, max_size=3))
    message = Message(data=json.dumps({**_v0_body(), **changes}).encode())
    with contextlib.suppress(EventDecodeError):
        event = decode_event(message)

        assert event == decode_event(message)
