"""Each query gets to the store that answers it, with all that it was given, and refuses what cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

import pytest

from run_log.core import (
    InvalidArgumentError,
    InvalidCursorError,
    PauseRequest,
    RunRef,
    RunStatus,
    TriggerType,
    WorkflowRun,
)
from run_log.stores import MAX_WINDOW, InMemoryRunLogService, RunLog
from run_log.stores.listings import RunFilters
from run_log.testing import a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness, ids

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MEI = "mei@example.com"

REFUSED: dict[str, Callable[[RunLog, Any], Awaitable[object]]] = {
    "list_runs": lambda service, bad: service.list_runs("w", limit=bad),
    "list_runs, filter": lambda service, bad: service.list_runs("w", status=bad),
    "count_runs": lambda service, bad: service.count_runs("w", since=bad),
    "iter_runs": lambda service, bad: anext(aiter(service.iter_runs("w", page_size=bad))),
    "list_workflows": lambda service, bad: service.list_workflows(limit=bad),
    "get_summary": lambda service, bad: service.get_summary("w", bad),
    "wait_for": lambda service, bad: service.wait_for("w", "r", bad),
    "list_pending": lambda service, bad: service.list_pending(now=bad),
    "list_stale": lambda service, bad: service.list_stale(bad),
    "mark_lost": lambda service, bad: service.mark_lost("w", "r", older_than=bad),
    "resume": lambda service, bad: service.resume("w", "r", answered_by=bad),
    "reject": lambda service, bad: service.reject("w", "r", answered_by=MEI, now=bad),
}


NAIVE = datetime(2026, 3, 4)  # noqa: DTZ001 - it is naive
LIMITS = [0, -1, 1_001, 2**70, True, False, "5", 5.0, None]
WINDOWS = [timedelta(0), -HOUR, MAX_WINDOW + timedelta(microseconds=1), 24, "1h", True]


async def first_run(service: RunLog, **given: Any) -> WorkflowRun:
    """Return the first run that iterating yields."""
    return await anext(aiter(service.iter_runs("w", **given)))


CALLS: dict[str, Callable[..., Awaitable[object]]] = {
    "list_runs": partial(RunLog.list_runs, workflow_id="w"),
    "count_runs": RunLog.count_runs,
    "iter_runs": first_run,
    "list_workflows": RunLog.list_workflows,
    "list_pending": RunLog.list_pending,
    "list_stale": partial(RunLog.list_stale, older_than=HOUR),
    "mark_lost": partial(InMemoryRunLogService.mark_lost, workflow_id="w", run_id="r", older_than=HOUR),
    "get_summary": partial(RunLog.get_summary, workflow_id="w"),
}
FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"status": "done"}, r"status is 'done'; pass one of pending, running"),
    ({"status": ["success", "done"]}, r"status is 'done'; pass one of pending, running"),
    ({"status": []}, r"status is empty"),
    ({"status": 5}, r"status is 5"),
    ({"trigger_type": "a pigeon"}, r"trigger_type is 'a pigeon'; pass one of webhook.*, or another word"),
    ({"trigger_type": 5}, r"trigger_type is 5; pass one of webhook"),
    ({"label": "team=a"}, r"label is 'team=a'; pass a key and its value"),
    ({"label": ("Team", "a")}, r"label is .*; pass a key and its value.*at most 63"),
    ({"label": ("team", "a" * 129)}, r"label is .*a value at most 128"),
    ({"label": ("team", None)}, r"label is .*; pass a key"),
    ({"label": [("team", "a", "b")]}, r"label is .*; pass a key"),
    ({"label": ["team"]}, r"label is .*; pass a key"),
    ({"label": 5}, r"label is 5; pass a key"),
    ({"label": {}}, r"label is empty"),
    ({"parent": "r"}, r"parent is 'r'; pass RunRef\(workflow_id, run_id\)"),
    ({"parent": ("w", "")}, r"parent is .*; pass RunRef"),
    ({"parent": ("w", "r", "s")}, r"parent is .*; pass RunRef"),
    ({"error_type": ""}, r"error_type is ''; pass the qualified name"),
    ({"error_type": ValueError}, r"error_type is .*; pass the qualified name"),
    ({"since": "2026-03-04"}, r"since is '2026-03-04'; pass an aware datetime"),
    ({"until": NAIVE}, r"until is .*; pass an aware datetime"),
    ({"since": datetime.min.replace(tzinfo=timezone(HOUR))}, r"outside years 1 to 9999"),
    ({"order": "sideways"}, r"order is 'sideways'; pass one of newest, oldest"),
]
STALE: list[tuple[dict[str, Any], str]] = [
    ({"older_than": 5}, r"older_than is 5; pass a timedelta of 0 or more"),
    ({"older_than": -HOUR}, r"older_than is .*; pass a timedelta of 0 or more"),
    ({"now": "noon"}, r"now is 'noon'; pass an aware datetime"),
    ({"workflow_id": ""}, r"workflow_id is ''"),
]
WRONG: dict[str, list[tuple[dict[str, Any], str]]] = {
    "list_runs": FILTERS,
    "count_runs": [
        *FILTERS[:-1],
        ({"order": "newest"}, r"order is given, but a number of runs has none"),
        ({"workflow_id": ""}, r"workflow_id is ''"),
    ],
    "iter_runs": [*FILTERS, *(({"page_size": bad}, "page_size is .*from 1 to 1000") for bad in LIMITS)],
    "list_pending": [
        ({"assignee": ""}, r"assignee is ''; pass a non-empty text"),
        ({"assignee": 5}, r"assignee is 5"),
        ({"workflow_id": ""}, r"workflow_id is ''"),
        ({"overdue": "yes"}, r"overdue is 'yes'; pass True, False"),
        ({"now": "noon"}, r"now is 'noon'; pass an aware datetime"),
        ({"now": NAIVE}, r"now is .*; pass an aware datetime"),
    ],
    "list_stale": STALE,
    "mark_lost": STALE,
    "get_summary": [
        ({"now": NAIVE}, r"now is .*; pass an aware datetime"),
        *(({"window": bad}, "pass a timedelta above 0 and of 90 days") for bad in WINDOWS),
    ],
}


@pytest.mark.parametrize("query", CALLS)
@memory_alone
async def test_an_argument_that_cannot_be_is_refused(service: RunLog, query: str) -> None:
    """An argument that cannot be used is an error that says what can, and never means all runs."""
    limits = [({"limit": bad}, r"limit is .*; pass a whole number from 1 to 1000") for bad in LIMITS]
    has_limit = query in ("list_runs", "list_workflows", "list_pending", "list_stale")

    for arguments, message in [*WRONG.get(query, []), *(limits if has_limit else [])]:
        with pytest.raises(InvalidArgumentError, match=message):
            await CALLS[query](service, **arguments)


@every_adapter
async def test_each_query_refuses_what_cannot_be(service: RunLog) -> None:
    """Every query refuses an argument or a cursor that cannot be, in every adapter."""
    for query in REFUSED.values():
        with pytest.raises(InvalidArgumentError):
            await query(service, 0)
    for workflow_id in ("", [5], object()):
        with pytest.raises(InvalidArgumentError, match="workflow_id is"):
            service.watch(cast("Any", workflow_id))
    for listing in (service.list_runs("w", start_after="0"), service.list_workflows(start_after="0")):
        with pytest.raises(InvalidCursorError):
            await listing
    for listed in (service.list_pending(start_after="0"), service.list_stale(HOUR, start_after="0")):
        with pytest.raises(InvalidCursorError):
            await listed
    with pytest.raises(InvalidCursorError):
        service.watch("w", since_cursor="0")


@every_adapter
async def test_listings_get_all_they_are_given(harness: Harness, service: RunLog) -> None:
    """A listing's workflow, filters, limit and cursor get to the store."""
    runs = [
        a_run(
            workflow_id=workflow_id,
            id=f"r{number}",
            status=RunStatus.FAILED if number % 4 else RunStatus.SUCCESS,
            trigger_type=TriggerType.MANUAL if number % 5 else TriggerType.WEBHOOK,
            started_at=NOON + number * HOUR,
            labels={"team": "a"} if number else {},
            parent=RunRef("p", "r"),
            error_type="ValueError",
        )
        for workflow_id in ("w", "v")
        for number in range(10)
    ]
    await harness.store.apply([an_event(run) for run in runs])
    filters: RunFilters = {
        "status": RunStatus.FAILED,
        "trigger_type": "manual",
        "since": NOON + 2 * HOUR,
        "until": NOON + 9 * HOUR,
        "label": ("team", "a"),
        "parent": RunRef("p", "r"),
        "error_type": "ValueError",
        "order": "oldest",
    }

    first, cursor = await service.list_runs("w", limit=2, **filters)
    second, end = await service.list_runs("w", limit=2, start_after=cursor, **filters)
    walked = [run async for run in service.iter_runs("v", page_size=1, **filters)]
    everywhere = [run async for run in service.iter_runs(None, page_size=3, payloads=False, **filters)]
    counts = [
        await service.count_runs("w", since=NOON + 2 * HOUR),
        await service.count_runs(until=NOON + 2 * HOUR),
        await service.count_runs("v", status="failed", trigger_type="manual"),
        await service.count_runs(label=("team", "a"), since=NOON, until=NOON + 9 * HOUR),
        await service.count_runs(parent=RunRef("p", "r")),
        await service.count_runs("w", error_type="KeyError"),
    ]
    (one,), after = await service.list_workflows(limit=1)
    (other,), last = await service.list_workflows(limit=1, start_after=after)

    assert (["r2", "r3"], ["r6", "r7"], None) == (ids(first), ids(second), end)
    assert [("v", run_id) for run_id in ("r2", "r3", "r6", "r7")] == [run.key for run in walked]
    assert [(w, f"r{number}") for number in (2, 3, 6, 7) for w in ("v", "w")] == [
        run.key for run in everywhere
    ]
    assert [8, 4, 6, 16, 20, 0] == counts
    assert [("v", 10), ("w", 10), None] == [
        (one.workflow_id, one.total),
        (other.workflow_id, other.total),
        last,
    ]


