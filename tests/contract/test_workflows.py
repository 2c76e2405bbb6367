"""The workflows that have runs, with their stats."""

from __future__ import annotations

from collections import Counter

import pytest

from run_log.core import InvalidCursorError, RunStatus
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .harness import Harness, pages, save

WORKFLOWS = ("a", "a/b", "A", "b", "é", "__x__", "\U0001f600")


async def fill(harness: Harness) -> None:
    """Store a run in each status of each workflow, and the first status once more in some."""
    events = [
        an_event(workflow_id=workflow_id, id=status.value, status=status)
        for workflow_id in WORKFLOWS
        for status in RunStatus
    ]
    more = [an_event(workflow_id=workflow_id, id="more") for workflow_id in WORKFLOWS[::2]]
    await harness.store.apply([*events, *more])


async def test_without_runs_there_are_no_workflows(service: RunLog) -> None:
    """Where nothing was saved there are no workflows, and no next page; asking for one makes none."""
    await service.get_stats("w")
    await service.list_runs("w")

    assert ([], None) == await service.list_workflows()


async def test_every_workflow_comes_once_with_its_stats(harness: Harness, service: RunLog) -> None:
    """Each workflow comes once, for any page size, with as many runs in each status as it has."""
    await fill(harness)

    for limit in (1, 2, 3, len(WORKFLOWS), 50):
        walked = await pages(service.list_workflows, limit=limit)

        found = {stats.workflow_id: stats for page in walked for stats in page}
        assert Counter(WORKFLOWS) == Counter(stats.workflow_id for page in walked for stats in page)
        assert {limit} == {len(page) for page in walked[:-1]} | {limit}
        for workflow_id, stats in found.items():
            more = workflow_id in WORKFLOWS[::2]
            expected = dict.fromkeys(RunStatus, 1) | ({RunStatus.SUCCESS: 2} if more else {})
            assert expected == stats.by_status
            assert await service.get_stats(workflow_id) == {
                "total": stats.total,
                "successful": stats.successful,
            }


async def test_the_order_is_the_same_everywhere(harness: Harness, service: RunLog) -> None:
    """Workflows come by id as it is stored, in every adapter the same way."""
    await fill(harness)

    found, _ = await service.list_workflows()

    assert ["__x__", "A", "a", "a/b", "b", "é", "\U0001f600"] == [stats.workflow_id for stats in found]


async def test_long_ids_are_listed(harness: Harness, service: RunLog) -> None:
    """Workflows whose ids are too long for a document's name are listed by their ids, each once."""
    names = {f"{number}{'/' * 1_000}" for number in range(3)}
    await harness.store.apply([an_event(workflow_id=name) for name in names])

    walked = await pages(service.list_workflows, limit=1)

    assert Counter(names) == Counter(stats.workflow_id for page in walked for stats in page)


async def test_a_status_that_no_run_has_is_absent(harness: Harness, service: RunLog) -> None:
    """A status that runs had and none has is absent from the stats."""
    await save(
        harness,
        a_run(workflow_id="w", status=RunStatus.RUNNING),
        a_run(workflow_id="w", status=RunStatus.FAILED),
    )

    (stats,), _ = await service.list_workflows()

    assert (1, 0, {RunStatus.FAILED: 1}) == (stats.total, stats.successful, stats.by_status)


async def test_workflows_that_come_between_pages_change_nothing(harness: Harness, service: RunLog) -> None:
    """Walking the pages returns every workflow that was there at the start once, whatever comes meanwhile."""
    await save(harness, *(a_run(workflow_id=f"w{number}") for number in (1, 3, 5, 7)))
    first, cursor = await service.list_workflows(limit=2)
    await save(harness, *(a_run(workflow_id=f"w{number}") for number in (0, 2, 6)))

    second, cursor = await service.list_workflows(limit=50, start_after=cursor)

    assert ["w1", "w3", "w5", "w6", "w7"] == [stats.workflow_id for stats in [*first, *second]]
    assert cursor is None


async def test_a_cursor_of_another_listing_is_refused(harness: Harness, service: RunLog) -> None:
    """A cursor that is malformed, or of a listing of runs, is an error, and the other way about."""
    runs = [a_run(workflow_id="workflows", id="r1"), a_run(workflow_id="workflows", id="r2"), a_run()]
    await save(harness, *runs)
    _, of_runs = await service.list_runs("workflows", limit=1)
    _, of_workflows = await service.list_workflows(limit=1)

    for cursor in ("", "0", 5, of_runs):
        with pytest.raises(InvalidCursorError):
            await service.list_workflows(start_after=cursor)
    with pytest.raises(InvalidCursorError):
        await service.list_runs("workflows", start_after=of_workflows)
