"""Listings of some of a workflow's runs, from either end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from run_log.core import InvalidCursorError, RunStatus, TriggerType, WorkflowRun
from run_log.stores import RunLog
from run_log.stores.listings import Order, RunFilters
from run_log.testing import a_run, an_event

from .adapters import memory_alone
from .harness import Harness, ids, save, walk

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

# Several start at the same moment.
RUNS = [
    a_run(
        workflow_id="w",
        id=f"r{number:02}",
        status=status,
        trigger_type=trigger_type,
        started_at=NOON + number // 4 * MINUTE,
    )
    for number, (status, trigger_type) in enumerate(
        product(RunStatus, [TriggerType.MANUAL, TriggerType.WEBHOOK, TriggerType.MANUAL])
    )
]

FILTERS: dict[str, RunFilters] = {
    "nothing": {},
    "nothing, said": {"status": None, "since": None, "until": None, "trigger_type": None, "order": "newest"},
    "oldest": {"order": Order.OLDEST},
    "a status": {"status": RunStatus.FAILED},
    "a status, oldest": {"status": RunStatus.FAILED, "order": Order.OLDEST},
    "a status as text": {"status": "paused"},
    "statuses": {"status": [RunStatus.SUCCESS, "failed"]},
    "statuses, oldest": {"status": {RunStatus.PENDING, RunStatus.RUNNING}, "order": "oldest"},
    "all statuses": {"status": list(RunStatus)},
    "a trigger": {"trigger_type": TriggerType.WEBHOOK},
    "a trigger as text, oldest": {"trigger_type": "manual", "order": "oldest"},
    "a trigger of none": {"trigger_type": TriggerType.GMAIL_PUSH},
    "since": {"since": NOON + MINUTE},
    "until": {"until": NOON + 2 * MINUTE},
    "a window, oldest": {"since": NOON + MINUTE, "until": NOON + 3 * MINUTE, "order": Order.OLDEST},
    "an empty window": {"since": NOON + 3 * MINUTE, "until": NOON + MINUTE},
    "all of it": {
        "status": [RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.FAILED],
        "trigger_type": TriggerType.MANUAL,
        "since": NOON + MINUTE,
        "until": NOON + 4 * MINUTE,
        "order": Order.OLDEST,
    },
}


def selected(
    *,
    status: Any = None,
    since: datetime | None = None,
    until: datetime | None = None,
    trigger_type: Any = None,
    order: Any = Order.NEWEST,
) -> list[WorkflowRun]:
    """Return those of `RUNS` that a listing has to have, in order."""
    statuses = [status] if isinstance(status, str) else list(status or RunStatus)
    found = [
        run
        for run in RUNS
        if run.status in statuses
        and (trigger_type is None or run.trigger_type == trigger_type)
        and (since is None or since <= run.started_at)
        and (until is None or run.started_at < until)
    ]
    return sorted(found, key=lambda run: (run.started_at, run.id), reverse=order == Order.NEWEST)


async def fill(harness: Harness) -> None:
    """Store `RUNS`, and some of another workflow."""
    await harness.store.apply([an_event(run) for run in RUNS])
    await harness.store.apply([an_event(run.model_copy(update={"workflow_id": "w2"})) for run in RUNS[:5]])


async def test_a_listing_has_what_is_selected(harness: Harness, service: RunLog) -> None:
    """A filtered listing has each run that matches once, in order, for any page size."""
    await fill(harness)

    for (name, filters), limit in product(FILTERS.items(), (1, 2, 5, 50)):
        pages = await walk(service, "w", limit, **filters)

        assert selected(**filters) == [run for page in pages for run in page], name
        assert {limit} == {len(page) for page in pages[:-1]} | {limit}, name


@memory_alone
async def test_iterating_walks_all_pages(harness: Harness, service: RunLog) -> None:
    """Iterating yields the listing, whatever the size of its pages."""
    await fill(harness)

    for (name, filters), page_size in product(FILTERS.items(), (1, 3, 200)):
        walked = [run async for run in service.iter_runs("w", page_size=page_size, **filters)]

        assert selected(**filters) == walked, name


async def test_since_is_included_and_until_is_not(harness: Harness, service: RunLog) -> None:
    """A run that started at `since` is listed, one that started at `until` is not, to the microsecond."""
    step = timedelta(microseconds=1)
    await save(
        harness,
        *(a_run(workflow_id="w", id=f"r{number}", started_at=NOON + number * step) for number in range(4)),
    )

    runs, _ = await service.list_runs("w", since=NOON + step, until=NOON + 3 * step)

    assert ["r2", "r1"] == ids(runs)


async def test_a_filter_sees_the_newest_state(harness: Harness, service: RunLog) -> None:
    """A run is listed under the status it has, not under those it had."""
    await save(
        harness,
        a_run(workflow_id="w", id="r", status=RunStatus.RUNNING),
        a_run(workflow_id="w", id="r", status=RunStatus.FAILED),
    )

    assert ([], None) == await service.list_runs("w", status=RunStatus.RUNNING)
    assert ["r"] == ids((await service.list_runs("w", status=RunStatus.FAILED))[0])


@memory_alone
async def test_a_cursor_carries_its_filter(harness: Harness, service: RunLog) -> None:
    """A cursor is refused by a listing with another filter or order, and taken where both mean the same."""
    await fill(harness)
    given: RunFilters = {"status": ["failed", "success"], "since": NOON, "order": "newest"}
    same: RunFilters = {"status": (RunStatus.SUCCESS, RunStatus.FAILED), "since": NOON.astimezone()}
    others: list[RunFilters] = [
        {},
        {**given, "status": "failed"},
        {**given, "since": NOON + MINUTE},
        {**given, "until": NOON + 9 * MINUTE},
        {**given, "trigger_type": "manual"},
        {**given, "order": "oldest"},
    ]
    _, cursor = await service.list_runs("w", limit=1, **given)
    _, unfiltered = await service.list_runs("w", limit=1)

    assert selected(**given)[1:] == (await service.list_runs("w", start_after=cursor, **same))[0]
    for other in others:
        with pytest.raises(InvalidCursorError, match="same filters"):
            await service.list_runs("w", start_after=cursor, **other)
    with pytest.raises(InvalidCursorError, match="same filters"):
        await service.list_runs("w", start_after=unfiltered, **given)


async def test_an_unreadable_run_ends_no_filtered_page(harness: Harness, service: RunLog) -> None:
    """A run that cannot be read neither shortens a filtered page nor ends the listing."""
    await fill(harness)
    for minute in range(3):
        await harness.plant_unreadable("w", NOON + minute * MINUTE, status=RunStatus.SUCCESS)

    pages = await walk(service, "w", 2, status=RunStatus.SUCCESS)

    assert selected(status="success") == [run for page in pages for run in page]
    assert {2} == {len(page) for page in pages[:-1]} | {2}
