"""Stored runs that cannot be read: skipped by listings, named by `get_run`, repaired by a newer event."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import RunStatus, UnreadableRunError
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .conftest import Skipped
from .harness import Harness, save, walk

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


async def plant(harness: Harness, pattern: str) -> list[str]:
    """Store a run for each letter, the newest first, unreadable for ``x``; return the readable ids."""
    readable: list[str] = []
    for number, letter in enumerate(pattern):
        started_at = NOON - timedelta(minutes=number)
        if letter == "x":
            await harness.plant_unreadable("w", started_at)
        else:
            readable.append(f"run-{number}")
            await harness.store.apply(
                [an_event(a_run(workflow_id="w", id=f"run-{number}", started_at=started_at))]
            )
    return readable


@pytest.mark.parametrize(
    "pattern", ["xooo", "ooxo", "ooox", "oxxxoxo", "xxxxxxo", "oooxxxx", "xxx", "xoxoxoxo"]
)
async def test_pages_stay_full_around_unreadable_runs(
    harness: Harness, service: RunLog, pattern: str
) -> None:
    """An unreadable run neither shortens the page nor ends the listing, wherever it stands."""
    readable = await plant(harness, pattern)

    for limit in range(1, len(pattern) + 2):
        pages = await walk(service, "w", limit)

        full, rest = divmod(len(readable), limit)
        assert readable == [run.id for page in pages for run in page]
        assert ([limit] * full + [rest] * bool(rest) or [0]) == [len(page) for page in pages]


async def test_a_skipped_run_is_told(
    harness: Harness, service: RunLog, skipped: Skipped, caplog: pytest.LogCaptureFixture
) -> None:
    """A skipped run is logged as a warning that names it, and counted, each time it is skipped."""
    unreadable = await harness.plant_unreadable("w", NOON)
    caplog.clear()
    before = skipped()

    await service.list_runs("w")

    (record,) = [record for record in caplog.records if record.name == "run_log.stores"]
    assert (record.levelno, vars(record)["event"]) == (logging.WARNING, "run_log_unreadable_run")
    assert ("w", unreadable) == (vars(record)["workflow_id"], vars(record)["run_id"])
    await service.get_latest_run("w")
    assert before + 2 == skipped()


async def test_the_latest_run_is_a_readable_one(harness: Harness, service: RunLog) -> None:
    """The latest run is the newest that can be read; none where no run can."""
    await harness.plant_unreadable("w2", NOON)
    await plant(harness, "xxoo")

    assert await service.get_latest_run("w2") is None
    latest = await service.get_latest_run("w")

    assert latest is not None
    assert latest.id == "run-2"


async def test_get_run_names_an_unreadable_run(harness: Harness, service: RunLog) -> None:
    """A run that is stored in a form that cannot be read is an error that names it, not None."""
    unreadable = await harness.plant_unreadable("w", NOON)

    with pytest.raises(UnreadableRunError, match=unreadable) as caught:
        await service.get_run("w", unreadable)

    assert ("w", unreadable) == (caught.value.workflow_id, caught.value.run_id)


async def test_saving_again_repairs(harness: Harness, service: RunLog) -> None:
    """An unreadable run that is saved again can be read again, and is counted once."""
    unreadable = await harness.plant_unreadable("w", NOON)
    run = a_run(workflow_id="w", id=unreadable, started_at=NOON, status=RunStatus.FAILED)

    await save(harness, run)

    assert run == await service.get_run("w", unreadable)
    assert await service.get_stats("w") == {"total": 1, "successful": 0}
