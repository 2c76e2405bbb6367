"""The public JSON form of runs, transitions, steps and durations."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from run_log.core import (
    PauseRequest,
    RunProgress,
    RunRef,
    RunStatus,
    Step,
    StepStatus,
    Transition,
    Version,
    WorkflowRun,
)
from run_log.core.clock import rfc3339
from run_log.core.counters import Durations
from run_log.core.json_form import payload_json
from run_log.core.models import snapshot
from run_log.core.nearest import MAX_DEPTH, is_json

from .builders import NOON, make_run

VERSION = Version(2, 7, "e1")


def _nested(levels: int) -> object:
    value: object = None
    for _ in range(levels):
        value = [value]
    return value


def _own() -> dict[str, Any]:
    payload: dict[str, Any] = {}
    payload["a"] = [payload]
    return payload


def test_a_run() -> None:
    """A run has every field under its name, in JSON types."""
    run = make_run(
        status=RunStatus.PAUSED,
        trigger_data={"a": [1, {"": None}]},
        result={"\ud800": 2**70},
        error="why",
        completed_at=datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        duration_ms=timedelta(seconds=1.5),
        attempt=2,
        pause=PauseRequest(
            reason="pay?",
            assignee="ann",
            deadline=NOON,
            choices=("yes", "no"),
            default_choice="no",
            form={"required": ["amount"]},
            values={"amount": 1},
        ),
        labels={"customer": "acme"},
        parent=RunRef("w2", "p"),
        trace_id="a" * 32,
        error_type="ValueError",
        progress=RunProgress(fraction=0.5, text="3 of 6"),
    )

    assert {
        "id": "r1",
        "workflow_id": "w1",
        "status": "paused",
        "trigger_type": "manual",
        "trigger_data": {"a": [1, {"": None}]},
        "result": {"\ud800": 2**70},
        "error": "why",
        "started_at": "2026-03-04T12:00:00.000000Z",
        "completed_at": "9999-12-31T23:59:59.999999Z",
        "duration_ms": 1500.0,
        "attempt": 2,
        "pause": {
            "reason": "pay?",
            "assignee": "ann",
            "deadline": "2026-03-04T12:00:00.000000Z",
            "answered_by": None,
            "comment": None,
            "choices": ["yes", "no"],
            "form": {"required": ["amount"]},
            "default_choice": "no",
            "choice": None,
            "values": {"amount": 1},
        },
        "labels": {"customer": "acme"},
        "parent": {"workflow_id": "w2", "run_id": "p"},
        "trace_id": "a" * 32,
        "error_type": "ValueError",
        "progress": {"fraction": 0.5, "text": "3 of 6"},
    } == run.to_json()
    assert is_json(run.to_json())
    assert run == WorkflowRun.model_validate(json.loads(json.dumps(run.to_json())))


@pytest.mark.parametrize(
    "value", [make_run(), PauseRequest(), RunProgress()], ids=["run", "pause", "progress"]
)
def test_no_field_is_left_out(value: WorkflowRun | PauseRequest | RunProgress) -> None:
    """Every field of a model is in its JSON, in the order of their declaration."""
    assert [*type(value).model_fields] == [*value.to_json()]


def test_a_new_run_and_its_copy_have_one_text() -> None:
    """A run has the same text before and after it was taken over, though its duration is its default."""
    assert json.dumps(make_run().to_json()) == json.dumps(snapshot(make_run()).to_json())
    assert "0.0" == json.dumps(make_run().to_json()["duration_ms"])


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(2026, 1, 1, 1, 0, 0, 7, timezone(timedelta(hours=2))), "2025-12-31T23:00:00.000007Z"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "Z")), "2026-01-01T00:00:00.000000Z"),
    ],
    ids=["first", "another zone", "another UTC"],
)
def test_times(moment: datetime, expected: str) -> None:
    """A time is in UTC, with microseconds, and a year has four digits."""
    assert expected == rfc3339(moment)
    assert moment == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"a": [{"b": "\ud800"}, 1, 1.5, None, True], "": {}},
        {"a": 10**600},
        {"a": _nested(MAX_DEPTH - 1)},
    ],
    ids=["empty", "plain", "large", "deep"],
)
def test_a_payload_that_is_json_stays_as_it_is(payload: dict[str, Any]) -> None:
    """A payload of JSON types is not copied."""
    assert payload_json(payload) is payload


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"a": [math.nan, -math.inf]}, {"a": ["NaN", "-Infinity"]}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"a": {1: "x"}}, {"a": {"1": "x"}}),
        ({"a": RunStatus.FAILED}, {"a": "failed"}),
        ({"a": NOON}, {"a": "2026-03-04T12:00:00Z"}),
        ({"a": 10**1_000}, {"a": 10**1_000}),
    ],
    ids=["no numbers", "tuple", "keys", "enum", "time", "larger"],
)
def test_a_payload_that_is_not_json(payload: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is not JSON takes its nearest form, as it does where it is stored."""
    run = make_run(result=payload)

    assert expected == run.to_json()["result"] == snapshot(run).to_json()["result"]


