"""The other queries: one run, stats, the inbox, the latest run, the history."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from run_log.core import InvalidArgumentError, PauseRequest, RunStatus
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .adapters import every_adapter
from .harness import Harness, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

NAMED_QUERIES: dict[str, Callable[[RunLog, Any], Awaitable[object]]] = {
    "list_runs": lambda service, value: service.list_runs(value),
    "get_run, workflow": lambda service, value: service.get_run(value, "r"),
    "get_run, run": lambda service, value: service.get_run("w", value),
    "get_stats": lambda service, value: service.get_stats(value),
    "get_latest_run": lambda service, value: service.get_latest_run(value),
    "get_history, workflow": lambda service, value: service.get_history(value, "r"),
    "get_history, run": lambda service, value: service.get_history("w", value),
}


@every_adapter
async def test_an_id_that_is_no_text_is_refused(service: RunLog) -> None:
    """Every query refuses an id that is empty, or that has no text; None is all workflows to a listing."""
    for (name, query), value in product(NAMED_QUERIES.items(), ["", None, b"", ["w"], object()]):
        if (name, value) == ("list_runs", None):
            continue
        with pytest.raises(InvalidArgumentError, match=r"(workflow|run)_id is"):
            await query(service, value)


@every_adapter
async def test_an_id_is_found_by_what_it_was_saved_as(harness: Harness, service: RunLog) -> None:
    """Each query finds a run by the very value that was given for its id, whatever text that has."""
    given: list[Any] = [
        os.fsdecode(b"a-\xff.pdf"),
        b"b-\xff",
        4711,
        UUID(int=1),
        PurePosixPath("/c/\udcff"),
        True,
    ]
    for value in given:
        for status in (RunStatus.RUNNING, RunStatus.PAUSED):
            run = {**dict(a_run(status=status, completed_at=None)), "workflow_id": value, "id": value}
            await service.save_run(run)
    await harness.settle()

    for value in given:
        found = await service.get_run(value, value)
        assert found is not None
        assert found == await service.get_latest_run(value)
        assert ([found], None) == await service.list_runs(value)
        assert {"total": 1, "successful": 0} == await service.get_stats(value)
        assert 2 == len(await service.get_history(value, value))
        waiting, _ = await service.list_pending(workflow_id=value)
        assert [found] == [pending.run for pending in waiting]
        answer = await service.resume(value, value, answered_by="mei\udcff")
        await harness.settle()
        assert answer == await service.get_run(value, value)


async def test_a_run_that_is_not_there_is_none(harness: Harness, service: RunLog) -> None:
    """A run that is not there is None, next to others that are."""
    await save(harness, a_run(workflow_id="w", id="r"))

    assert await service.get_run("w", "r2") is None
    assert await service.get_run("w2", "r") is None


async def test_an_unknown_workflow_has_empty_answers(service: RunLog) -> None:
    """An unknown workflow has no runs, stats of nothing, no latest run, no history; the inbox is empty."""
    assert await service.list_runs("w") == ([], None)
    assert await service.get_stats("w") == {"total": 0, "successful": 0}
    assert await service.get_latest_run("w") is None
    assert await service.get_history("w", "r") == ()
    assert await service.get_pending_runs() == []


@every_adapter
async def test_stats_have_two_keys(harness: Harness, service: RunLog) -> None:
    """Stats are exactly the distinct runs and those whose newest state is success."""
    runs = [a_run(workflow_id="w", id=status.value, status=status) for status in RunStatus]
    await save(harness, *runs, a_run(workflow_id="w", id="another"), a_run(workflow_id="w2"))

    assert await service.get_stats("w") == {"total": len(RunStatus) + 1, "successful": 2}


async def test_the_inbox_spans_workflows(harness: Harness, service: RunLog) -> None:
    """Every paused run of every workflow is pending, newest first, then by workflow and id; no other is."""
    paused = [
        a_run(
            workflow_id=f"w{n % 3}",
            id=f"p{n}",
            status=RunStatus.PAUSED,
            started_at=NOON + timedelta(minutes=n),
        )
        for n in range(6)
    ]
    others = [
        a_run(workflow_id="w0", id=status.value, status=status, started_at=NOON)
        for status in set(RunStatus) - {RunStatus.PAUSED}
    ]

    keys = [("w", "b"), ("w", "a"), ("v/", "z"), ("v", "a")]
    ties = [a_run(workflow_id=w, id=r, status=RunStatus.PAUSED, started_at=NOON - HOUR) for w, r in keys]

    await save(harness, *ties[::-1], *paused[::2], *others, *paused[1::2])

    assert [*paused[::-1], *ties] == await service.get_pending_runs()


@pytest.mark.parametrize("after", [status for status in RunStatus if status is not RunStatus.PAUSED])
async def test_a_run_that_goes_on_leaves_the_inbox(
    harness: Harness, service: RunLog, after: RunStatus
) -> None:
    """A paused run that is in any other state now is not pending; paused again, it is again."""
    paused = a_run(workflow_id="w", status=RunStatus.PAUSED)
    await save(harness, paused, paused.model_copy(update={"status": after}))

    resumed = await service.get_pending_runs()
    await save(harness, paused)

    assert resumed == []
    assert [paused] == await service.get_pending_runs()


async def test_a_late_pause_does_not_enter_the_inbox(harness: Harness, service: RunLog) -> None:
    """A pause that arrives after the run's end is not pending."""
    paused = an_event(a_run(workflow_id="w", status=RunStatus.PAUSED), hlc=1)
    await harness.store.apply([an_event(a_run(workflow_id="w"), hlc=2)])

    await harness.store.apply([paused])

    assert await service.get_pending_runs() == []