@every_adapter
async def test_queries_over_workflows_get_all_they_are_given(harness: Harness, service: RunLog) -> None:
    """What the inbox and the list of stale runs are asked for gets to the store."""
    paused = [
        an_event(
            workflow_id="v" if number % 2 else "w",
            id=f"p{number}",
            status=RunStatus.PAUSED,
            started_at=NOON + number * HOUR,
            pause=PauseRequest(assignee=MEI if number % 3 else "li", deadline=NOON + number * HOUR),
        )
        for number in range(9)
    ]
    running = [
        an_event(workflow_id=workflow_id, id=f"s{number}", status=RunStatus.RUNNING, started_at=NOON)
        for workflow_id in ("v", "w")
        for number in range(2)
    ]
    await harness.store.apply([*paused, *running])
    asked: dict[str, Any] = {"assignee": MEI, "workflow_id": "w", "limit": 1, "now": NOON + 5 * HOUR}

    (due,), end = await service.list_pending(overdue=True, start_after=None, **asked)
    (early,), cursor = await service.list_pending(**asked)
    (late,), _ = await service.list_pending(start_after=cursor, **asked)
    later: dict[str, Any] = {"workflow_id": "w", "limit": 1, "now": NOON + 3 * HOUR}
    (stale,), cursor = await service.list_stale(2 * HOUR, **later)
    (next_stale,), last = await service.list_stale(2 * HOUR, start_after=cursor, **later)

    assert ("p2", ["p8", "p4"]) == (due.run.id, [early.run.id, late.run.id])
    assert (True, HOUR) == (late.overdue, late.age)
    assert [("w", "s0"), ("w", "s1")] == [stale.run.key, next_stale.run.key]
    assert (3 * HOUR, None) == (stale.silence, last)
    assert ([], None) == await service.list_stale(4 * HOUR, **later)
    assert [event.run for event in paused[::-1]] == await service.get_pending_runs()
    assert end is not None


