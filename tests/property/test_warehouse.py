"""The warehouse's views against our own fold: whatever comes, in any order, however often."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.warehouse import Warehouse, check

from run_log.core import (
    DeadLetterReason,
    Message,
    PauseRequest,
    RunEvent,
    RunProgress,
    RunRef,
    RunStatus,
    Step,
    StepStatus,
    TriggerType,
    WorkflowRun,
    encode_event,
)
from run_log.core.clock import micros_of

from .core_strategies import EPOCH, examples, forms, trigger_types

pytestmark = pytest.mark.search

PUBLISHED_AT: Final = EPOCH + timedelta(days=30)

texts: Final = st.text(max_size=6)
"""Without lone surrogates, which the warehouse leaves out."""
labels: Final = st.dictionaries(st.sampled_from(["a", "0.b-c_d", "team"]), texts, max_size=3)
objects: Final = st.sampled_from(
    list[dict[str, Any]]([{}, {"usd": 1.5}, {"": ["ö", None], "a": {"b": True}}])
)
"""Few of them, which cost little: what all JSON becomes is tried with `payloads` as results."""
payloads: Final = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
        lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
moments: Final = st.integers(0, 5).map(lambda half: EPOCH + half * timedelta(hours=12, microseconds=1))
anywhen: Final = st.datetimes(
    datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)
pauses: Final = st.builds(
    PauseRequest,
    reason=texts,
    assignee=st.none() | texts,
    deadline=st.none() | anywhen,
    answered_by=st.none() | st.sampled_from(["", "ann", "böb"]),
    comment=st.none() | st.sampled_from(["", "yes, it is"]),
    choices=st.just(("yes", "no")),
    form=forms,
    choice=st.none() | st.sampled_from(["yes", "no"]),
    # Short ones: a history cuts longer values, and the warehouse does not.
    values=st.none() | st.sampled_from([{"amount": 1.5, "ok": True}, {"amount": 0}, {"": ["ö", None]}]),
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Return a step of few keys and versions, so that one is often told of in several versions."""
    version = draw(st.integers(0, 5))
    status, started_at = draw(st.sampled_from(StepStatus)), draw(moments)
    return Step(
        key=draw(st.sampled_from("abc")),
        name=f"step {version}",
        parent=draw(st.none() | st.sampled_from("abc")),
        attempt=1 + version % 2,
        status=status,
        started_at=started_at,
        ended_at=None if status is StepStatus.RUNNING else started_at + timedelta(seconds=version - 2),
        error="nö" if status is StepStatus.FAILED else None,
        attributes=draw(objects),
        version=version,
    )


@st.composite
def lives(draw: st.DrawFn) -> list[RunEvent]:
    """Return events of a few runs of two workflows, of which none says two things in one version."""
    few = st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 4), st.integers(0, 3))
    told: dict[tuple[int, str, int], Step] = {}
    events: list[RunEvent] = []
    for run, attempt, hlc, number in draw(st.lists(few, min_size=1, max_size=10, unique=True)):
        own = [
            told.setdefault((run, step.key, step.version), step)
            for step in draw(st.lists(steps(), max_size=3))
        ]
        events.append(
            RunEvent(
                event_id=("!", "~", "0", "A")[number] * (1 + number),
                hlc=hlc,
                occurred_at=draw(moments),
                inferred=draw(st.booleans()),
                is_progress=draw(st.booleans()),
                steps=tuple(own),
                run=WorkflowRun(
                    id=f"rün/{run}",
                    workflow_id=f"workflow {run % 2}",
                    attempt=attempt,
                    status=draw(st.sampled_from(RunStatus) | st.just(RunStatus.PAUSED)),
                    trigger_type=draw(trigger_types),
                    trigger_data=draw(objects),
                    result=draw(payloads),
                    error=draw(st.none() | texts),
                    started_at=draw(moments | anywhen),
                    completed_at=draw(st.none() | moments),
                    duration_ms=draw(st.just(0) | st.floats(0, 1e15)),
                    pause=draw(st.none() | pauses),
                    labels=draw(labels),
                    parent=draw(st.none() | st.just(RunRef("workflow 0", "rün/0"))),
                    trace_id=draw(st.none() | st.just(32 * "a")),
                    error_type=draw(st.none() | st.just("ValueError")),
                    progress=draw(st.none() | st.builds(RunProgress, fraction=st.floats(0, 1), text=texts)),
                ),
            )
        )
    return events


