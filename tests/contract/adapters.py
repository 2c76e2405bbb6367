"""The adapters that run the contract suite. Each supplies a factory, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from run_log.core import Message, Outcome, RunEvent, Settings
from run_log.core.ids import document_id
from run_log.producer import PubSubRunLogService, RunEventEmitter
from run_log.producer._emitter import pubsub_transport
from run_log.producer._transport import DeliveryPolicy, Transport
from run_log.projector import MessageSource, Projector, PullLimits, PullWorker
from run_log.projector.pubsub import PubSubDeadLetters, PubSubSource
from run_log.pubsub import PubSubConnection, provision
from run_log.stores import (
    FirestoreRunLogService,
    InMemoryRunLogService,
    ProjectionStore,
    RunLogService,
    SQLiteRunLogService,
)
from run_log.testing import Faults, InMemoryTopic

from .harness import Clock, Harness, Spoilable

UNREADABLE = "carrier pigeon"
"""A trigger type that no version of run-log knows."""

FLUSH_SECONDS = 30.0
WORKER_LIMITS = PullLimits(pulls=1, pull_seconds=5, stop_seconds=0.05)


class SpoilableMemory(InMemoryRunLogService):
    """Memory with runs that can be made unreadable."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        super().__init__(**settings, now=self.clock)

    async def spoil(self, workflow_id: str, run_id: str) -> None:
        """Make a stored run unreadable."""
        runs = self._workflows[workflow_id].runs
        fields = {**runs[run_id].fields, "trigger_type": UNREADABLE}
        runs[run_id] = replace(runs[run_id], fields=fields)

    async def delete(self, workflow_id: str, run_id: str) -> None:
        """Delete a run and nothing else."""
        del self._workflows[workflow_id].runs[run_id]


class SpoilableFirestore(FirestoreRunLogService):
    """Firestore with runs that can be made unreadable."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        super().__init__(**settings, now=self.clock)

    async def spoil(self, workflow_id: str, run_id: str) -> None:
        """Make a stored run unreadable."""
        reference = self._runs(workflow_id).document(document_id(run_id))
        await reference.update({"trigger_type": UNREADABLE})

    async def delete(self, workflow_id: str, run_id: str) -> None:
        """Delete a run and nothing else, as a TTL policy does."""
        await self._runs(workflow_id).document(document_id(run_id)).delete()


class SpoilableSQLite(SQLiteRunLogService):
    """A file with runs that can be made unreadable."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        super().__init__(**settings, now=self.clock)

    async def spoil(self, workflow_id: str, run_id: str) -> None:
        """Make a stored run unreadable."""
        place = (document_id(workflow_id), document_id(run_id))
        statement = "UPDATE runs SET trigger_type = ? WHERE workflow = ? AND run = ?"
        await self._writer.run(lambda connection: connection.execute(statement, (UNREADABLE, *place)))

    async def delete(self, workflow_id: str, run_id: str) -> None:
        """Delete a run and nothing else, as a later write does."""
        place = (document_id(workflow_id), document_id(run_id))
        statement = "DELETE FROM runs WHERE workflow = ? AND run = ?"
        await self._writer.run(lambda connection: connection.execute(statement, place))


class RecordingTransport:
    """Remembers which events were published."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.published: set[str] = set()

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transport.publish`."""
        self._transport.publish(messages)
        self.published |= {message.attributes["ce-id"] for message in messages}

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()


class RecordingStore:
    """Remembers which events were applied."""

    def __init__(self, store: ProjectionStore) -> None:
        self._store = store
        self._applied: set[str] = set()
        self._changed = asyncio.Condition()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        outcomes = await self._store.apply(events)
        async with self._changed:
            self._applied |= {event.event_id for event in events}
            self._changed.notify_all()
        return outcomes

    async def until_applied(self, event_ids: set[str]) -> None:
        """Wait until all of *event_ids* are applied."""
        async with self._changed:
            await self._changed.wait_for(lambda: event_ids <= self._applied)


