"""Reading what was just written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from run_log.core import InvalidArgumentError, RunLogError, RunStatus, WaitTimeoutError
from run_log.stores import RunLog
from run_log.testing import a_life, a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness


@every_adapter
async def test_a_write_is_read_once_it_is_there(harness: Harness, service: RunLog) -> None:
    """Who waits for an event they have emitted gets the run as soon as queries see it."""
    event = an_event(workflow_id="w", id="r")
    waiting = asyncio.create_task(service.wait_for("w", "r", event, timeout=60))

    await harness.store.apply([event])

    assert event.run == await waiting == await service.get_run("w", "r")


async def test_a_later_state_is_enough(harness: Harness, service: RunLog) -> None:
    """Who waits for an event that newer ones have overtaken gets the newest state."""
    first, last = a_life("w", "r")
    await harness.store.apply([last])

    assert last.run == await service.wait_for("w", "r", first, timeout=0)
    assert last.run == await service.wait_for("w", "r", last.version, timeout=0)


async def test_what_is_not_seen_in_time_is_an_error(harness: Harness, service: RunLog) -> None:
    """Waiting ends with an error of ours, a TimeoutError too, where the event is not there in time."""
    first, last = a_life("w", "r")
    await harness.store.apply([first])

    with pytest.raises(WaitTimeoutError, match="is the projector running") as caught:
        await service.wait_for("w", "r", last, timeout=0.01)
    with pytest.raises(WaitTimeoutError):
        await service.wait_for("w", "unknown", last.version, timeout=0)
    assert isinstance(caught.value, RunLogError)
    assert isinstance(caught.value, TimeoutError)


@memory_alone
async def test_an_event_is_waited_for_at_its_own_run(service: RunLog) -> None:
    """Waiting for another run's event, or for no event, is an error at once."""
    event = an_event(workflow_id="w", id="other")
    nothing: Any = a_run(status=RunStatus.SUCCESS)

    with pytest.raises(InvalidArgumentError, match=r"the event is of \('w', 'other'\)"):
        await service.wait_for("w", "r", event)
    with pytest.raises(InvalidArgumentError, match="pass the RunEvent that was emitted"):
        await service.wait_for("w", "r", nothing)