def _as_others_write_it(event: RunEvent) -> Message:
    """Return *event* as a program in another language says the same."""
    body = json.loads(encode_event(event).data)
    east = timezone(timedelta(hours=5, minutes=30))
    body["occurred_at"] = event.occurred_at.astimezone(east).isoformat()
    body["run"] = {name: value for name, value in body["run"].items() if value not in (None, {}, 0)}
    body["run"]["started_at"] = event.run.started_at.isoformat().replace("+00:00", "000Z")
    body["run"]["colour"] = {"type": "unknown"}
    body.pop("is_progress", None)
    body["steps"] = None
    # The type may be given beside the body.
    beside = {"ce-type": body.pop("type")}
    return Message(data=json.dumps(body, ensure_ascii=False).encode(), attributes=beside)


def _bare(event: RunEvent) -> Message:
    """Return the run of *event* as a platform dumps it: schema version 0."""
    run = event.run.to_json()
    return Message(data=json.dumps({"type": "run-log.run-state.v0", **run}).encode())


def _broken(changes: dict[str, Any]) -> Message:
    event = RunEvent(
        event_id="x",
        hlc=7,
        occurred_at=EPOCH,
        run=WorkflowRun(
            id="r",
            workflow_id="w",
            status=RunStatus.RUNNING,
            trigger_type=TriggerType.MANUAL,
            started_at=EPOCH,
        ),
    )
    body = json.loads(encode_event(event).data)
    for name, value in changes.items():
        (body["run"] if name in body["run"] else body)[name] = value
    return Message(data=json.dumps(body).encode())


NO_EVENTS: Final = {
    DeadLetterReason.UNDECODABLE: [
        Message(data=data) for data in (b"", b"{", b"[1]", b"\xff", b'"x"', b"null")
    ],
    DeadLetterReason.UNKNOWN_TYPE: [
        Message(data=b"{}"),
        _broken({"type": "com.example"}),
        _broken({"type": 1}),
    ],
    DeadLetterReason.UNSUPPORTED_VERSION: [_broken({"type": "run-log.run-state.v2"})],
    DeadLetterReason.INVALID_EVENT: [
        *(_broken({name: None}) for name in ("event_id", "hlc", "occurred_at", "run")),
        *(_broken({name: None}) for name in ("id", "workflow_id", "status", "trigger_type", "started_at")),
        *(_broken({name: ""}) for name in ("event_id", "id", "workflow_id", "status", "trigger_type")),
        *(_broken({name: "2026-01-01T00:00:00"}) for name in ("occurred_at", "started_at")),
        *(_broken({name: "soon"}) for name in ("occurred_at", "started_at", "completed_at", "duration_ms")),
        *(_broken({"attempt": attempt}) for attempt in (0, 2**31, "x")),
        *(_broken({"completed_at": time}) for time in ("2026-01-01", "2026-01-01T00:00:00")),
        *(_broken({name: 5}) for name in ("event_id", "id", "workflow_id")),
        *(_broken({name: []}) for name in ("trigger_data", "result")),
        _broken({"hlc": -1}),
        _broken({"run": {}}),
        Message(data=b'{"type": "run-log.run-state.v0"}'),
    ],
    DeadLetterReason.CLOCK_AHEAD: [_broken({"hlc": micros_of(PUBLISHED_AT + timedelta(days=1)) + 1})],
}


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    """Yield a warehouse without messages."""
    made = Warehouse()
    yield made
    made.close()


@given(data=st.data(), events=lives())
@examples(25)
def test_whatever_comes_is_folded_alike(
    warehouse: Warehouse, data: st.DataObject, events: Sequence[RunEvent]
) -> None:
    """Runs, histories, answers, steps and counts of any schema version are those of the library's fold."""
    written = st.sampled_from([encode_event, encode_event, encode_event, _as_others_write_it, _bare])
    messages = [data.draw(written)(event) for event in events]
    strangers = [message for some in NO_EVENTS.values() for message in some]
    messages += data.draw(st.lists(st.sampled_from([*messages, *strangers]), max_size=4))

    check(warehouse, data.draw(st.permutations(messages)), published_at=PUBLISHED_AT)


