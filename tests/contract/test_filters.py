"""Listings of some of a workflow's runs, from either end, and how many they have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, cast

import pytest

from run_log.core import InvalidCursorError, RunRef, RunStatus, TriggerType, WorkflowRun
from run_log.stores import RunLog
from run_log.stores.firestore.queries import indexed
from run_log.stores.listings import Order, RunConditions, RunFilters, Selection
from run_log.stores.stored import reading
from run_log.testing import a_run, an_event

from .adapters import counting_anything, memory_alone
from .harness import Harness, ids, save, walk

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

LABELS = {"team": "billing", "customer": "acme: \N{SNOWMAN}=1"}
PARENTS = [RunRef("w", "nightly/1"), RunRef("v", "nightly/1"), None]

# Several start at the same moment.
RUNS = [
    a_run(
        workflow_id="w",
        id=f"r{number:02}",
        status=status,
        trigger_type=trigger_type,
        started_at=NOON + number // 4 * MINUTE,
        labels={name: value for name, value in LABELS.items() if number % len(name)},
        parent=PARENTS[number % 3],
        error_type="ValueError" if number % 2 else None,
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
    "a trigger that is a word": {"trigger_type": "cron.nightly"},
    "a label": {"label": ("team", "billing")},
    "a label, oldest": {"label": ("customer", LABELS["customer"]), "order": "oldest"},
    "another value": {"label": ("team", "sales")},
    "labels": {"label": LABELS},
    "labels as pairs": {"label": [*LABELS.items()]},
    "a label twice": {"label": [("team", "billing"), ("team", "sales")]},
    "a label and a status": {"label": ("team", "billing"), "status": ["failed", "skipped"]},
    "a label in a window": {"label": ("team", "billing"), "since": NOON + MINUTE, "until": NOON + 4 * MINUTE},
    "a parent": {"parent": PARENTS[0]},
    "a parent, oldest": {"parent": ("v", "nightly/1"), "order": "oldest"},
    "a parent of none": {"parent": RunRef("w", "nightly")},
    "an error type": {"error_type": "ValueError"},
    "an error type, oldest": {"error_type": "ValueError", "order": "oldest"},
    "another error type": {"error_type": "Value"},
    "everything": {
        "status": [RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.FAILED],
        "trigger_type": TriggerType.MANUAL,
        "label": LABELS,
        "parent": PARENTS[0],
        "error_type": "ValueError",
        "since": NOON,
    },
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


def selected(  # noqa: PLR0913 - each is a filter
    *,
    status: Any = None,
    since: datetime | None = None,
    until: datetime | None = None,
    trigger_type: Any = None,
    label: Any = None,
    parent: Any = None,
    error_type: Any = None,
    order: Any = Order.NEWEST,
    runs: Sequence[WorkflowRun] = tuple(RUNS),
) -> list[WorkflowRun]:
    """Return those of *runs* that a listing has to have, in order."""
    statuses = [status] if isinstance(status, str) else list(status or RunStatus)
    pairs: set[Any] = set()
    if isinstance(label, dict):
        pairs = set(cast("dict[str, str]", label).items())
    elif label is not None:
        pairs = {label} if isinstance(label, tuple) else set(label)
    found = [
        run
        for run in runs
        if run.status in statuses
        and pairs <= set(run.labels.items())
        and parent in (None, run.parent)
        and error_type in (None, run.error_type)
        and (trigger_type is None or run.trigger_type == trigger_type)
        and (since is None or since <= run.started_at)
        and (until is None or run.started_at < until)
    ]
    return sorted(found, key=lambda run: (run.started_at, *run.key), reverse=order == Order.NEWEST)


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


async def test_a_listing_of_all_workflows(harness: Harness, service: RunLog) -> None:
    """A listing of all workflows has each run of each that matches once, in order, for any page size."""
    runs = [run.model_copy(update={"workflow_id": name}) for name in ("w", "a/b", "z") for run in RUNS]
    await harness.store.apply([an_event(run) for run in runs])

    for (name, filters), limit in product(FILTERS.items(), (2, 7, 100)):
        pages = await walk(service, None, limit, **filters)

        assert selected(**filters, runs=runs) == [run for page in pages for run in page], name
        assert {limit} == {len(page) for page in pages[:-1]} | {limit}, name


def conditions_of(filters: RunFilters) -> RunConditions:
    """Return *filters* as a count takes them: a number has no order."""
    return cast("RunConditions", {name: value for name, value in filters.items() if name != "order"})


async def check_counts(service: RunLog, workflow_id: str | None, filters: RunFilters) -> int:
    """Check that the count of a listing is its length; return that."""
    listed = [run async for run in service.iter_runs(workflow_id, payloads=False, **filters)]
    assert len(listed) == await service.count_runs(workflow_id, **conditions_of(filters)), filters
    return len(listed)


async def test_a_count_is_the_length_of_a_listing(harness: Harness, service: RunLog) -> None:
    """A count by what one index finds is the length of that listing, of a workflow and of all."""
    await fill(harness)
    counted: list[int] = []

    for filters, workflow_id in product(FILTERS.values(), ("w", "w2", "unknown", None)):
        asked = Selection.of(**conditions_of(filters))
        if asked == indexed(asked, of_all=workflow_id is None):
            counted.append(await check_counts(service, workflow_id, filters))

    assert len(counted) > 3 * len(FILTERS)
    assert len(RUNS) + 5 == max(counted) == await service.count_runs()


@counting_anything
async def test_a_count_by_anything(harness: Harness, service: RunLog) -> None:
    """A count by any filters, together too, is the length of that listing."""
    await fill(harness)
    singles = (
        RunFilters(status="failed"),
        RunFilters(status=["success", "failed", "paused"]),
        RunFilters(trigger_type="manual"),
        RunFilters(label=("team", "billing")),
        RunFilters(label=LABELS),
        RunFilters(error_type="ValueError"),
        RunFilters(parent=PARENTS[0]),
        RunFilters(since=NOON + MINUTE),
        RunFilters(until=NOON + 4 * MINUTE),
    )
    pairs = [cast("RunFilters", {**one, **other}) for one, other in product(singles, singles)]
    counted: set[int] = set()

    for filters, workflow_id in product((*FILTERS.values(), *pairs), ("w", "w2", None)):
        counted.add(await check_counts(service, workflow_id, filters))

    assert len(counted) > 10


async def test_a_count_follows_the_newest_state(harness: Harness, service: RunLog) -> None:
    """A run is counted once, by what its newest state has, and no more once it is deleted."""
    first = a_run(workflow_id="w", id="r", status=RunStatus.RUNNING, labels={"team": "a"})
    last = first.model_copy(update={"status": RunStatus.FAILED, "labels": {"team": "b"}})
    await save(harness, first, last, last, a_run(workflow_id="w", id="s", labels={"team": "b"}))

    assert [0, 1, 0, 2] == [
        await service.count_runs("w", **filters)
        for filters in (
            RunConditions(status="running"),
            RunConditions(status="failed"),
            RunConditions(label=("team", "a")),
            RunConditions(label=("team", "b")),
        )
    ]
    await harness.delete("w", "s")
    assert [1, 1] == [await service.count_runs("w"), await service.count_runs(label=("team", "b"))]


async def test_an_unreadable_run_is_counted(harness: Harness, service: RunLog) -> None:
    """A run that cannot be read is counted by what is stored of it, although no listing shows it."""
    await fill(harness)
    await harness.plant_unreadable("w", NOON, status=RunStatus.SUCCESS)

    listed = [run async for run in service.iter_runs("w", status="success")]
    assert len(listed) + 1 == await service.count_runs("w", status="success")


async def test_a_page_passes_over_a_bounded_number_of_runs(
    harness: Harness, service: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where few of many runs match, the walk still has each of them once, however short its pages are."""
    monkeypatch.setattr(reading, "MAX_PASSED_OVER", 100)  # with 1,000, an emulator takes a minute
    runs = [
        a_run(
            workflow_id=f"w{number % 9}",
            id=f"r{number:04}",
            status=RunStatus.FAILED if number % 110 == 0 else RunStatus.SUCCESS,
            started_at=NOON + number // 4 * MINUTE,
            labels={"team": "billing"},
        )
        for number in range(170)
    ]
    await harness.store.apply([an_event(run) for run in runs])

    for order in Order:
        filters: RunFilters = {"label": ("team", "billing"), "status": RunStatus.FAILED, "order": order}
        pages = await walk(service, None, 3, **filters)

        assert selected(**filters, runs=runs) == [run for page in pages for run in page]


