"""What tests give the warehouse: events of any kind, as anybody writes them, and messages that are none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from hypothesis import strategies as st

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

from .core_strategies import EPOCH, forms, trigger_types

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


written: Final = st.sampled_from([encode_event, encode_event, encode_event, _as_others_write_it, _bare])
"""Who writes an event as a message."""

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


def rivals() -> list[RunEvent]:
    """Return runs of which a faulty publisher says two things in one version, and each two there are."""
    return [
        _said(number, f"{one} and {other}", SAID[number][0], **SAID[number][1])
        for one in range(len(SAID))
        for other in range(one)
        for number in (one, other)
    ]


HALVES: Final = WorkflowRun(
    id="r",
    workflow_id="w",
    status=RunStatus.SUCCESS,
    trigger_type=TriggerType.MANUAL,
    started_at=EPOCH,
    result={"half": "a\ud83d", "whole": "b😀", "escaped": r"c\ud83d", "both": "\\\ud83d😀\udc00"},
)
"""With halves of surrogate pairs, which no UTF-8 can hold."""

WHOLE: Final = {"half": "a", "whole": "b😀", "escaped": r"c\ud83d", "both": "\\😀"}
"""What the warehouse has of their result."""