def _said(number: int, run: str, status: RunStatus, **changes: Any) -> RunEvent:
    """Return an event of one version, that of all which this returns, with a step of its own."""
    pause = {name: changes.pop(name) for name in ("answered_by", "choice", "comment") if name in changes}
    step = Step(key=f"s{number}", name="a", status=StepStatus.SUCCESS, started_at=EPOCH, version=number)
    state = WorkflowRun(
        id=run,
        workflow_id="w",
        status=status,
        trigger_type=TriggerType.MANUAL,
        started_at=EPOCH,
        pause=PauseRequest(**pause) if pause else None,
    )
    own: dict[str, Any] = {"event_id": "same", "hlc": 1, "occurred_at": EPOCH, **changes}
    return RunEvent(run=state, steps=(step,), **own)


SAID: Final[list[tuple[RunStatus, dict[str, Any]]]] = [
    (RunStatus.RUNNING, {}),
    (RunStatus.RUNNING, {"inferred": True, "occurred_at": EPOCH + timedelta(days=1)}),
    (RunStatus.RUNNING, {"occurred_at": EPOCH + timedelta(seconds=1)}),
    (RunStatus.RUNNING, {"occurred_at": EPOCH + timedelta(days=2), "is_progress": True}),
    (RunStatus.SKIPPED, {}),
    (RunStatus.CANCELLED, {}),
    (RunStatus.CANCELLED, {"answered_by": "ann"}),
    (RunStatus.CANCELLED, {"choice": "yes"}),
    (RunStatus.CANCELLED, {"comment": "no"}),
]


def test_two_events_of_one_version(warehouse: Warehouse) -> None:
    """Where a faulty publisher says two things in one version, the same one counts as elsewhere."""
    events = [
        _said(number, f"{one} and {other}", SAID[number][0], **SAID[number][1])
        for one in range(len(SAID))
        for other in range(one)
        for number in (one, other)
    ]

    for some in (events, events[::-1]):
        check(warehouse, list(map(encode_event, some)), published_at=PUBLISHED_AT)


def test_what_is_left_out(warehouse: Warehouse) -> None:
    """A message that states no event is left out, for the reason that a dead letter would have."""
    expected = [reason for reason, messages in NO_EVENTS.items() for _ in messages]
    messages = [message for some in NO_EVENTS.values() for message in some]

    check(warehouse, messages, published_at=PUBLISHED_AT)
    reasons = {int(row["message_id"]): row["reason"] for row in warehouse.view("left_out")}
    assert expected == [reasons[number] for number in range(len(messages))]


def test_a_step_of_an_attempt_before(warehouse: Warehouse) -> None:
    """A running step is cancelled if it was last told of before the attempt began, and not since."""
    told = [
        Step(key=f"v{version}", name="a step", status=StepStatus.RUNNING, started_at=EPOCH, version=version)
        for version in (4, 6)
    ]
    run = WorkflowRun(
        id="r",
        workflow_id="w",
        status=RunStatus.RUNNING,
        trigger_type=TriggerType.MANUAL,
        started_at=EPOCH,
        attempt=2,
    )
    events = [RunEvent(hlc=hlc, run=run, steps=tuple(told), is_progress=hlc > 5) for hlc in (5, 8)]

    check(warehouse, list(map(encode_event, events)), published_at=PUBLISHED_AT)
    assert {"v4": "cancelled", "v6": "running"} == {
        row["key"]: row["status"] for row in warehouse.view("steps")
    }


def test_half_a_surrogate_pair(warehouse: Warehouse) -> None:
    """A payload that no UTF-8 can hold costs the run nothing but that half of a character."""
    results = {"half": "a\ud83d", "whole": "b😀", "escaped": r"c\ud83d", "both": "\\\ud83d😀\udc00"}
    run = WorkflowRun(
        id="r",
        workflow_id="w",
        status=RunStatus.SUCCESS,
        trigger_type=TriggerType.MANUAL,
        started_at=EPOCH,
        result=results,
    )

    warehouse.load([encode_event(RunEvent(hlc=1, run=run))], published_at=PUBLISHED_AT)

    (row,) = warehouse.view("runs")
    assert {"half": "a", "whole": "b😀", "escaped": r"c\ud83d", "both": "\\😀"} == json.loads(row["result"])
