"""The archive as a process: signals stop it, a second one ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from run_log.console.signals import stopped_by_signal
from run_log.console.work.opening import reached_broker, shortest_silence
from run_log.core import Settings
from run_log.projector.archive import ArchiveReport, ArchiveWorker, ArchiveWriter
from run_log.projector.pubsub import PubSubSource
from run_log.pubsub import PubSubConnection, add_subscription


async def archive_until_signal(
    settings: Settings, *, folder: Path, subscription: str, until_idle: float | None, segment_bytes: int
) -> ArchiveReport:
    """Keep what is published in files until SIGTERM or SIGINT, or until idle.

    Args:
        settings: Where the event topic is.
        folder: Where the files go.
        subscription: The archive's own; made where it is not there.
        until_idle: Seconds without a message that end it too, no fewer than `shortest_silence`; None for
            never.
        segment_bytes: Bytes after which the next file begins.
    """
    stop = stopped_by_signal()
    await reached_broker(settings)
    connection = PubSubConnection.from_settings(settings)
    await asyncio.to_thread(add_subscription, connection, settings.topic, subscription)
    if until_idle is not None:
        until_idle = max(until_idle, await shortest_silence(settings, subscription, extends=False))
    source = PubSubSource(connection, subscription)
    try:
        worker = ArchiveWorker(source, ArchiveWriter(folder, segment_bytes=segment_bytes))
        return await worker.run(stop=stop, until_idle=until_idle)
    finally:
        await source.close()