async def test_the_latest_run_started_last(harness: Harness, service: RunLog) -> None:
    """The latest run is the one that started last, not the one saved last; of ties, the first listed."""
    runs = [
        a_run(workflow_id="w", id=f"r{n}", started_at=NOON + timedelta(minutes=minute))
        for n, minute in enumerate((1, 3, 2))
    ]
    await save(harness, *runs)

    assert runs[1] == await service.get_latest_run("w")
    tied = runs[1].model_copy(update={"id": "r9"})
    await save(harness, tied)
    assert [tied, runs[1]] == (await service.list_runs("w"))[0][:2]
    assert tied == await service.get_latest_run("w")


async def test_the_history_is_in_order(harness: Harness, service: RunLog) -> None:
    """A run's history has each of its states, in the order they were saved."""
    states = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS]
    await save(harness, *(a_run(workflow_id="w", status=status) for status in states))

    history = await service.get_history("w", "run-1")

    assert states == [transition.status for transition in history]
    assert [transition.anomaly for transition in history] == [False] * 5
    assert sorted(history, key=lambda transition: transition.version) == list(history)


async def test_the_history_marks_anomalies(harness: Harness, service: RunLog) -> None:
    """A transition that breaks the state machine is marked, whenever it arrived; a new attempt is none."""
    events = [
        an_event(workflow_id="w", status=RunStatus.SUCCESS, hlc=1),
        an_event(workflow_id="w", status=RunStatus.RUNNING, hlc=2),
        an_event(workflow_id="w", status=RunStatus.PENDING, hlc=3),
        an_event(workflow_id="w", status=RunStatus.RUNNING, hlc=1, attempt=2),
    ]
    for event in reversed(events):
        await harness.store.apply([event])

    history = await service.get_history("w", "run-1")

    assert [event.version for event in events] == [transition.version for transition in history]
    assert [transition.anomaly for transition in history] == [False, True, True, False]


async def test_the_history_tells_what_an_event_was(harness: Harness, service: RunLog) -> None:
    """A transition has its event's version, status and time, in UTC, and whether it was inferred."""
    event = an_event(
        workflow_id="w", status=RunStatus.FAILED, inferred=True, hlc=2**62 - 1, event_id="~" * 128
    )

    await harness.store.apply([event])

    (transition,) = await service.get_history("w", "run-1")
    assert (event.version, event.status, event.occurred_at, True) == (
        transition.version,
        transition.status,
        transition.occurred_at,
        transition.inferred,
    )
    assert UTC is transition.occurred_at.tzinfo


async def test_the_history_tells_how_long_each_state_lasted(harness: Harness, service: RunLog) -> None:
    """Each state but the newest tells how long it lasted, and where clocks differ no less than nothing."""
    seconds = [0, 2, 1, 1.5]
    events = [
        an_event(
            workflow_id="w",
            status=RunStatus.RUNNING,
            attempt=1 + number // 3,
            hlc=number + 1,
            started_at=NOON + timedelta(seconds=second),
        )
        for number, second in enumerate(seconds)
    ]
    await harness.store.apply(events)

    history = await service.get_history("w", "run-1")

    lasted = [transition.lasted for transition in history]
    assert [timedelta(seconds=2), timedelta(0), timedelta(seconds=0.5), None] == lasted
    assert [1, 1, 1, 2] == [transition.attempt for transition in history]


async def test_the_history_tells_who_answered_a_pause(harness: Harness, service: RunLog) -> None:
    """The state that follows a pause tells who answered it, in whatever order they arrive; no other does."""
    states = [
        (RunStatus.RUNNING, None),
        (RunStatus.PAUSED, None),
        (RunStatus.RUNNING, "mei@example.com"),
        (RunStatus.PAUSED, "mei@example.com"),
        (RunStatus.RUNNING, "\U0001f600" * 500),
        (RunStatus.PAUSED, None),
        (RunStatus.SUCCESS, None),
    ]
    events = [
        an_event(workflow_id="w", status=status, pause=PauseRequest(answered_by=answered_by), hlc=number + 1)
        for number, (status, answered_by) in enumerate(states)
    ]
    for event in (*events[::2], *events[1::2]):
        await harness.store.apply([event])

    history = await service.get_history("w", "run-1")

    answers = [transition.answered_by for transition in history]
    assert [None, None, "mei@example.com", None] == answers[:4]
    assert "\U0001f600" * 5 < str(answers[4]) < "\U0001f600" * 20
    assert [None, None] == answers[5:]