async def test_labels_and_parents_follow_the_newest_state(harness: Harness, service: RunLog) -> None:
    """A run is found by what its newest state has, not by what it had before; nor once it is deleted."""
    first = a_run(
        workflow_id="w",
        id="r",
        status=RunStatus.RUNNING,
        started_at=NOON,
        labels={"team": "a", "stage": "x"},
        parent=RunRef("w", "p"),
    )
    changed = {"labels": {"team": "b", "stage": "x"}, "parent": RunRef("w", "q"), "started_at": NOON + MINUTE}
    await save(harness, first, first.model_copy(update=changed), a_run(workflow_id="w", id="s"))

    for workflow_id in ("w", None):
        found = [
            ids((await service.list_runs(workflow_id, **filters))[0])
            for filters in (
                RunFilters(label=("team", "a")),
                RunFilters(label=("team", "b")),
                RunFilters(label=("stage", "x"), since=NOON + MINUTE),
                RunFilters(label=("stage", "x"), until=NOON + MINUTE),
                RunFilters(parent=RunRef("w", "p")),
                RunFilters(parent=RunRef("w", "q")),
            )
        ]
        assert [[], ["r"], ["r"], [], [], ["r"]] == found
    await harness.delete("w", "r")
    assert ([], None) == await service.list_runs("w", label=("team", "b"))


