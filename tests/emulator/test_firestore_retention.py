"""Retention in Firestore: the field that it deletes by, and what happens once it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import (
    ConfigurationError,
    DeadLetterReason,
    Outcome,
    RunExpiredError,
    RunStatus,
)
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_life, an_event

from .firestore_kit import OpenedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

DAY = timedelta(days=1)
RUN = "autopilot_runs/w/runs/r"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


class Service(OpenedService):
    """A service whose time a test sets."""

    def __init__(self, time: datetime = NOON) -> None:
        self.time = time
        super().__init__(retention_days=30, now=lambda: self.time)

    async def expire_at(self) -> object:
        """Return what says when the run is deleted."""
        return (await self.reference(RUN).get()).to_dict().get("expire_at")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """Yield a service of an empty project."""
    service = Service()
    yield service
    await service.close()


async def test_only_ended_runs_say_when_they_expire(service: Service) -> None:
    """A run has the field that it is deleted by while it has ended, and at no other time."""
    found: list[object] = []
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.SUCCESS, RunStatus.RUNNING):
        await service.apply([an_event(workflow_id="w", id="r", status=status, occurred_at=NOON)])
        found.append(await service.expire_at())

    assert [None, None, NOON + 30 * DAY, None] == found


async def test_an_expired_run_is_counted_until_it_is_deleted(service: Service) -> None:
    """A count sees index entries and no expiry: a run that no listing shows is in it until it is deleted."""
    await service.apply([an_event(workflow_id="w", id="r", occurred_at=NOON)])
    service.time = NOON + 31 * DAY

    assert ([], None) == await service.list_runs("w")
    assert [1, 1] == [await service.count_runs("w", status="success"), await service.count_runs()]
    await service.reference(RUN).delete()
    assert [0, 0] == [await service.count_runs("w", status="success"), await service.count_runs()]


async def test_a_deleted_run_does_not_come_back(service: Service) -> None:
    """Once Firestore has deleted a run, its events replayed change neither the runs nor the stats."""
    events = [event.model_copy(update={"occurred_at": NOON}) for event in a_life("w", "r")]
    await service.apply(events)
    service.time = NOON + 31 * DAY
    await service.reference(RUN).delete()
    later = Service(service.time)

    for store in (service, later):
        outcomes = await Projector(store).apply(events)
        assert await store.get_run("w", "r") is None
        assert {"total": 1, "successful": 1} == await store.get_stats("w")
        assert {Outcome.REJECTED, Outcome.DUPLICATE} >= set(outcomes)
    await later.close()


async def test_a_reader_that_keeps_all_sees_none(service: Service) -> None:
    """An expired run is not seen by who keeps all and only reads, from the moment it expires."""
    await service.apply([an_event(workflow_id="w", id="r", occurred_at=NOON)])
    reader = FirestoreRunLogService(now=lambda: NOON + 30 * DAY)
    seen = (await reader.list_runs("w"), await reader.get_run("w", "r"))
    await reader.close()

    assert (([], None), None) == seen


async def test_the_rest_of_a_batch_is_applied(service: Service) -> None:
    """Events that come too late go to the dead letters with that reason; their neighbours are applied."""
    late = [an_event(workflow_id="w", id=f"late-{n}", occurred_at=NOON - 30 * DAY) for n in range(3)]
    good = [an_event(workflow_id="w", id=f"good-{n}", occurred_at=NOON) for n in range(5)]
    mixed = [*late[:1], *good[:3], *late[1:], *good[3:]]

    projected = await Projector(service).project(mixed)

    for event, result in zip(mixed, projected, strict=True):
        if event in late:
            assert (Outcome.REJECTED, DeadLetterReason.EXPIRED) == (result.outcome, result.reason)
            assert isinstance(result.error, RunExpiredError)
        else:
            assert (Outcome.APPLIED, None) == (result.outcome, result.reason)
    assert 5 == (await service.get_stats("w"))["total"]


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_retention_is_at_least_a_day(days: int) -> None:
    """A retention that is no number of days is an error that says what can be set."""
    with pytest.raises(ConfigurationError, match="not within 1 and 36500"):
        FirestoreRunLogService(retention_days=days)
