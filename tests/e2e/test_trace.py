"""The trace, in through Pub/Sub and out of Firestore."""

from __future__ import annotations

import signal

import pytest
from tests.emulator.projector_kit import ended, projecting, until

from run_log.producer import RunEventEmitter
from run_log.stores import FirestoreRunLogService

from .trace_file import read_trace
from .trace_replay import labelled, publish, verify

pytestmark = pytest.mark.emulator


async def _are_successful(service: FirestoreRunLogService, count: int) -> bool:
    workflows, _ = await service.list_workflows(limit=1_000)
    return count == sum(stats.successful for stats in workflows)


# All events of the trace, each through both emulators.
@pytest.mark.usefixtures("provisioned")
async def test_the_trace_comes_out_as_it_went_in(store: FirestoreRunLogService) -> None:
    """Every run of a trace, every workflow's stats and every page equal an independent fold."""
    runs = list(map(labelled, read_trace()))
    emitter = RunEventEmitter.from_env()

    async with projecting() as first, projecting() as second:
        await publish(emitter, runs, int)
        await until(lambda: _are_successful(store, len(runs)))
        for projector in (first, second):
            projector.send_signal(signal.SIGTERM)
        stopped = [await ended(projector) for projector in (first, second)]
    faults = await verify(store, runs, int)
    report = emitter.close()

    assert [0, 0] == [one.code for one in stopped]
    assert faults == []
    assert 2 * len(runs) == report.delivered
