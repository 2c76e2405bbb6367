"""Runs that nothing was heard of for long, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from run_log.core import (
    InvalidCursorError,
    Outcome,
    RunEvent,
    RunNotFoundError,
    RunStatus,
    WriteRefusedError,
)
from run_log.core.clock import MAX_HLC
from run_log.core.models import MAX_ATTEMPT
from run_log.stores import RunLog
from run_log.testing import an_event

from .adapters import every_adapter
from .harness import Harness, pages

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACTIVE = (RunStatus.PENDING, RunStatus.RUNNING)


def heard(
    hours_ago: float, run_id: str, status: RunStatus = RunStatus.RUNNING, workflow_id: str = "w"
) -> RunEvent:
    """Return what was heard of a run so many hours before noon."""
    return an_event(
        workflow_id=workflow_id,
        id=run_id,
        status=status,
        started_at=NOON - hours_ago * HOUR,
        completed_at=None,
    )


async def every_status(harness: Harness) -> list[RunEvent]:
    """Store runs in every status, heard of one to four hours before noon; return the active ones."""
    events = [
        heard(hours, f"{status.value}-{hours}", status, workflow_id)
        for status in RunStatus
        for hours in (1, 2, 3, 4)
        for workflow_id in ("w", "w/x")
    ]
    await harness.store.apply(events)
    return [event for event in events if event.status in ACTIVE]


def longest_silent(events: Sequence[RunEvent], workflow_id: str | None = None) -> list[tuple[str, str]]:
    """Return the keys of those, by when they were heard of."""
    own = [event for event in events if workflow_id in (None, event.run.workflow_id)]
    return [event.key for event in sorted(own, key=lambda event: (event.occurred_at, *event.key))]


@pytest.mark.parametrize("workflow_id", [None, "w", "w/x", "nobody knows"])
async def test_what_is_silent_for_long_is_stale(
    harness: Harness, service: RunLog, workflow_id: str | None
) -> None:
    """Pending and running runs that were not heard of for so long come once, the longest silent first."""
    active = await every_status(harness)

    for hours in (0, 2, 4):
        stale = [event for event in active if event.occurred_at < NOON - hours * HOUR]
        for limit in (1, 3, 50):
            asked: dict[str, Any] = {"workflow_id": workflow_id, "limit": limit, "now": NOON}
            walked = await pages(partial(service.list_stale, hours * HOUR), **asked)

            assert longest_silent(stale, workflow_id) == [one.run.key for page in walked for one in page]
            assert {limit} == {len(page) for page in walked[:-1]} | {limit}


async def test_a_stale_run_tells_since_when(harness: Harness, service: RunLog) -> None:
    """A stale run tells when it was heard of last and how long ago that was; exactly so long is not older."""
    await harness.store.apply([heard(3, "r")])

    ((stale,), cursor) = await service.list_stale(2 * HOUR, now=NOON.astimezone())

    assert (NOON - 3 * HOUR, 3 * HOUR, None) == (stale.heard_at, stale.silence, cursor)
    assert ([], None) == await service.list_stale(3 * HOUR, now=NOON)


async def test_a_run_that_is_heard_of_again_is_not_stale(harness: Harness, service: RunLog) -> None:
    """A run that says anything, pauses or ends is stale no more."""
    names = ["running", "paused", "ended", "silent"]
    await harness.store.apply([heard(3, name) for name in names])
    await harness.store.apply(
        [
            heard(0.5, "running"),
            heard(3, "paused", RunStatus.PAUSED),
            heard(3, "ended", RunStatus.SUCCESS),
        ]
    )

    found, _ = await service.list_stale(HOUR, now=NOON)

    assert ["silent"] == [one.run.id for one in found]


@every_adapter
async def test_a_lost_run_has_failed(harness: Harness, service: RunLog) -> None:
    """A lost run has failed when it was last heard of, and its history says that this was inferred."""
    event = heard(3, "r")
    await harness.store.apply([event])

    marked = await service.mark_lost("w", "r", older_than=HOUR, now=NOON)
    await harness.settle()

    run = await service.get_run("w", "r")
    assert run is not None
    assert (True, RunStatus.FAILED) == (marked, run.status)
    assert f"lost: nothing was heard of it since {event.occurred_at.isoformat()}" == run.error
    assert (event.occurred_at, 0) == (run.completed_at, run.duration_ms)
    history = await service.get_history("w", "r")
    assert [(RunStatus.RUNNING, False), (RunStatus.FAILED, True)] == [
        (line.status, line.inferred) for line in history
    ]
    assert {"total": 1, "successful": 0} == await service.get_stats("w")
    assert ([], None) == await service.list_stale(HOUR, now=NOON)


@every_adapter
async def test_the_lost_are_marked_once(harness: Harness, service: RunLog) -> None:
    """Two who conclude at different times that a run is lost say it once."""
    await harness.store.apply([heard(3, "r")])
    both = [
        await service.mark_lost("w", "r", older_than=HOUR, now=NOON),
        await service.mark_lost("w", "r", older_than=HOUR, now=NOON + HOUR),
    ]
    await harness.settle()

    assert both[0]
    assert 2 == len(await service.get_history("w", "r"))
    assert not await service.mark_lost("w", "r", older_than=HOUR, now=NOON)


@every_adapter
async def test_whatever_a_lost_run_says_beats_it(harness: Harness, service: RunLog) -> None:
    """A run thought lost is what it says of itself, also where that was said before and arrives late."""
    event = heard(3, "r")
    late = heard(2, "r", RunStatus.SUCCESS)
    await harness.store.apply([event])
    await service.mark_lost("w", "r", older_than=HOUR, now=NOON)
    await harness.settle()

    assert [Outcome.APPLIED] == await harness.store.apply([late])

    assert late.run == await service.get_run("w", "r")
    assert {"total": 1, "successful": 1} == await service.get_stats("w")
    assert not any(line.anomaly for line in await service.get_history("w", "r"))


@pytest.mark.parametrize("status", [status for status in RunStatus if status not in ACTIVE])
async def test_only_the_active_can_be_lost(harness: Harness, service: RunLog, status: RunStatus) -> None:
    """A run that waits or has ended is never marked, however long ago that was."""
    event = heard(1_000, "r", status)
    await harness.store.apply([event])

    assert not await service.mark_lost("w", "r", older_than=HOUR, now=NOON)
    await harness.settle()
    assert event.run == await service.get_run("w", "r")


@every_adapter
async def test_the_run_is_read_again(harness: Harness, service: RunLog) -> None:
    """A run that was heard of since it was listed is not marked; one that is not there is an error."""
    await harness.store.apply([heard(3, "r")])
    assert 1 == len((await service.list_stale(HOUR, now=NOON))[0])
    again = heard(0.5, "r")
    await harness.store.apply([again])

    assert not await service.mark_lost("w", "r", older_than=HOUR, now=NOON)
    with pytest.raises(RunNotFoundError, match="'nobody'"):
        await service.mark_lost("w", "nobody", older_than=HOUR, now=NOON)
    await harness.settle()
    assert again.run == await service.get_run("w", "r")


@pytest.mark.parametrize(
    ("hlc", "event_id", "attempt"),
    [(7, "e" * 128, 1), (7, "~" * 128, 1), (7, "e", MAX_ATTEMPT), (0, "!", 1)],
    ids=["long id", "greatest id", "last attempt", "least version"],
)
async def test_a_run_with_anything_in_its_version_can_be_lost(
    harness: Harness, service: RunLog, hlc: int, event_id: str, attempt: int
) -> None:
    """A run whose id, clock or attempt are as far as they go is marked as lost like any other."""
    event = an_event(heard(5, "r").run, hlc=hlc, event_id=event_id, attempt=attempt)
    await harness.store.apply([event])

    assert await service.mark_lost("w", "r", older_than=HOUR, now=NOON)
    await harness.settle()

    run = await service.get_run("w", "r")
    assert run is not None
    assert (RunStatus.FAILED, attempt) == (run.status, run.attempt)
    assert not await service.mark_lost("w", "r", older_than=HOUR, now=NOON)


async def test_a_run_after_whose_version_nothing_comes_is_named(harness: Harness, service: RunLog) -> None:
    """A run that is stored in the last version there is cannot be marked, and the error names it."""
    await harness.store.apply([an_event(heard(5, "r").run, hlc=MAX_HLC - 1, event_id="~" * 128)])

    with pytest.raises(WriteRefusedError, match="run 'r' of workflow 'w' cannot be marked as lost"):
        await service.mark_lost("w", "r", older_than=HOUR, now=NOON)


async def test_a_foreign_cursor_is_refused(harness: Harness, service: RunLog) -> None:
    """A cursor that is malformed, of another workflow or of another listing is an error."""
    await every_status(harness)
    _, cursor = await service.list_stale(HOUR, limit=1, workflow_id="w", now=NOON)
    _, of_runs = await service.list_runs("w", limit=1)

    for bad in ("", 5, of_runs):
        with pytest.raises(InvalidCursorError):
            await service.list_stale(HOUR, start_after=bad, now=NOON)
    for workflow_id in (None, "w/x"):
        with pytest.raises(InvalidCursorError):
            await service.list_stale(HOUR, start_after=cursor, workflow_id=workflow_id, now=NOON)


async def test_silence_may_be_longer_than_time(harness: Harness, service: RunLog) -> None:
    """Silence of more years than there are makes nothing stale, and is no error."""
    await every_status(harness)

    assert ([], None) == await service.list_stale(timedelta.max, now=NOON)