async def test_a_list_without_payloads(harness: Harness, service: RunLog) -> None:
    """Without payloads, a run comes as it is, but for its trigger data and its result, which are empty."""
    run = a_run(
        workflow_id="w",
        status=RunStatus.FAILED,
        trigger_data={"a": [1]},
        result={"b": "c"},
        error="it broke",
        error_type="ValueError",
        labels={"team": "a"},
        parent=RunRef("w", "p"),
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )
    await save(harness, run)
    light = run.model_copy(update={"trigger_data": {}, "result": {}})

    for workflow_id, label in product(("w", None), (None, ("team", "a"))):
        asked: RunFilters = {"label": label, "status": "failed"}
        assert [run] == (await service.list_runs(workflow_id, **asked))[0]
        assert [light] == (await service.list_runs(workflow_id, payloads=False, **asked))[0]


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
        {**given, "label": ("team", "a")},
        {**given, "parent": RunRef("w", "r")},
        {**given, "error_type": "ValueError"},
    ]
    _, cursor = await service.list_runs("w", limit=1, **given)
    _, unfiltered = await service.list_runs("w", limit=1)

    assert selected(**given)[1:] == (await service.list_runs("w", start_after=cursor, **same))[0]
    for other in others:
        with pytest.raises(InvalidCursorError, match="same filters"):
            await service.list_runs("w", start_after=cursor, **other)
    with pytest.raises(InvalidCursorError, match="same filters"):
        await service.list_runs("w", start_after=unfiltered, **given)
    _, of_all = await service.list_runs(None, limit=1)
    for workflow_id, foreign in (("w", of_all), (None, unfiltered), ("runs", of_all)):
        with pytest.raises(InvalidCursorError):
            await service.list_runs(workflow_id, start_after=foreign)


@memory_alone
async def test_cursors_of_before_are_taken(harness: Harness, service: RunLog) -> None:
    """A cursor that was made before there were labels is that of the same listing today."""
    await fill(harness)
    given: RunFilters = {"status": "failed", "trigger_type": "manual", "since": NOON}

    _, cursor = await service.list_runs("w", limit=1, **given)

    assert "Lla6ZHuwWzEsMTc3MjYyNTcyMDAwMDAwMCwicjExIl0" == cursor


async def test_an_unreadable_run_ends_no_filtered_page(harness: Harness, service: RunLog) -> None:
    """A run that cannot be read neither shortens a filtered page nor ends the listing."""
    await fill(harness)
    for minute in range(3):
        await harness.plant_unreadable("w", NOON + minute * MINUTE, status=RunStatus.SUCCESS)

    pages = await walk(service, "w", 2, status=RunStatus.SUCCESS)

    assert selected(status="success") == [run for page in pages for run in page]
    assert {2} == {len(page) for page in pages[:-1]} | {2}
