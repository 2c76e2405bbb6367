"""The trace, in through Pub/Sub and out of Firestore."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from run_log.core import Settings
from run_log.producer import RunEventEmitter
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import FirestoreRunLogService

from .trace_file import read_trace
from .trace_replay import publish, start_projector, verify

pytestmark = pytest.mark.emulator


async def test_the_trace_comes_out_as_it_went_in(
    emulator_environment: Mapping[str, str],
) -> None:
    """Every run of a trace, every workflow's stats and every page equal an independent fold."""
    assert emulator_environment
    runs = read_trace()
    settings = Settings.from_env()
    provision(PubSubConnection.from_settings(settings), settings)
    emitter, service = RunEventEmitter.from_env(), FirestoreRunLogService.from_env()

    # Before the projectors start: they would take a publisher that is held up for one that has nothing more.
    await publish(emitter, runs, int)
    projectors = [await start_projector("--until-idle", "5") for _ in range(2)]
    codes = await asyncio.gather(*(projector.wait() for projector in projectors))
    faults = await verify(service, runs, int)
    report = emitter.close()
    await service.close()

    assert codes == [0, 0]
    assert faults == []
    assert 2 * len(runs) == report.delivered
