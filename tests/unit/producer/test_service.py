from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Final

import pytest

from run_log.core import InvalidRunError, PauseRequest, RunStatus, TransportUnavailableError
from run_log.core.clock import PROCESS_CLOCK
from run_log.producer import EmitterStats, FlushReport, PubSubRunLogService, RunEventEmitter
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run, an_event

from .transports import PATIENCE, SOON, ScriptedTransport

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)


class _Reader(InMemoryRunLogService):
    closings = 0

    async def close(self) -> None:
        self.closings += 1


@pytest.fixture
def transport() -> ScriptedTransport:
    """What the service publishes to."""
    return ScriptedTransport()


@pytest.fixture
def reader() -> _Reader:
    """What the service reads."""
    return _Reader()


@pytest.fixture
async def service(transport: ScriptedTransport, reader: _Reader) -> AsyncIterator[PubSubRunLogService]:
    """Make the service over both, and close it."""
    service = PubSubRunLogService(emitter=RunEventEmitter(transport, policy=SOON), reader=reader)
    yield service
    await service.close()


async def test_saves_are_published_and_not_stored(
    service: PubSubRunLogService, transport: ScriptedTransport, reader: _Reader
) -> None:
    """Saving a run publishes its state, in the order of saving, and writes nothing to the store."""
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        await service.save_run(a_run(status=status))
    await service.emitter.flush(PATIENCE)

    assert [event.status for event in transport.events] == [RunStatus.RUNNING, RunStatus.SUCCESS]
    assert transport.events == sorted(transport.events, key=lambda event: event.version)
    assert await reader.get_run("workflow-1", "run-1") is None


@pytest.mark.parametrize("junk", [None, object(), {"id": "r"}, {**dict(a_run()), "attempt": 0}])
async def test_a_bad_run_is_refused(junk: object, service: PubSubRunLogService) -> None:
    """What is no run raises InvalidRunError, and nothing is published."""
    with pytest.raises(InvalidRunError):
        await service.save_run(junk)

    assert EmitterStats(emitted=0, delivered=0, pending=0, dropped=0) == service.emitter.stats


async def test_queries_go_to_the_reader(service: PubSubRunLogService, reader: _Reader) -> None:
    """Every query answers what the reader answers."""
    for number in range(3):
        await reader.save_run(a_run(id=str(number)))
    await reader.save_run(a_run(id="paused", status=RunStatus.PAUSED))

    page = await service.list_runs("workflow-1", limit=2)

    assert page == await reader.list_runs("workflow-1", limit=2)
    assert await service.list_runs("workflow-1", start_after=page[1]) == await reader.list_runs(
        "workflow-1", start_after=page[1]
    )
    assert a_run(id="1") == await service.get_run("workflow-1", "1")
    assert await service.get_stats("workflow-1") == {"total": 4, "successful": 3}
    assert [a_run(id="paused", status=RunStatus.PAUSED)] == await service.get_pending_runs()
    assert await service.get_latest_run("workflow-1") == await reader.get_latest_run("workflow-1")
    assert await service.get_history("workflow-1", "1") == await reader.get_history("workflow-1", "1")


async def test_what_is_saved_after_a_read_is_later(
    service: PubSubRunLogService, transport: ScriptedTransport, reader: _Reader
) -> None:
    """A run written by a clock far ahead is superseded by whoever reads it and goes on with it."""
    ahead = an_event(hlc=PROCESS_CLOCK.tick() + 60_000_000, status=RunStatus.PAUSED)
    await reader.apply([ahead])

    run = await service.get_run(*ahead.key)
    await service.save_run(run)
    await service.emitter.flush(PATIENCE)

    (event,) = transport.events
    assert event.version > ahead.version


async def test_answers_that_were_published_at_once_end_as_one(
    service: PubSubRunLogService, transport: ScriptedTransport, reader: _Reader
) -> None:
    """Answers to one pause are of one version: in any order the same one is kept, and a default by none."""
    pause = PauseRequest(choices=("a", "b"), default_choice="a", deadline=NOON)
    paused = an_event(status=RunStatus.PAUSED, pause=pause)
    await reader.apply([paused])
    assert await service.take_default(*paused.key, now=NOON + timedelta(hours=1))
    await service.resume(*paused.key, answered_by="mei", choice="b", if_version=paused.version)
    await service.reject(*paused.key, answered_by="bob", if_version=paused.version)
    await service.emitter.flush(PATIENCE)
    next_said = an_event(hlc=paused.hlc + 1, event_id="0", status=RunStatus.SUCCESS)

    ends: set[tuple[str | None, ...]] = set()
    for order in permutations(transport.events):
        log = InMemoryRunLogService()
        for event in (paused, *order):
            await log.apply([event])
        _, answer = await log.get_history(*paused.key)
        run = await log.get_run(*paused.key)
        assert run is not None
        assert run.pause is not None
        ends.add((answer.answered_by, run.pause.answered_by, run.status))
        await log.apply([next_said])
        assert next_said.run == await log.get_run(*paused.key)

    assert 3 == len(transport.events)
    assert {("bob", "bob", RunStatus.FAILED)} == ends


async def test_close_delivers() -> None:
    """Closing delivers what is held through a passing fault, and closes transport and reader."""
    transport = ScriptedTransport([TransportUnavailableError("down")])
    reader = _Reader()
    service = PubSubRunLogService(emitter=RunEventEmitter(transport, policy=SOON), reader=reader)
    await service.save_run(a_run())

    await service.close()

    assert FlushReport(delivered=1, pending=0, dropped=0) == service.emitter.close()
    assert reader.closings == 1
    assert transport.closings
