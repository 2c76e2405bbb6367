"""The inbox: which runs wait for whom, and what an answer makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, cast

import pytest

from run_log.core import (
    InvalidArgumentError,
    InvalidCursorError,
    InvalidRunError,
    NotPausedError,
    Outcome,
    PauseRequest,
    RunEvent,
    RunNotFoundError,
    RunStatus,
    WorkflowRun,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.stores import PendingRun, RunLog
from run_log.stores.stored.fields import indexed_assignee
from run_log.testing import a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness, pages, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MEI, NOBODY_ELSE = "mei@example.com", "x" * 1_024

# Several started at the same moment, and several have the same deadline.
RUNS = [
    a_run(
        workflow_id=workflow_id,
        id=f"r{number:02}",
        status=RunStatus.PAUSED,
        started_at=NOON - 9 * HOUR + number // 5 * HOUR,
        pause=PauseRequest(reason=f"pay {number}?", assignee=assignee, deadline=deadline),
    )
    for number, (workflow_id, assignee, deadline) in enumerate(
        product(
            ("w", "w/x"),
            (MEI, NOBODY_ELSE, None),
            (NOON - HOUR, NOON, NOON + timedelta(microseconds=1), None),
        )
    )
]

FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an assignee": {"assignee": MEI},
    "a long assignee": {"assignee": NOBODY_ELSE},
    "an assignee of none": {"assignee": "y" * 1_024},
    "overdue": {"overdue": True},
    "not overdue": {"overdue": False},
    "an assignee's overdue": {"assignee": MEI, "overdue": True},
    "a workflow": {"workflow_id": "w/x"},
    "a workflow without runs": {"workflow_id": "r01"},
    "a workflow's assignee": {"workflow_id": "w/x", "assignee": MEI},
    "a workflow's overdue": {"workflow_id": "w", "overdue": True},
    "all of it": {"workflow_id": "w/x", "assignee": MEI, "overdue": False},
}


def waiting(
    *, assignee: str | None = None, overdue: bool | None = None, workflow_id: str | None = None
) -> list[WorkflowRun]:
    """Return those of `RUNS` that the inbox has to have at noon, in order."""
    found = [
        run
        for run in RUNS
        if run.pause is not None
        and assignee in (None, run.pause.assignee)
        and overdue in (None, run.pause.deadline is not None and run.pause.deadline < NOON)
        and workflow_id in (None, run.workflow_id)
    ]
    if overdue is None:
        return sorted(found, key=lambda run: (run.started_at, run.workflow_id, run.id), reverse=True)

    def deadline(run: WorkflowRun) -> datetime:
        return (run.pause and run.pause.deadline) or datetime.max.replace(tzinfo=UTC)

    return sorted(found, key=lambda run: (deadline(run), run.workflow_id, run.id))


async def fill(harness: Harness) -> None:
    """Store `RUNS`, as many that do not wait any more, and some that never did."""
    await harness.store.apply([an_event(run) for run in RUNS])
    answered = [an_event(run, id=f"{run.id}-answered") for run in RUNS]
    await harness.store.apply(answered)
    await harness.store.apply([an_event(event.run, status=RunStatus.SUCCESS) for event in answered])
    await harness.store.apply([an_event(workflow_id="w", id="never", status=RunStatus.RUNNING)])


async def walk_inbox(service: RunLog, limit: int, **filters: Any) -> list[list[PendingRun]]:
    """Return every page of the inbox at noon."""
    return await pages(service.list_pending, limit=limit, now=NOON, **filters)


async def test_the_inbox_has_what_waits(harness: Harness, service: RunLog) -> None:
    """The inbox has each run that waits and matches once, in order, for any page size, and no other."""
    await fill(harness)

    for (name, filters), limit in product(FILTERS.items(), (1, 3, 50)):
        walked = await walk_inbox(service, limit, **filters)

        assert waiting(**filters) == [one.run for page in walked for one in page], name
        assert {limit} == {len(page) for page in walked[:-1]} | {limit}, name


# Alike in what an index holds of them: two of the same length, one as long as that, and just that.
_LONG = ["a" * 600 + end for end in ("1", "2")]
ALIKE = [*_LONG, indexed_assignee(_LONG[0]), "a" * 480, "a" * 512, "b" * 3_000 + "1", "b" * 3_000 + "2"]


async def test_who_is_asked_sees_nobody_elses(harness: Harness, service: RunLog) -> None:
    """People whose names begin alike each see their own runs alone in the inbox, in full pages."""
    paused = [
        a_run(
            workflow_id="w",
            id=f"r{number:02}",
            status=RunStatus.PAUSED,
            started_at=NOON + number // 10 * HOUR,
            pause=PauseRequest(reason="pay?", assignee=ALIKE[number % len(ALIKE)], deadline=NOON + HOUR),
        )
        for number in range(5 * len(ALIKE))
    ]
    await harness.store.apply([an_event(run) for run in paused])

    for person, assignee in enumerate(ALIKE):
        own = [run for number, run in enumerate(paused) if number % len(ALIKE) == person]
        for limit in (1, 2, 3, 50):
            walked = await walk_inbox(service, limit, assignee=assignee)
            assert own[::-1] == [one.run for page in walked for one in page]
            assert {limit} == {len(page) for page in walked[:-1]} | {limit}
        by_deadline = await walk_inbox(service, 2, assignee=assignee, workflow_id="w", overdue=False)
        assert own == [one.run for page in by_deadline for one in page]
        assert [2, 2, 1] == [len(page) for page in by_deadline]
    for nobody in ("a" * 600 + "3", "a" * 601, "b" * 3_000 + "3"):
        assert ([], None) == await service.list_pending(assignee=nobody)


async def test_what_waits_says_for_what(harness: Harness, service: RunLog) -> None:
    """A waiting run tells why, since when, whom it asks, until when, and whether that has passed."""
    paused = an_event(
        workflow_id="w",
        status=RunStatus.PAUSED,
        started_at=NOON,
        pause=PauseRequest(reason="pay?", assignee=MEI, deadline=NOON + 2 * HOUR),
    )
    await harness.store.apply([paused])

    ((early,), _) = await service.list_pending(now=NOON + HOUR)
    ((late,), _) = await service.list_pending(now=(NOON + 3 * HOUR).astimezone())

    assert ("pay?", MEI, NOON + 2 * HOUR) == (early.reason, early.assignee, early.deadline)
    assert (paused.occurred_at, UTC) == (early.paused_at, early.paused_at.tzinfo)
    assert [(HOUR, False), (3 * HOUR, True)] == [(one.age, one.overdue) for one in (early, late)]


async def test_a_run_without_a_request_waits_for_anybody(harness: Harness, service: RunLog) -> None:
    """A paused run that says nothing about its pause waits without a reason, for anybody, for ever."""
    await save(harness, a_run(workflow_id="w", status=RunStatus.PAUSED, started_at=NOON, pause=None))

    ((one,), _) = await service.list_pending(overdue=False)

    assert ("", None, None, False) == (one.reason, one.assignee, one.deadline, one.overdue)
    assert one.age > timedelta(0)
    assert timedelta(0) == (await service.list_pending(now=NOON - HOUR))[0][0].age


async def test_a_cursor_carries_its_filter(harness: Harness, service: RunLog) -> None:
    """A cursor of the inbox is refused with other filters, malformed, or of another listing."""
    await fill(harness)
    _, cursor = await service.list_pending(limit=1, assignee=MEI, now=NOON)
    _, of_runs = await service.list_runs("w", limit=1)

    assert waiting(assignee=MEI)[1:] == [
        one.run for one in (await service.list_pending(start_after=cursor, assignee=MEI, now=NOON + HOUR))[0]
    ]
    others: list[dict[str, Any]] = [
        {},
        {"assignee": "m"},
        {"assignee": MEI, "overdue": True},
        {"assignee": MEI, "workflow_id": "w"},
    ]
    for other in others:
        with pytest.raises(InvalidCursorError):
            await service.list_pending(start_after=cursor, **other)
    for bad in ("", 5, of_runs):
        with pytest.raises(InvalidCursorError):
            await service.list_pending(start_after=bad)


async def test_an_unreadable_run_ends_no_page(harness: Harness, service: RunLog) -> None:
    """A paused run that cannot be read neither shortens a page of the inbox nor ends it."""
    await fill(harness)
    for hour in range(3):
        await harness.plant_unreadable("w", NOON - hour * HOUR, status=RunStatus.PAUSED)

    walked = await walk_inbox(service, 4)

    assert waiting() == [one.run for page in walked for one in page] == await service.get_pending_runs()
    assert {4} == {len(page) for page in walked[:-1]} | {4}


# Answers


async def paused(harness: Harness, **changes: Any) -> WorkflowRun:
    """Store a run that waits."""
    run = a_run(
        workflow_id="w",
        id="r",
        status=RunStatus.PAUSED,
        started_at=NOON,
        result={"drafted": True},
        pause=PauseRequest(reason="pay?", assignee=MEI, deadline=NOON + HOUR),
        **changes,
    )
    await save(harness, run)
    return run


@every_adapter
async def test_a_resumed_run_goes_on(harness: Harness, service: RunLog) -> None:
    """A resumed run is running, keeps what it had, tells who answered and what, and waits no more."""
    asked = await paused(harness)

    answer = await service.resume("w", "r", answered_by=MEI, comment="as agreed")
    await harness.settle()

    request = PauseRequest(
        reason="pay?", assignee=MEI, deadline=NOON + HOUR, answered_by=MEI, comment="as agreed"
    )
    assert asked.model_copy(update={"status": RunStatus.RUNNING, "pause": request}) == answer
    assert answer == await service.get_run("w", "r")
    assert ([], None) == await service.list_pending()
    assert [None, MEI] == [line.answered_by for line in await service.get_history("w", "r")]


@every_adapter
async def test_a_rejected_run_ends(harness: Harness, service: RunLog) -> None:
    """A rejected run has failed with who rejected it and why, when that was, and how long it took."""
    await paused(harness)

    answer = await service.reject("w", "r", answered_by=MEI, comment="too dear", now=NOON + 2 * HOUR)
    await harness.settle()

    assert (RunStatus.FAILED, f"rejected by {MEI}: too dear") == (answer.status, answer.error)
    assert (NOON + 2 * HOUR, 7_200_000) == (answer.completed_at, answer.duration_ms)
    assert (answer, []) == (await service.get_run("w", "r"), await service.get_pending_runs())
    assert {"total": 1, "successful": 0} == await service.get_stats("w")


@memory_alone
async def test_a_rejection_needs_no_reason_and_no_right_clock(harness: Harness, service: RunLog) -> None:
    """Without a comment the error says who; where the clock is behind the run's start, no time is lost."""
    await paused(harness)

    answer = await service.reject("w", "r", answered_by=MEI, now=NOON - HOUR)

    assert (f"rejected by {MEI}", NOON, 0) == (answer.error, answer.completed_at, answer.duration_ms)


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not RunStatus.PAUSED])
async def test_only_a_paused_run_can_be_answered(
    harness: Harness, service: RunLog, status: RunStatus
) -> None:
    """An answer to a run that does not wait is an error that tells its status, and changes nothing."""
    run = a_run(workflow_id="w", id="r", status=status)
    await save(harness, run)

    for answer in (service.resume, service.reject):
        with pytest.raises(NotPausedError, match=f"is {status.value}, not paused"):
            await answer("w", "r", answered_by=MEI)
    assert run == await service.get_run("w", "r")


