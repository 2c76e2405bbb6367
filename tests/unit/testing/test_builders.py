from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from run_log.core import InvalidRunError, PauseRequest, RunRef, RunStatus, TriggerType
from run_log.core.clock import HybridLogicalClock
from run_log.core.law import fold
from run_log.testing import ManualClock, a_life, a_run, an_event, sequential_ids


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_looks_like_its_status(status: RunStatus) -> None:
    """A built run is the same every time. It has ended exactly if its status says so, with a fitting time."""
    run, again = a_run(status=status), a_run(status=status)

    assert run == again
    assert run.trigger_data is not again.trigger_data
    assert status.is_terminal == (run.completed_at is not None)
    ended = run.completed_at or run.started_at
    assert timedelta(milliseconds=run.duration_ms) == ended - run.started_at
    assert (status.is_terminal and status is not RunStatus.SUCCESS) == (run.error is not None)
    assert (status is RunStatus.PAUSED) == (run.pause is not None)


def test_a_run_takes_every_change() -> None:
    """Each field given is in the run, also where it does not fit the status."""
    started_at = datetime(2020, 2, 2, tzinfo=UTC)
    run = a_run(
        id="r",
        workflow_id="w",
        status=RunStatus.FAILED,
        trigger_type=TriggerType.WEBHOOK,
        trigger_data={"a": 1},
        result={"b": 2},
        error=None,
        started_at=started_at,
        completed_at=None,
        duration_ms=7,
        attempt=3,
        pause=PauseRequest(reason="why"),
        labels={"team": "a"},
        parent=RunRef("v", "p"),
        trace_id="ab" * 16,
        error_type="ValueError",
    )

    assert (("w", "r"), RunStatus.FAILED, TriggerType.WEBHOOK) == (run.key, run.status, run.trigger_type)
    assert ({"a": 1}, {"b": 2}, None) == (run.trigger_data, run.result, run.error)
    assert (started_at, None, 7, 3) == (run.started_at, run.completed_at, run.duration_ms, run.attempt)
    assert PauseRequest(reason="why") == run.pause
    assert ({"team": "a"}, ("v", "p")) == (run.labels, run.parent)
    assert ("ab" * 16, "ValueError") == (run.trace_id, run.error_type)


def test_a_run_that_cannot_be_is_refused() -> None:
    """A field that cannot be used is refused as the library refuses it, by name."""
    with pytest.raises(InvalidRunError, match="status"):
        a_run(status=cast("Any", "nonsense"))


def test_every_event_is_new_and_later() -> None:
    """By default each event is another one, later than the one before, at the end of its run or its start."""
    running, ended = an_event(status=RunStatus.RUNNING), an_event()

    assert running.event_id != ended.event_id
    assert running.version < ended.version
    assert running.run.started_at == running.occurred_at
    assert ended.run.completed_at == ended.occurred_at


def test_an_event_is_as_given() -> None:
    """The event's run is the one given, with the changes made to a copy; its version is the one given."""
    run = a_run(id="r", result={"a": 1})

    event = an_event(run, hlc=0, event_id="e", inferred=True, attempt=2, status=RunStatus.FAILED)

    assert (("workflow-1", "r"), RunStatus.FAILED, {"a": 1}) == (event.key, event.status, event.run.result)
    assert (2, 0, "e") == event.version
    assert event.inferred
    assert RunStatus.SUCCESS is run.status


@pytest.mark.parametrize("end", [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED])
def test_a_life_runs_and_ends(end: RunStatus) -> None:
    """A life's events merge to a run that stands as its end says, in order."""
    life = a_life("w", "r", end=end)

    assert [RunStatus.RUNNING, end] == [event.status for event in life]
    assert {("w", "r")} == {event.key for event in life}
    assert life[1] is fold(None, life).winner


def test_a_life_can_be_wholly_decided() -> None:
    """With a clock and identities of the test's own, a life is the same every time."""
    lives = [
        a_life(clock=HybridLogicalClock(now=ManualClock().micros), new_id=sequential_ids()) for _ in range(2)
    ]

    assert lives[0] == lives[1]
    assert ["event-000001", "event-000002"] == [event.event_id for event in lives[0]]
