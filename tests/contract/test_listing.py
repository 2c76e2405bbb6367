"""Listing: pages that return every run once, newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_log.core import InvalidCursorError, RunStatus, WorkflowRun
from run_log.stores import RunLog
from run_log.stores.listings import Order
from run_log.testing import a_run, an_event

from .adapters import memory_alone
from .harness import Harness, ids, save, walk

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def at(minute: float, run_id: str | None = None, workflow_id: str = "w") -> WorkflowRun:
    """Return a run that started *minute* minutes after noon."""
    return a_run(
        workflow_id=workflow_id, id=run_id or f"run-{minute}", started_at=NOON + timedelta(minutes=minute)
    )


async def fill(harness: Harness, *runs: WorkflowRun) -> None:
    """Store *runs* at once."""
    await harness.store.apply([an_event(run) for run in runs])


async def test_pages_return_ties_once(harness: Harness, service: RunLog) -> None:
    """Runs that started at the same moment are neither lost nor repeated, for any page size."""
    runs = [at(1, "newest"), *(at(0, run_id) for run_id in "abcXYZ019_~é"), at(-1, "oldest")]
    await fill(harness, *runs)
    whole = ids((await service.list_runs("w"))[0])

    for limit in range(1, len(runs) + 2):
        pages = await walk(service, "w", limit)

        assert whole == [run.id for page in pages for run in page]
        assert {limit} == {len(page) for page in pages[:-1]} | {limit}
    assert sorted(run.id for run in runs) == sorted(whole)
    assert (whole[0], whole[-1]) == ("newest", "oldest")


async def test_ties_come_by_id(harness: Harness, service: RunLog) -> None:
    """Runs that started at the same moment come by id, in every adapter the same way."""
    await fill(harness, *(at(0, run_id) for run_id in ["a", "b", "B", "é", "z", "10", "9", "\U0001f600"]))

    assert ids((await service.list_runs("w"))[0]) == ["\U0001f600", "é", "z", "b", "a", "B", "9", "10"]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_an_exact_last_page_has_no_cursor(harness: Harness, service: RunLog, count: int) -> None:
    """The cursor is None exactly when nothing is left, at a full last page too."""
    await fill(harness, *(at(minute) for minute in range(count * 2)))

    pages = await walk(service, "w", 2)

    assert [2] * count == [len(page) for page in pages]


async def test_inserts_between_pages_change_nothing(harness: Harness, service: RunLog) -> None:
    """Runs stored while the pages are walked push none of the others out, and repeat none."""
    await fill(harness, *(at(minute) for minute in range(6)))
    first, cursor = await service.list_runs("w", limit=2)
    await fill(harness, at(9), at(4.5), at(4, "run-4a"), at(2.5))

    second, cursor = await service.list_runs("w", limit=3, start_after=cursor)
    await fill(harness, at(8), at(3.5))
    third, cursor = await service.list_runs("w", limit=50, start_after=cursor)

    walked = ids([*first, *second, *third])
    assert cursor is None
    assert len(walked) == len(set(walked))
    assert [f"run-{n}" for n in (5, 4, 3, 2, 1, 0)] == [run_id for run_id in walked if len(run_id) == 5]
    assert {"run-9", "run-4.5", "run-8"}.isdisjoint(walked)
    assert "run-2.5" in walked


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_only_a_run_whose_start_changes_is_lost_or_comes_twice(
    harness: Harness, service: RunLog, order: Order
) -> None:
    """Pages return every run that was there at the start once, unless its `started_at` changes meanwhile."""
    begun = [at(minute).model_copy(update={"status": RunStatus.RUNNING}) for minute in range(12)]
    await fill(harness, *begun)
    ahead, behind = ("run-1", "run-10") if order == "newest" else ("run-10", "run-1")
    walked: list[WorkflowRun] = []
    cursor = None

    for page in range(6):
        runs, cursor = await service.list_runs("w", limit=2, start_after=cursor, order=order)
        walked += runs
        # Whatever else happens to a run leaves it at its place: it ends, is tried again, is told of late.
        states = [run.model_copy(update={"status": RunStatus.SUCCESS, "attempt": page + 1}) for run in begun]
        late = [an_event(run, hlc=page, result={"late": page}) for run in begun]
        moved = [
            at(minute, run_id).model_copy(update={"attempt": 9})
            for run_id, minute in ((ahead, 20 if order == "newest" else -20), (behind, 5.5))
        ]
        await fill(harness, *states, *moved, at(30 + page), at(-30 - page))
        await harness.store.apply(late)

    stayed = [run.id for run in begun if run.id not in (ahead, behind)]
    expected = stayed[::-1] if order == "newest" else stayed
    assert expected == [run.id for run in walked if run.id in stayed]
    # What the exception is about: one moved to where the walk had been, one to where it was still to come.
    assert (0, 2) == (ids(walked).count(ahead), ids(walked).count(behind))
    whole = ids([run async for run in service.iter_runs("w", page_size=3)])
    assert len(whole) == len(set(whole))
    assert {ahead, behind} <= set(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": RunStatus.FAILED, "result": {"n": 1}},
        {"started_at": NOON + timedelta(hours=1)},
    ],
    ids=["unchanged", "changed", "moved"],
)
async def test_a_cursor_outlives_its_run(harness: Harness, service: RunLog, changes: dict[str, Any]) -> None:
    """A cursor gives the same page each time, also once the run it was made from changed or has moved."""
    await fill(harness, *(at(minute) for minute in range(4)))
    page, cursor = await service.list_runs("w", limit=2)
    before = await service.list_runs("w", start_after=cursor)

    await save(harness, page[-1].model_copy(update=changes))

    assert before == await service.list_runs("w", start_after=cursor)
    assert ["run-1", "run-0"] == ids(before[0])


@pytest.mark.parametrize(
    "cursor", ["", "0", "run-1", "=" * 8, "é", "a" * 5_000, 0, 2, 1.5, b"x", [], {}, object(), NOON]
)
@memory_alone
async def test_a_malformed_cursor_is_refused(harness: Harness, service: RunLog, cursor: Any) -> None:
    """A cursor that is malformed is an error, never a restart from the first page."""
    await fill(harness, at(0), at(1))

    with pytest.raises(InvalidCursorError, match="is not a cursor"):
        await service.list_runs("w", start_after=cursor)


async def test_a_foreign_cursor_is_refused(harness: Harness, service: RunLog) -> None:
    """A cursor of another workflow is an error."""
    await fill(harness, at(0), at(1), at(0, "r", "w2"), at(1, "s", "w2"))
    _, cursor = await service.list_runs("w2", limit=1)

    with pytest.raises(InvalidCursorError, match="another listing"):
        await service.list_runs("w", start_after=cursor)


@memory_alone
async def test_an_altered_cursor_is_refused(harness: Harness, service: RunLog) -> None:
    """A cursor with any one character changed, added or left out is an error."""
    await fill(harness, at(0), at(1))
    _, cursor = await service.list_runs("w", limit=1)
    assert cursor is not None

    altered = [cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :] for n in range(len(cursor))]
    altered += [cursor + "A", cursor[:-1], cursor + "=", cursor + "\n", " " + cursor, cursor + cursor]

    for one in altered:
        with pytest.raises(InvalidCursorError):
            await service.list_runs("w", start_after=one)


async def test_fifty_is_the_default_limit(harness: Harness, service: RunLog) -> None:
    """A page has 50 runs unless told otherwise, and from 1 to 1000."""
    await fill(harness, *(at(minute) for minute in range(51)))

    pages = [await service.list_runs("w"), *[await service.list_runs("w", limit=n) for n in (1, 1_000)]]

    assert [50, 1, 51] == [len(runs) for runs, _ in pages]
    assert [True, True, False] == [cursor is not None for _, cursor in pages]
