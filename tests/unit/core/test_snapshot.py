from __future__ import annotations

import enum
import logging
from collections import UserDict
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from run_log.core import InvalidRunError, PauseRequest, RunStatus, WorkflowRun, fields
from run_log.core.models import snapshot
from run_log.core.nearest import CUT_MARKER, MAX_PAYLOAD_BYTES
from run_log.core.payload import encode_json

from .builders import NOON, make_run, run_fields


class _TextStatus(enum.StrEnum):
    DONE = "success"


class _PlainStatus(enum.Enum):
    DONE = "success"


class _PlainTrigger(enum.Enum):
    BY_HAND = "manual"


class _PlatformPause(BaseModel):
    reason: str
    assignee: str | None = None
    deadline: datetime | None = None
    answered_by: str | None = None


class _PlatformRun(BaseModel):
    id: str
    workflow_id: str
    status: _PlainStatus | _TextStatus
    trigger_type: _PlainTrigger
    trigger_data: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    error: str | None = None
    started_at: datetime
    completed_at: datetime | None = None
    duration_ms: float = 0
    pause: _PlatformPause | None = None
    tenant: str = "not a field of ours"


@dataclass
class _Record:
    id: str = "r1"
    workflow_id: str = "w1"
    status: str = "success"
    trigger_type: str = "manual"
    started_at: datetime = NOON
    result: dict[str, Any] = field(default_factory=dict[str, Any])


class _Broken(SimpleNamespace):
    @property
    def result(self) -> dict[str, Any]:
        raise RuntimeError("session is closed")


@pytest.mark.parametrize(
    "run",
    [
        make_run(status=RunStatus.SUCCESS),
        _Record(),
        SimpleNamespace(**run_fields(status=_PlainStatus.DONE)),
        _PlatformRun(**run_fields(status=_PlainStatus.DONE, trigger_type=_PlainTrigger.BY_HAND)),
        _PlatformRun(**run_fields(status=_TextStatus.DONE, trigger_type=_PlainTrigger.BY_HAND)),
        run_fields(status="success"),
        {**run_fields(status=_TextStatus.DONE), "tenant": "unknown to us"},
        UserDict(run_fields(status="success")),
    ],
    ids=["ours", "dataclass", "attributes", "model+Enum", "model+StrEnum", "dict", "dict+more", "mapping"],
)
def test_any_object_with_a_runs_fields_is_taken(run: object) -> None:
    """A platform's own class, model, enums or mapping give the same run of ours."""
    expected = make_run(status=RunStatus.SUCCESS)

    assert expected == snapshot(run)
    assert type(snapshot(run)) is WorkflowRun


def test_a_platforms_pause_is_taken() -> None:
    """Nested objects are taken by their attributes too."""
    run = _PlatformRun(
        **run_fields(status="success", trigger_type="manual", pause=_PlatformPause(reason="approve?"))
    )

    assert PauseRequest(reason="approve?") == snapshot(run).pause


def test_a_snapshot_shares_nothing() -> None:
    """Changing the original's nested data later changes nothing in the snapshot, and the other way round."""
    run = make_run(
        trigger_data={"list": [1, {"a": 1}]}, result={"map": {"b": [2]}}, pause=PauseRequest(reason="why")
    )
    copy = snapshot(run)
    run.trigger_data["list"][1]["a"] = 9
    run.result["map"]["b"].append(9)
    run.pause = None
    copy.trigger_data["list"].append(3)

    assert copy.trigger_data == {"list": [1, {"a": 1}, 3]}
    assert copy.result == {"map": {"b": [2]}}
    assert PauseRequest(reason="why") == copy.pause
    assert run.trigger_data == {"list": [1, {"a": 9}]}


def test_every_field_at_fault_is_named_at_once() -> None:
    """One error names each wrong and missing field, what is wrong, and the class that was given."""
    wrong = SimpleNamespace(
        id="",
        status="finished",
        trigger_type="manual",
        started_at=datetime(2026, 1, 1),  # noqa: DTZ001 - what must be refused
        duration_ms="long",
    )
    with pytest.raises(InvalidRunError) as caught:
        snapshot(wrong)
    message = str(caught.value)

    assert message.startswith("a SimpleNamespace is not a run: ")
    for named in ("id: ", "workflow_id: ", "status: ", "started_at: ", "duration_ms: ", "aware datetime"):
        assert named in message


