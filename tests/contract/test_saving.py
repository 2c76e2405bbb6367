"""Saving: what a run log promises about what it is given."""

from __future__ import annotations

import asyncio
import enum
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from run_log.core import InvalidRunError, PauseRequest, RunRef, RunStatus, TriggerType, WorkflowRun
from run_log.core.clock import PROCESS_CLOCK
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .adapters import every_adapter
from .harness import Harness, OpenHarness, save

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


class PlatformStatus(enum.Enum):
    """A platform's own enum."""

    DONE = "success"


@dataclass
class PlatformRun:
    """A platform's own run model."""

    id: str = "r1"
    workflow_id: str = "w"
    status: PlatformStatus = PlatformStatus.DONE
    trigger_type: str = "webhook"
    trigger_data: dict[str, Any] = field(default_factory=lambda: {"a": 1})
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str | None = None
    started_at: datetime = NOON
    completed_at: datetime | None = None
    duration_ms: float = 3


@every_adapter
async def test_a_saved_run_comes_back_equal(harness: Harness, service: RunLog) -> None:
    """What is saved comes back with every field equal."""
    run = WorkflowRun(
        id="r1",
        workflow_id="w",
        status=RunStatus.FAILED,
        trigger_type=TriggerType.GMAIL_PUSH,
        trigger_data={"mail": {"from": "a@b.c"}},
        result={"rows": [1, 2]},
        error="it broke",
        started_at=NOON + timedelta(microseconds=1),
        completed_at=NOON + timedelta(seconds=1),
        duration_ms=999.999,
        attempt=3,
        pause=PauseRequest(reason="sure?", assignee="ann", deadline=NOON, answered_by="bob"),
        labels={"team": "a", "empty": "", "odd": "a=b=\n\u2028"},
        parent=RunRef("a/b", "p"),
        trace_id="ab" * 16,
        error_type="m.Broken",
    )

    await save(harness, run)

    assert run == await service.get_run("w", "r1")
    assert [run] == (await service.list_runs("w"))[0]


@every_adapter
async def test_what_a_later_state_does_not_have(harness: Harness, service: RunLog) -> None:
    """What a later state leaves out is gone, also what only some runs have."""
    before = a_run(
        workflow_id="w",
        status=RunStatus.FAILED,
        trigger_type="cron",
        labels={"team": "a"},
        parent=RunRef("v", "p"),
        trace_id="ab" * 16,
        error_type="E",
    )
    after = a_run(workflow_id="w", status=RunStatus.CANCELLED)

    await save(harness, before)
    await save(harness, after)

    assert after == await service.get_run("w", after.id)
    assert {"total": 1, "successful": 0} == await service.get_stats("w")
    (stats,), _ = await service.list_workflows()
    assert {RunStatus.CANCELLED: 1} == stats.by_status


@every_adapter
async def test_saving_again_counts_once(harness: Harness, service: RunLog) -> None:
    """Saving a run again counts it once, and updates it."""
    run = a_run(workflow_id="w", status=RunStatus.RUNNING)
    changed = run.model_copy(update={"status": RunStatus.SUCCESS, "result": {"n": 1}, "duration_ms": 2.0})

    await save(harness, run, run, changed)
    await save(harness, changed)

    assert await service.get_stats("w") == {"total": 1, "successful": 1}
    assert [changed] == (await service.list_runs("w"))[0]


@pytest.mark.parametrize("after", [RunStatus.FAILED, RunStatus.RUNNING, RunStatus.PAUSED])
async def test_a_success_taken_back_is_not_counted(
    harness: Harness, service: RunLog, after: RunStatus
) -> None:
    """A run that was a success and is none any more leaves the successful ones, and stays in the total."""
    run = a_run(workflow_id="w")
    await save(harness, run)

    await save(harness, run.model_copy(update={"status": after}))

    assert await service.get_stats("w") == {"total": 1, "successful": 0}


