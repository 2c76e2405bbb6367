"""The pull worker on Google Cloud, wired from settings. Needs the extra ``projector``."""

from __future__ import annotations

import asyncio

from run_log.core import Settings
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService

from ._projector import Projector
from ._pubsub import PubSubDeadLetters, PubSubSource
from ._pull import PullReport, PullWorker


async def pull(settings: Settings, *, stop: asyncio.Event, until_idle: float | None = None) -> PullReport:
    """Project what arrives at the settings' subscription into the settings' Firestore.

    Args:
        settings: Where to pull, and where to project.
        stop: Ends the work; see `PullWorker.run`.
        until_idle: Seconds without a message that end it too; None for never.

    Raises:
        ConfigurationError: The project or credentials are missing, or Firestore does not let us in.
        TransportRefusedError: The subscription is not there, or denied.
    """
    connection = PubSubConnection.from_settings(settings)
    store = FirestoreRunLogService.from_settings(settings)
    source = PubSubSource(connection, settings.subscription)
    dead_letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    try:
        worker = PullWorker(source, Projector(store), dead_letters)
        return await worker.run(stop=stop, until_idle=until_idle)
    finally:
        await asyncio.gather(source.close(), dead_letters.close(), store.close())