@pytest.mark.parametrize(
    "run", [None, 5, "run", b"run", [], object(), {}], ids=lambda run: type(run).__name__
)
def test_what_is_no_run_is_refused(run: object) -> None:
    """Anything without a run's fields raises `InvalidRunError`, which is a `ValueError` too."""
    with pytest.raises(InvalidRunError, match="is not a run"):
        snapshot(run)
    with pytest.raises(ValueError, match=type(run).__name__):
        snapshot(run)


def test_an_attribute_that_raises_is_an_invalid_run() -> None:
    """A property of a foreign object that raises is reported as that field's fault."""
    with pytest.raises(InvalidRunError, match=r"result: .*session is closed"):
        snapshot(_Broken(**run_fields()))


def test_a_payload_too_large_is_cut_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A snapshot fits into a document: the largest value is marked, the rest stays, a warning tells it."""
    with caplog.at_level(logging.WARNING, logger="run_log"):
        copy = snapshot(make_run(result={"large": "x" * 2_000_000, "small": 1}))

    assert {"large": f"{CUT_MARKER}, 2000002 bytes", "small": 1} == copy.result
    assert len(encode_json(copy.result)) < MAX_PAYLOAD_BYTES
    assert [vars(record)["event"] for record in caplog.records] == ["run_log_payload_cut"]


def test_a_platforms_object_that_can_be_paused_is_a_run() -> None:
    """A method named pause is no pause request, and numbers that are None are not known."""

    class Run:
        id, workflow_id, status, trigger_type = "r", "w", "running", "manual"
        started_at = NOON
        attempt = None
        duration_ms = None

        def pause(self) -> None:
            """Do what the platform does."""

    copy = snapshot(Run())

    assert (1, 0.0, None) == (copy.attempt, copy.duration_ms, copy.pause)


class _Tenanted(BaseModel):
    id: str = "r1"
    workflow_id: str = "w1"
    status: str = "running"
    trigger_type: str = "cron"
    started_at: datetime = NOON
    labels: dict[str, str] = {"team": "a", "tenant": "own"}
    tenant: str = "acme"
    region: _PlainTrigger = _PlainTrigger.BY_HAND
    nothing: str | None = None
    nodes: list[int] = [1, 2]


@dataclass(slots=True)
class _Slotted:
    id: str = "r1"
    workflow_id: str = "w1"
    status: str = "running"
    trigger_type: str = "cron"
    started_at: datetime = NOON
    region: str = "eu"


def test_fields_that_a_run_does_not_have(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They become labels where they are asked for; the names of the others are logged once for each kind."""
    monkeypatch.setattr(fields, "_told_fields", set[str]())

    kept = snapshot(_Tenanted(), label_fields=("tenant", "region", "unknown"))
    again = snapshot(_Tenanted(), label_fields=("tenant", "region"))
    slotted = snapshot(_Slotted(), label_fields=("region",))
    mapping = snapshot({**run_fields(), "region": "eu", "_private": 1}, label_fields=("region",))
    own = snapshot(make_run(), label_fields=("region",))

    # What a platform says by our name counts.
    assert {"team": "a", "tenant": "own", "region": "manual"} == kept.labels == again.labels
    assert [{"region": "eu"}, {"region": "eu"}, {}] == [run.labels for run in (slotted, mapping, own)]
    (record,) = caplog.records
    assert ("run_log_fields_left_out", "_Tenanted", ["nodes"]) == (
        vars(record)["event"],
        vars(record)["type"],
        vars(record)["fields"],
    )


@pytest.mark.parametrize("progress", [40, 0.4, "half", [1]])
def test_a_field_progress_that_means_something_else(
    progress: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A platform's own run may have a percentage of that name: it is left out, and the run is kept."""
    kept = snapshot({**run_fields(), "progress": progress})

    assert kept.progress is None
    assert ["run_log_progress_left_out"] == [vars(record)["event"] for record in caplog.records]
