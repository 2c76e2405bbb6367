"""A backlog that was published beforehand, and projector processes that drain it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from google.cloud import firestore

from run_log.core import Message, RunEvent, Settings, encode_event
from run_log.pubsub import PubSubConnection, provision
from run_log.testing import FirestoreEmulator

from . import workload
from .firestore_baselines import close

WARM_UP_ROUNDS: Final = 3
"""Backlogs drained before anything is measured: the emulators' virtual machines are slower at first."""
PATIENCE_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.1
_PER_PUBLISH: Final = 500


def warm_up(events: Sequence[RunEvent], emulator: FirestoreEmulator, *, rounds: int = WARM_UP_ROUNDS) -> None:
    """Drain *events* a few times, so that both emulators have compiled what they need."""
    for _ in range(rounds):
        rate(events, emulator)


def rate(events: Sequence[RunEvent], emulator: FirestoreEmulator, *, processes: int = 1) -> float:
    """Return the events a second at which *processes* projectors drain *events*, published beforehand.

    Timed from when the first of them are visible, so that no process's start counts.

    Args:
        events: The backlog: a start and an end of each run, all in success.
        emulator: Where it is projected; the project is cleared afterwards.
        processes: Projectors, all on one subscription, each a process of its own.
    """
    os.environ["GOOGLE_CLOUD_PROJECT"] = project = f"drain-{uuid.uuid4().hex[:8]}"
    found = asyncio.run(_rate([encode_event(event) for event in events], processes))
    emulator.clear(project)
    return found


@contextlib.asynccontextmanager
async def projector() -> AsyncGenerator[None]:
    """Run ``run-log projector pull`` in a process of its own, in this one's environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from run_log.console import main; main()", "projector", "pull"
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def visible(client: Any, settings: Settings) -> tuple[int, int]:
    """Return how many runs the stats count, and how many of them as successful.

    The emulator adds them up: hundreds of documents every time would keep a core from what is measured.
    """
    query = client.collection(settings.root_collection).sum("total", alias="total")
    answer = await query.sum("successful", alias="successful").get()
    sums = {field.alias: int(field.value) for field in answer[0]}
    return sums["total"], sums["successful"]


async def _rate(messages: Sequence[Message], processes: int) -> float:
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)
    provision(connection, settings)
    _publish(connection, settings, messages)
    client: Any = firestore.AsyncClient(project=settings.project)
    async with contextlib.AsyncExitStack() as running, asyncio.timeout(PATIENCE_SECONDS):
        # All at once: one after another, the first would drain most of it alone.
        await asyncio.gather(*(running.enter_async_context(projector()) for _ in range(processes)))
        at_first = await _wait_for(client, settings, 1)
        begun = time.perf_counter()
        await _wait_for(client, settings, len(messages))
        elapsed = time.perf_counter() - begun
    await close(client)
    return (len(messages) - at_first) / elapsed


async def _wait_for(client: Any, settings: Settings, events: int) -> int:
    """Return how many events are visible once at least *events* are."""
    while (seen := sum(await visible(client, settings))) < events:  # noqa: ASYNC110 - set elsewhere
        await asyncio.sleep(POLL_SECONDS)
    return seen


def _publish(connection: PubSubConnection, settings: Settings, messages: Sequence[Message]) -> None:
    publisher = connection.publisher()
    topic = connection.topic_path(settings.topic)
    for part in workload.chunks(messages, _PER_PUBLISH):
        body = [{"data": message.data, "attributes": dict(message.attributes)} for message in part]
        publisher.publish(request={"topic": topic, "messages": body})
    publisher.transport.close()