@every_adapter
async def test_a_run_that_is_not_there_cannot_be_answered(service: RunLog) -> None:
    """An answer to no run is an error of its own that names it, never that it is not paused."""
    for answer in (service.resume, service.reject):
        with pytest.raises(RunNotFoundError, match="no run 'r' of workflow 'w'") as caught:
            await answer("w", "r", answered_by=MEI)
        assert not isinstance(caught.value, NotPausedError)
        assert ("w", "r") == (caught.value.workflow_id, caught.value.run_id)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"now": datetime(2026, 3, 4)}, r"now is .*; pass an aware datetime"),  # noqa: DTZ001 - it is naive
        *(({"answered_by": bad}, "pass who answers") for bad in ("", None, 5)),
        ({"comment": {"no": "text"}}, "comment"),
    ],
)
@memory_alone
async def test_an_answer_that_cannot_be_is_refused(
    harness: Harness, service: RunLog, arguments: dict[str, Any], message: str
) -> None:
    """A naive time, an answer of nobody and a comment that is no text are errors; the run goes on waiting."""
    run = await paused(harness)

    for answer in (service.resume, service.reject):
        with pytest.raises((InvalidArgumentError, InvalidRunError), match=message):
            await cast("Any", answer)("w", "r", **{"answered_by": MEI, **arguments})
    assert run == await service.get_run("w", "r")


