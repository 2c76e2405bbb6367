"""What a run is made of besides its state: its steps, how far it is, and that somebody stopped it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_log.core import (
    InvalidArgumentError,
    RunNotFoundError,
    RunProgress,
    RunStatus,
    Step,
    StepStatus,
)
from run_log.core.clock import HybridLogicalClock, micros_of, moment_of
from run_log.core.steps import OUTLIVED
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .adapters import every_adapter
from .harness import Harness, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
MEI = "mei@example.com"


def a_step(key: str, version: int, **changes: Any) -> Step:
    """Return a step that started as many seconds after noon as its *version*."""
    started_at = NOON + timedelta(seconds=version)
    fields: dict[str, Any] = {"name": key, "status": StepStatus.RUNNING, "started_at": started_at, **changes}
    return Step(key=key, version=version, **fields)


@every_adapter
async def test_no_steps(harness: Harness, service: RunLog) -> None:
    """A run without steps has none; nor has one that is not there."""
    await save(harness, a_run(workflow_id="w", id="r"))

    assert () == await service.get_steps("w", "r")
    assert () == await service.get_steps("w", "nobody")
    for ids in (("", "r"), ("w", "")):
        with pytest.raises(InvalidArgumentError):
            await service.get_steps(*ids)


@every_adapter
async def test_steps_stay(harness: Harness, service: RunLog) -> None:
    """Each step has its newest state, in the order of their starts; a state that tells of none keeps them."""
    late = a_step("late", 7, status=StepStatus.SUCCESS, attributes={"rows": [1, 2], "deep": {"a": None}})
    early = a_step("early", 2, parent="late", status=StepStatus.FAILED, error="no", ended_at=NOON, attempt=3)
    begun = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)
    told = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)

    await harness.store.apply([begun.model_copy(update={"steps": (late,)})])
    await harness.store.apply([told.model_copy(update={"steps": (early,), "is_progress": True})])
    await save(harness, a_run(workflow_id="w", id="r"))

    assert (early, late) == await service.get_steps("w", "r")
    history = await service.get_history("w", "r")
    assert [RunStatus.RUNNING, RunStatus.SUCCESS] == [line.status for line in history]


@every_adapter
async def test_a_step_that_its_run_has_outlived(harness: Harness, service: RunLog) -> None:
    """A step that has not ended is shown as cancelled once its run has, until it tells of its own end."""
    begun = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=5)
    done, left = a_step("done", 4, status=StepStatus.FAILED, error="no"), a_step("left", 5)
    await harness.store.apply([begun.model_copy(update={"steps": (done, left)})])
    before = await service.get_steps("w", "r")

    await save(harness, a_run(workflow_id="w", id="r", status=RunStatus.FAILED))
    after = await service.get_steps("w", "r")
    late = a_step("left", 6, status=StepStatus.SUCCESS, ended_at=NOON, attributes={"rows": 1})
    await harness.store.apply([begun.model_copy(update={"event_id": "late", "steps": (late,)})])

    assert (done, left) == before
    assert (done, replace(left, status=StepStatus.CANCELLED, error=OUTLIVED)) == after
    assert (done, late) == await service.get_steps("w", "r")


@every_adapter
async def test_a_step_of_an_earlier_attempt(harness: Harness, service: RunLog) -> None:
    """A step that was left running is shown as cancelled once its run is tried again; others run on."""
    first, second = (
        an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, attempt=attempt, hlc=10 * attempt)
        for attempt in (1, 2)
    )
    killed, goes_on = a_step("killed", 10), a_step("goes on", 21)
    said = second.model_copy(update={"event_id": "said", "hlc": 22, "is_progress": True})

    await harness.store.apply([first.model_copy(update={"steps": (killed,)})])
    before = await service.get_steps("w", "r")
    await harness.store.apply([second, said.model_copy(update={"steps": (goes_on,)})])

    assert (killed,) == before
    assert (replace(killed, status=StepStatus.CANCELLED, error=OUTLIVED), goes_on) == await service.get_steps(
        "w", "r"
    )


@every_adapter
async def test_an_attempt_that_waits(harness: Harness, service: RunLog) -> None:
    """An attempt that is stated to wait, at no reading of a clock, has begun when it was stated."""
    first = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=1)
    again = a_run(workflow_id="w", id="r", attempt=2, status=RunStatus.PENDING)
    waits = an_event(again, hlc=0, occurred_at=moment_of(3))
    runs = an_event(again, hlc=4, status=RunStatus.RUNNING)
    killed, goes_on = a_step("killed", 2), a_step("goes on", 5)

    await harness.store.apply([first.model_copy(update={"steps": (killed,)}), waits])
    while_it_waits = await service.get_steps("w", "r")
    await harness.store.apply([runs.model_copy(update={"steps": (goes_on,)})])

    left = replace(killed, status=StepStatus.CANCELLED, error=OUTLIVED)
    assert (left,) == while_it_waits
    assert (left, goes_on) == await service.get_steps("w", "r")


@every_adapter
async def test_all_of_a_run(harness: Harness, service: RunLog) -> None:
    """A record has all that is kept of a run: its state, its version, its history, its steps."""
    step = a_step("load", 2)
    begun = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)
    paused = an_event(workflow_id="w", id="r", status=RunStatus.PAUSED, trigger_data={"file": "x"})
    await harness.store.apply([begun.model_copy(update={"steps": (step,)}), paused])

    whole, light = [await service.get_record("w", "r", payloads=payloads) for payloads in (True, False)]

    assert whole is not None
    assert light is not None
    assert await service.get_run("w", "r") == whole.run
    assert paused.version == whole.version
    assert await service.get_history("w", "r") == whole.history
    assert (step,) == whole.steps
    assert {} == light.run.trigger_data
    assert whole.run == light.run.model_copy(update={"trigger_data": {"file": "x"}})
    assert (whole.version, whole.history, whole.steps) == (light.version, light.history, light.steps)
    assert await service.get_record("w", "nobody") is None


@every_adapter
async def test_neighbours(harness: Harness, service: RunLog) -> None:
    """The neighbours of a run are those of the listing that it is looked at from, its filters included."""
    wanted = {"team": "a"}
    for workflow, name, minute, labels in (
        ("v", "1", 1, wanted),
        ("w", "2", 2, {}),
        ("w", "3", 3, wanted),
        ("w", "4", 3, {}),
        ("w", "5", 5, wanted),
    ):
        started_at = NOON + timedelta(minutes=minute)
        await save(harness, a_run(workflow_id=workflow, id=name, started_at=started_at, labels=labels))
    third = await service.get_run("w", "3")
    assert third is not None

    found = [
        await service.get_neighbours(third),
        await service.get_neighbours(third, "w", label=("team", "a")),
        await service.get_neighbours(third, label=("team", "a")),
    ]

    ids = [tuple(run and run.id for run in pair) for pair in found]
    assert [("4", "2"), ("5", None), ("5", "1")] == ids


@every_adapter
async def test_progress_is_heard(harness: Harness, service: RunLog) -> None:
    """What only says how far a run is changes neither history nor stats; the run is heard of by it."""
    clock = HybridLogicalClock(lambda: micros_of(NOON))
    begun, said = (
        an_event(
            a_run(workflow_id="w", id="r", status=RunStatus.RUNNING, started_at=NOON).model_copy(
                update={"progress": progress}
            ),
            hlc=clock.tick(),
            occurred_at=NOON + timedelta(minutes=minutes),
        ).model_copy(update={"is_progress": progress is not None})
        for minutes, progress in ((0, None), (5, RunProgress(fraction=0.4, text="2 of 5")))
    )

    await harness.store.apply([said])
    before = await service.get_history("w", "r")
    await harness.store.apply([begun, said])
    run = await service.get_run("w", "r")
    stale, _ = await service.list_stale(timedelta(minutes=1), now=NOON + timedelta(minutes=10))
    fresh, _ = await service.list_stale(timedelta(minutes=6), now=NOON + timedelta(minutes=10))

    assert ((), 1) == (before, len(await service.get_history("w", "r")))
    assert run is not None
    assert RunProgress(fraction=0.4, text="2 of 5") == run.progress
    assert ({"total": 1, "successful": 0}, []) == (await service.get_stats("w"), fresh)
    assert [NOON + timedelta(minutes=5)] == [one.heard_at for one in stale]


@every_adapter
async def test_a_run_that_is_cancelled(harness: Harness, service: RunLog) -> None:
    """A run that has not ended is cancelled, by whom and why; one that has ended stays as it is."""
    states = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.SUCCESS]
    await save(harness, *(a_run(workflow_id="w", id=status.value, status=status) for status in states))

    found = [await service.cancel("w", status.value, cancelled_by=MEI, reason="late") for status in states]
    await harness.settle()

    ends = [RunStatus.CANCELLED] * 3 + [RunStatus.SUCCESS]
    assert ends == [run.status for run in found]
    stored = [await service.get_run("w", status.value) for status in states]
    assert ends == [run.status for run in stored if run]
    assert {f"cancelled by {MEI}: late", None} == {run.error for run in found}
    assert all(run.completed_at and run.completed_at >= run.started_at for run in found)
    assert [] == await service.get_pending_runs()


@every_adapter
async def test_what_cannot_be_cancelled(harness: Harness, service: RunLog) -> None:
    """A run that is not there, and one that nobody stops, are errors."""
    await save(harness, a_run(workflow_id="w", id="r", status=RunStatus.RUNNING))

    with pytest.raises(RunNotFoundError):
        await service.cancel("w", "nobody", cancelled_by=MEI)
    for nobody in ("", None, 7):
        with pytest.raises(InvalidArgumentError, match="pass who stopped it"):
            await service.cancel("w", "r", cancelled_by=nobody)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@every_adapter
async def test_what_a_cancelled_run_says_afterwards(harness: Harness, service: RunLog) -> None:
    """What the run itself says after its newest state wins over its cancellation, whatever comes first."""
    begun = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)
    ended = begun.model_copy(
        update={"event_id": "later", "hlc": begun.hlc + 1, "run": a_run(workflow_id="w", id="r")}
    )
    await harness.store.apply([begun])

    await service.cancel("w", "r", cancelled_by=MEI)
    await harness.settle()
    await harness.store.apply([ended])

    run = await service.get_run("w", "r")
    assert run is not None
    assert RunStatus.SUCCESS is run.status