@pytest.mark.parametrize("payload", [{"a": _nested(MAX_DEPTH + 9)}, _own()], ids=["too deep", "endless"])
def test_a_payload_without_end(payload: dict[str, Any]) -> None:
    """What nests too deeply, or contains itself, is cut."""
    assert not is_json(payload)
    assert "run-log: cut" in json.dumps(make_run(result=payload).to_json())


def test_a_deep_stack_costs_no_payload() -> None:
    """A payload that nests deeply is whole, however deep the caller's own stack is."""
    run = make_run(result={"a": _nested(MAX_DEPTH - 1)})

    def called(times: int) -> dict[str, Any]:
        return called(times - 1) if times else run.to_json()

    assert run.result is called(600)["result"]


def test_a_transition() -> None:
    """A transition has its version as text, what it says of an answer, and how long it lasted."""
    transition = Transition(
        version=VERSION,
        status=RunStatus.RUNNING,
        occurred_at=NOON,
        answered_by="ann",
        choice="pay",
        comment="fine",
        values_text='{"amount": 1}',
        lasted=timedelta(microseconds=1_500),
    )

    assert {
        "status": "running",
        "occurred_at": "2026-03-04T12:00:00.000000Z",
        "lasted_ms": 1.5,
        "attempt": 2,
        "event_id": "e1",
        "inferred": False,
        "anomaly": False,
        "answered_by": "ann",
        "choice": "pay",
        "values": {"amount": 1},
        "comment": "fine",
        "version": "2:7:e1",
    } == transition.to_json()


def test_a_step() -> None:
    """A step has its clock reading as its version, for steps merge by that."""
    step = Step(
        key="a", name="download", status=StepStatus.RUNNING, started_at=NOON, version=7, attributes={"n": 1}
    )

    assert {
        "key": "a",
        "parent": None,
        "name": "download",
        "attempt": 1,
        "status": "running",
        "started_at": "2026-03-04T12:00:00.000000Z",
        "ended_at": None,
        "error": None,
        "attributes": {"n": 1},
        "version": 7,
    } == step.to_json()


def test_attributes_that_are_not_json() -> None:
    """Attributes of a step that nobody has fitted yet take their nearest form."""
    step = Step(
        key="a", name="", status=StepStatus.RUNNING, started_at=NOON, version=7, attributes={"n": {math.nan}}
    )

    assert {"n": ["NaN"]} == step.to_json()["attributes"]


def test_durations() -> None:
    """Durations are milliseconds; without runs there are none."""
    none = Durations().to_json()

    assert {"count": 0, **dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms"))} == none
    assert (
        0.75 == Durations(count=2, total=timedelta(microseconds=1_500), buckets={1: 2}).to_json()["mean_ms"]
    )
