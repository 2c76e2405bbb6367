"""``run-log archive`` as a process that signals stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from run_log.console.signals import stopped_by_signal
from run_log.console.work.opening import idle_seconds, reached_broker
from run_log.core import Settings
from run_log.projector.archive import ArchiveReport, ArchiveWorker, ArchiveWriter
from run_log.projector.pubsub import opened_source
from run_log.pubsub import PubSubConnection, add_subscription


async def archive_until_signal(
    settings: Settings, *, folder: Path, subscription: str, until_idle: float | None, segment_bytes: int
) -> ArchiveReport:
    """Write what is published to files until SIGTERM or SIGINT, or until idle.

    *subscription* is the archive's own, and is created if it does not exist. *until_idle* is raised by
    `idle_seconds`.
    """
    stop = stopped_by_signal()
    await reached_broker(settings)
    connection = PubSubConnection.from_settings(settings)
    await asyncio.to_thread(add_subscription, connection, settings.topic, subscription)
    until_idle = await idle_seconds(settings, subscription, until_idle, extends=False)
    async with opened_source(connection, subscription) as source:
        worker = ArchiveWorker(source, ArchiveWriter(folder, segment_bytes=segment_bytes))
        return await worker.run(stop=stop, until_idle=until_idle)
