"""Stored runs that cannot be read: skipped by listings, named by `get_run`, repaired by a newer event."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import RunStatus, UnreadableRunError
from run_log.stores import RunLog
from run_log.testing import a_run, an_event

from .conftest import Skipped
from .harness import Harness, ids, save, walk

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


async def test_a_skipped_run_is_logged(
    harness: Harness, service: RunLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Each skipped run is logged as a warning that names it."""
    unreadable = await harness.plant_unreadable("w", NOON)
    caplog.clear()

    await service.list_runs("w")

    (record,) = [record for record in caplog.records if record.name == "run_log.stores"]
    assert (record.levelno, vars(record)["event"]) == (logging.WARNING, "run_log_unreadable_run")
    assert ("w", unreadable) == (vars(record)["workflow_id"], vars(record)["run_id"])


async def test_a_skipped_run_is_counted(harness: Harness, service: RunLog, skipped: Skipped) -> None:
    """Each skipped run is counted, each time it is skipped."""
    await plant(harness, "xox")
    before = skipped()

    await service.list_runs("w")
    await service.get_latest_run("w")

    assert before + 2 + 1 == skipped()


async def test_the_latest_run_is_a_readable_one(harness: Harness, service: RunLog) -> None:
    """The latest run is the newest that can be read."""
    await plant(harness, "xxoo")

    latest = await service.get_latest_run("w")

    assert latest is not None
    assert latest.id == "run-2"


async def test_no_readable_run_is_no_latest_run(harness: Harness, service: RunLog) -> None:
    """A workflow of which no run can be read has no latest run."""
    await plant(harness, "xx")

    assert await service.get_latest_run("w") is None


async def test_get_run_names_an_unreadable_run(harness: Harness, service: RunLog) -> None:
    """A run that is stored in a form that cannot be read is an error that names it, not None."""
    unreadable = await harness.plant_unreadable("w", NOON)

    with pytest.raises(UnreadableRunError, match=unreadable) as caught:
        await service.get_run("w", unreadable)

    assert ("w", unreadable) == (caught.value.workflow_id, caught.value.run_id)


async def test_the_inbox_skips_unreadable_runs(harness: Harness, service: RunLog) -> None:
    """An unreadable paused run does not hide the other paused ones."""
    paused = a_run(workflow_id="w", id="p", status=RunStatus.PAUSED, started_at=NOON)
    await harness.store.apply([an_event(paused)])
    await harness.plant_unreadable("w", NOON + timedelta(minutes=1), status=RunStatus.PAUSED)
    await harness.plant_unreadable("w", NOON - timedelta(minutes=1), status=RunStatus.PAUSED)

    assert ids(await service.get_pending_runs()) == ["p"]


async def test_saving_again_repairs(harness: Harness, service: RunLog) -> None:
    """An unreadable run that is saved again can be read again, and is counted once."""
    unreadable = await harness.plant_unreadable("w", NOON)
    run = a_run(workflow_id="w", id=unreadable, started_at=NOON, status=RunStatus.FAILED)

    await save(harness, run)

    assert run == await service.get_run("w", unreadable)
    assert await service.get_stats("w") == {"total": 1, "successful": 0}