@every_adapter
async def test_one_wrong_clock_leaves_other_runs_alone(harness: Harness, service: RunLog) -> None:
    """Whoever has seen a run ten years ahead answers another one, whose worker has the last word."""
    worker = HybridLogicalClock()
    asked = a_run(workflow_id="honest", id="r", status=RunStatus.PAUSED)
    paused = RunEvent.from_run(asked, clock=worker)
    ahead = an_event(workflow_id="w", id="ahead", hlc=worker.last + 10 * 365 * 86_400 * 1_000_000)
    await harness.store.apply([ahead, paused])
    await service.list_runs("w")
    await service.get_run("w", "ahead")

    await service.resume("honest", "r", answered_by=MEI)
    await harness.settle()
    ended = RunEvent.from_run(asked.model_copy(update={"status": RunStatus.SUCCESS}), clock=worker)
    assert [Outcome.APPLIED] == await harness.store.apply([ended])

    assert ended.run == await service.get_run("honest", "r")
    assert PROCESS_CLOCK.ahead_by(PROCESS_CLOCK.last) <= timedelta(minutes=1)
    history = await service.get_history("honest", "r")
    assert [RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.SUCCESS] == [line.status for line in history]


@every_adapter
async def test_a_run_that_is_ahead_can_be_answered(harness: Harness, service: RunLog) -> None:
    """A run an hour ahead is answered just after its version, and the clock of who answers stays."""
    paused = an_event(
        workflow_id="w", id="r", status=RunStatus.PAUSED, hlc=PROCESS_CLOCK.tick() + 3_600_000_000
    )
    await harness.store.apply([paused])

    await service.resume("w", "r", answered_by=MEI)
    await harness.settle()

    newest = (await service.get_history("w", "r"))[-1]
    assert (RunStatus.RUNNING, paused.hlc + 1) == (newest.status, newest.version.hlc)
    assert PROCESS_CLOCK.ahead_by(PROCESS_CLOCK.last) <= timedelta(minutes=1)


@every_adapter
async def test_what_a_run_says_next_is_later_than_an_answer(harness: Harness, service: RunLog) -> None:
    """What a run says in the microsecond after it paused is later than any answer, whenever that is given."""
    paused = an_event(workflow_id="w", id="r", status=RunStatus.PAUSED, hlc=5)
    ended = an_event(workflow_id="w", id="r", hlc=6, event_id="0")
    await harness.store.apply([paused])

    await service.resume("w", "r", answered_by=MEI)
    await harness.settle()

    assert [Outcome.APPLIED] == await harness.store.apply([ended])
    assert ended.run == await service.get_run("w", "r")
    assert 3 == len(await service.get_history("w", "r"))