@every_adapter
async def test_queries_of_one_workflow_are_of_that(harness: Harness, service: RunLog) -> None:
    """What is asked of one run, or of one workflow, is answered of that."""
    now = harness.clock()
    older, newer = (
        [
            an_event(workflow_id="w", id=run_id, status=status, hlc=number, started_at=at, occurred_at=at)
            for number, status in enumerate((RunStatus.RUNNING, RunStatus.SUCCESS))
        ]
        for run_id, at in (("older", now - 30 * HOUR), ("newer", now - HOUR))
    )
    other = an_event(workflow_id="v", id="older", status=RunStatus.FAILED, started_at=now, occurred_at=now)
    await harness.store.apply([*older, *newer, other])

    assert older[1].run == await service.get_run("w", "older")
    assert newer[1].run == await service.get_latest_run("w")
    assert [event.version for event in older] == [
        line.version for line in await service.get_history("w", "older")
    ]
    assert {"total": 2, "successful": 2} == await service.get_stats("w")
    assert (now - HOUR, now) == (await service.get_as_of("w"), await service.get_as_of("v"))
    assert [2, 1, 0] == [
        (await service.get_summary("w", window, now=moment)).total
        for window, moment in ((None, now), (3 * HOUR, now), (3 * HOUR, now + 90 * HOUR))
    ]
    assert older[1].run == await service.wait_for("w", "older", older[0], timeout=0)
    with pytest.raises(TimeoutError):
        await service.wait_for("w", "older", an_event(workflow_id="w", id="older", hlc=9), timeout=0)


@every_adapter
async def test_a_watch_is_of_what_it_is_asked_for(harness: Harness, service: RunLog) -> None:
    """The workflow and the cursor of a watch get to the store."""
    events = [an_event(workflow_id=workflow_id, id=f"r{n}") for n in range(2) for workflow_id in ("v", "w")]

    async with asyncio.timeout(60):
        async with service.watch("w") as watch:
            await harness.store.apply(events)
            first = await anext(watch)
        async with service.watch("w", since_cursor=first.cursor) as watch:
            second = await anext(watch)

    assert [("w", "r0"), ("w", "r1")] == sorted([first.run.key, second.run.key])
