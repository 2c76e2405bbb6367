from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from run_log.core import InvalidRunError, PauseRequest, RunStatus, TriggerType, WorkflowRun
from run_log.core.ids import bounded_id
from run_log.core.models import snapshot

from .builders import NOON, make_run, run_fields

NAIVE = datetime(2026, 3, 4, 12)  # noqa: DTZ001 - what must be refused
HERE = timezone(timedelta(hours=5, minutes=30))


class _Nanoseconds(datetime):
    """A vendor's datetime that stays itself through arithmetic, as Firestore's does."""

    nanosecond = 7

    def astimezone(self, tz: Any = None) -> _Nanoseconds:
        moved = super().astimezone(tz)
        return _Nanoseconds.combine(moved.date(), moved.timetz())


def test_the_closed_sets_are_the_contract() -> None:
    """Statuses, those that are ends, and triggers are these texts, on the wire and in stored data."""
    ends = ["success", "failed", "skipped", "cancelled"]
    assert list(RunStatus) == ["pending", "running", *ends, "paused"]
    assert [status for status in RunStatus if status.is_terminal] == ends
    assert list(TriggerType) == ["webhook", "gmail_push", "scheduled", "manual", "file_upload"]


def test_what_is_not_given_has_its_default() -> None:
    """Only five fields are needed; payloads are empty, the attempt is the first."""
    run = make_run()

    assert (run.trigger_data, run.result, run.error) == ({}, {}, None)
    assert (run.completed_at, run.duration_ms, run.attempt, run.pause) == (None, 0, 1, None)
    assert (run.labels, run.parent, run.trace_id, run.error_type) == ({}, None, None, None)
    assert run.key == ("w1", "r1")


@pytest.mark.parametrize("field", ["id", "workflow_id"])
@pytest.mark.parametrize("text", ["x" * 1_025, "é" * 513, "x" * 50_000, "\ud800" * 171])
def test_an_id_beyond_the_bound_is_refused(field: str, text: str) -> None:
    """An id of more than 1,024 bytes is refused wherever a run is made or changed, with the limit."""
    run = make_run()
    for make in (lambda: make_run(**{field: text}), lambda: setattr(run, field, text)):
        with pytest.raises(ValidationError, match="bytes, an id at most 1,024; pass a shorter one"):
            make()
    with pytest.raises(InvalidRunError, match=rf"{field}: it has [0-9,]+ bytes, an id at most 1,024"):
        snapshot(run_fields(**{field: text}))

    assert run == make_run()


@pytest.mark.parametrize("text", ["x" * 1_024, "é" * 512, "\U0001f600" * 256])
def test_an_id_at_the_bound_is_kept(text: str) -> None:
    """An id of 1,024 bytes is an id like any other."""
    assert (text, text) == make_run(id=text, workflow_id=text).key


@pytest.mark.parametrize("field", ["assignee", "answered_by"])
def test_who_is_asked_has_a_name_within_the_bound(field: str) -> None:
    """Names of people that are longer are kept as their digests: people alike at first are not one."""
    names = ["x" * 1_000_000 + end for end in ("", "y", "z")]
    kept = [getattr(PauseRequest.model_validate({field: name}), field) for name in names]
    pause = PauseRequest()
    setattr(pause, field, names[0])

    assert [bounded_id(name) for name in names] == kept
    assert 3 == len(set(kept))
    assert kept[0] == getattr(pause, field)
    assert "x" * 1_024 == getattr(PauseRequest.model_validate({field: "x" * 1_024}), field)


@pytest.mark.parametrize("field", ["started_at", "completed_at", "deadline"])
def test_a_naive_datetime_is_refused(field: str) -> None:
    """A datetime without time zone is refused, and the message says what to pass.

    An assignment is checked like the constructor, and a refused one leaves the run as it was.
    """
    made = PauseRequest(deadline=NOON) if field == "deadline" else make_run(completed_at=NOON)
    fields: dict[str, Any] = {**dict(made), field: NAIVE}
    for make in (lambda: type(made)(**fields), lambda: setattr(made, field, NAIVE)):
        with pytest.raises(ValidationError, match=r"no time zone; pass an aware datetime.*timezone\.utc"):
            make()

    assert getattr(made, field) == NOON


def test_every_datetime_is_turned_into_utc() -> None:
    """Whatever the zone, constructor and assignment keep the moment and store it in UTC."""
    run = make_run(started_at=NOON.astimezone(HERE))
    run.completed_at = NOON.astimezone(HERE)
    run.pause = PauseRequest(deadline=NOON.astimezone(HERE))

    for moment in (run.started_at, run.completed_at, run.pause.deadline):
        assert moment == NOON
        assert moment is not None
        assert moment.tzinfo is UTC


def test_a_vendors_datetime_becomes_a_plain_one() -> None:
    """A datetime subclass comes out as the standard library's class, and the same moment."""
    run = make_run(started_at=_Nanoseconds(2026, 3, 4, 12, tzinfo=HERE))

    assert type(run.started_at) is datetime
    assert datetime(2026, 3, 4, 12, tzinfo=HERE) == run.started_at


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_outside_of_the_calendar_is_refused(moment: str) -> None:
    """A datetime that has no year 1 to 9999 in UTC is refused, not raised through."""
    with pytest.raises(ValidationError, match="outside years 1 to 9999"):
        make_run(started_at=moment)


def test_lone_surrogates_in_an_error_stay_readable() -> None:
    """An exception's text that UTF-8 cannot hold is kept with its surrogates escaped."""
    run = make_run(error="bad name: \udcff", pause=PauseRequest(reason="\ud800?"))

    assert run.error == "bad name: \\udcff"
    assert run.pause == PauseRequest(reason="\\ud800?")


def test_a_huge_error_is_cut_with_a_marker() -> None:
    """An error's text is bounded, so that the document always has room for it."""
    run = make_run(error="x" * 1_000_000)

    assert run.error is not None
    assert len(run.error) <= 32_768
    assert run.error.endswith(" [run-log: cut, 1000000 bytes]")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("id", ""), ("id", [5]), ("id", object()), ("workflow_id", None), ("workflow_id", float("nan"))),
        *(("status", "finished"), ("trigger_type", 1), ("duration_ms", "long"), ("duration_ms", [])),
        *(("attempt", 0), ("attempt", 2**31), ("pause", "yes")),
    ],
)
def test_a_wrong_value_is_refused_with_the_fields_name(field: str, value: object) -> None:
    """Each wrong value is refused at construction and at assignment, and the error names the field."""
    run = make_run()
    with pytest.raises(ValidationError, match=field):
        WorkflowRun(**run_fields(**{field: value}))
    with pytest.raises(ValidationError, match=field):
        setattr(run, field, value)

    assert make_run() == run