class PublishedHarness(Harness):
    """Events travel: `save_run` publishes, and a pull worker in this event loop projects."""

    def __init__(
        self,
        store: RunLogService,
        spoilable: Spoilable,
        transport: Transport,
        source: MessageSource,
        dead_letters: NoDeadLetters | PubSubDeadLetters,
    ) -> None:
        super().__init__(store, spoilable)
        self._transport = RecordingTransport(transport)
        self._emitter = RunEventEmitter(self._transport, policy=DeliveryPolicy(linger=0))
        self.service = PubSubRunLogService(emitter=self._emitter, reader=store)
        self._applied = RecordingStore(store)
        worker = PullWorker(source, Projector(self._applied), dead_letters, limits=WORKER_LIMITS)
        self._source, self._dead_letters = source, dead_letters
        self._stop = asyncio.Event()
        self._work = asyncio.create_task(worker.run(stop=self._stop))

    async def settle(self) -> None:
        """See `Harness.settle`."""
        report = await self._emitter.flush(FLUSH_SECONDS)
        assert (report.pending, report.dropped) == (0, 0)
        await self._applied.until_applied(set(self._transport.published))

    async def close(self) -> None:
        """See `Harness.close`."""
        self._stop.set()
        await self._work
        await self._source.close()
        await self.service.close()
        await self._dead_letters.close()


class NoDeadLetters:
    """Fails the worker: nothing the suite saves is a dead letter."""

    async def put(self, message: object, *, reason: object, error: str) -> None:
        """See `DeadLetters.put`."""
        raise AssertionError(f"{message} was dead-lettered: {reason}, {error}")

    async def close(self) -> None:
        """See `PubSubDeadLetters.close`."""


async def open_memory() -> Harness:
    """Return the embedded run log."""
    store = SpoilableMemory.from_env()
    return Harness(store, store)


async def open_firestore() -> Harness:
    """Return the run log on the Firestore emulator that the environment names."""
    store = SpoilableFirestore.from_env()
    return Harness(store, store)


async def open_sqlite() -> Harness:
    """Return the run log in the file that the environment names."""
    store = SpoilableSQLite.from_env()
    return Harness(store, store)


async def open_in_memory_topic() -> Harness:
    """Return the event-sourced run log over a topic that repeats, reorders and delays."""
    topic = InMemoryTopic(faults=Faults(duplicate=0.5, reorder=1, delay=0.2, fail=0.05), seed=7)
    store = SpoilableMemory.from_env()
    return PublishedHarness(store, store, topic, topic.subscribe(), NoDeadLetters())


async def open_pubsub() -> Harness:
    """Return the event-sourced run log on both emulators that the environment names."""
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)
    await asyncio.to_thread(provision, connection, settings)
    store = SpoilableFirestore.from_env()
    return PublishedHarness(
        store,
        store,
        pubsub_transport(settings),
        PubSubSource(connection, settings.subscription),
        PubSubDeadLetters(connection, settings.dead_letter_topic),
    )


MEMORY = pytest.param((open_memory, None), id="memory")
SQLITE = pytest.param((open_sqlite, "sqlite_environment"), id="sqlite")
STORES = (
    MEMORY,
    SQLITE,
    pytest.param((open_firestore, "emulator_environment"), id="firestore", marks=pytest.mark.emulator),
)
"""Those that answer queries themselves."""
PUBLISHED = (
    pytest.param((open_in_memory_topic, None), id="in_memory_topic"),
    pytest.param((open_pubsub, "emulator_environment"), id="pubsub", marks=pytest.mark.emulator),
)
"""Those that publish what is saved, and have one of `STORES` answer queries."""

every_adapter = pytest.mark.parametrize("open_harness", [*STORES, *PUBLISHED], indirect=True)
"""For what depends on how a run is written: the test runs for those of `PUBLISHED`, too."""
counting_anything = pytest.mark.parametrize("open_harness", [MEMORY, SQLITE], indirect=True)
"""For what is promised of those that count runs by any filters, and at one moment."""
memory_alone = pytest.mark.parametrize("open_harness", [MEMORY], indirect=True)
"""For what is decided before any store is asked: the test runs once."""