@every_adapter
async def test_a_foreign_object_is_accepted(harness: Harness, service: RunLog) -> None:
    """Any object with a run's fields is accepted, and what is returned is ours."""
    await save(harness, PlatformRun())

    found = await service.get_run("w", "r1")
    assert (
        a_run(
            id="r1",
            workflow_id="w",
            trigger_type=TriggerType.WEBHOOK,
            trigger_data={"a": 1},
            started_at=NOON,
            completed_at=None,
            duration_ms=3,
        )
        == found
    )
    assert WorkflowRun is type(found)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PlatformRun(started_at=NOON.replace(tzinfo=None)), "started_at: .*has no time zone"),
        (PlatformRun(completed_at=NOON.replace(tzinfo=None)), "completed_at: .*has no time zone"),
        (PlatformRun(id=""), "id: "),
        (PlatformRun(workflow_id=""), "workflow_id: "),
        *((value, "is not a run") for value in (None, "a run", object(), {"id": "r1"})),
    ],
)
@every_adapter
async def test_what_is_no_run_is_refused(
    harness: Harness, service: RunLog, value: object, message: str
) -> None:
    """A naive datetime, an empty id and what is no run are refused, and nothing is stored."""
    with pytest.raises(InvalidRunError, match=message):
        await service.save_run(value)

    await harness.settle()
    assert ([], None) == await service.list_workflows()
    assert await service.get_run("w", "r1") is None


async def test_a_save_comes_after_what_is_stored(harness: Harness, service: RunLog) -> None:
    """A save is the newest state though an event of a clock that is ahead was applied before."""
    ahead = PROCESS_CLOCK.tick() + 3_600_000_000
    await harness.store.apply([an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=ahead)])

    await service.save_run(a_run(workflow_id="w", id="r"))

    assert a_run(workflow_id="w", id="r") == await service.get_run("w", "r")
    assert {"total": 1, "successful": 1} == await service.get_stats("w")


def test_event_loops_share_it(open_harness: OpenHarness) -> None:
    """Threads with event loops of their own may use one service at once: each run is counted once."""

    async def opened() -> Harness:
        return await open_harness()

    harness = asyncio.run(opened())

    async def work(worker: int) -> None:
        for number in range(20):
            await harness.service.save_run(a_run(workflow_id="w", id=f"r{number}"))
            await harness.service.save_run(a_run(workflow_id="w", id=f"r{worker}-{number}"))

    def in_loop(worker: int) -> None:
        asyncio.run(work(worker))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(in_loop, range(3)))

    assert {"total": 80, "successful": 80} == asyncio.run(harness.service.get_stats("w"))
    asyncio.run(harness.close())


@every_adapter
async def test_what_is_given_is_copied(harness: Harness, service: RunLog) -> None:
    """A run changed after it was saved does not change what is stored."""
    run = a_run(workflow_id="w", trigger_data={"list": [1]})
    saved = run.model_copy(deep=True)
    await service.save_run(run)

    run.status = RunStatus.FAILED
    run.trigger_data["list"].append(2)
    await harness.settle()

    assert saved == await service.get_run("w", run.id)


async def test_what_is_returned_is_a_copy(harness: Harness, service: RunLog) -> None:
    """Changing what any query returned changes nothing that is stored."""
    run = a_run(workflow_id="w", status=RunStatus.PAUSED, trigger_data={"list": [1]})
    await save(harness, run)

    returned = [
        await service.get_run("w", run.id),
        await service.get_latest_run("w"),
        *(await service.list_runs("w"))[0],
        *await service.get_pending_runs(),
    ]
    for one in returned:
        assert one is not None
        one.error = "changed"
        one.trigger_data["list"].append(2)

    assert len(returned) == 4
    assert run == await service.get_run("w", run.id)
    assert run == await service.get_latest_run("w")


@every_adapter
async def test_datetimes_come_back_in_utc(harness: Harness, service: RunLog) -> None:
    """Datetimes of any zone come back as the same moment, to the microsecond, in UTC."""
    east = timezone(timedelta(hours=5, minutes=45))
    started = datetime(2026, 3, 4, 12, 0, 0, 999_999, tzinfo=east)
    run = PlatformRun(started_at=started, completed_at=started + timedelta(microseconds=1))

    await save(harness, run)

    found = await service.get_run("w", "r1")
    assert found is not None
    assert (started, run.completed_at) == (found.started_at, found.completed_at)
    assert UTC is found.started_at.tzinfo
    assert datetime is type(found.started_at)


@every_adapter
async def test_a_second_close_is_fine(service: RunLog) -> None:
    """Closing twice is fine."""
    await service.close()
    await service.close()
