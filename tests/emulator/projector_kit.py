"""What tests of the projector under fire share: short leases, workloads, processes, and a recount."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from google.api_core import exceptions as google_errors
from tests.processes import started

from run_log.core import ReceivedMessage, RunEvent, RunStatus, Settings, encode_event
from run_log.core.models import RunKey
from run_log.projector import GroupLimits, MessageSource, Projector, PullLimits, PullWorker
from run_log.projector.pubsub import PubSubDeadLetters, PubSubSource
from run_log.pubsub import PubSubConnection
from run_log.stores import FirestoreRunLogService
from run_log.stores.committing.patience import Patience
from run_log.testing import an_event

from .firestore_kit import Watch, WatchedService
from .pubsub_kit import RawPubSub

PATIENCE: Final = 180.0
"""How long a test waits for what has to come, on a busy machine."""

LEASE_SECONDS: Final = 10
"""The shortest ack deadline that Pub/Sub has."""

_AT_A_TIME: Final = 500

_SUMMARY: Final = re.compile(
    r"pulled (?P<pulled>\d+): (?P<applied>\d+) applied, (?P<duplicate>\d+) duplicate, (?P<stale>\d+) stale"
)


def provisioned_with_short_leases() -> RawPubSub:
    """Return the environment's Pub/Sub, whose subscription delivers again soon and without a back-off."""
    settings = Settings.from_env()
    raw = RawPubSub(settings)
    connection = raw.connection
    with connection.publisher() as publisher, connection.subscriber() as subscriber:
        for topic, subscription in (
            (settings.topic, settings.subscription),
            (settings.dead_letter_topic, settings.dead_letter_topic),
        ):
            publisher.create_topic(name=connection.topic_path(topic))
            subscriber.create_subscription(
                request={
                    "name": connection.subscription_path(subscription),
                    "topic": connection.topic_path(topic),
                    "ack_deadline_seconds": LEASE_SECONDS,
                }
            )
    return raw


class Workload:
    """The steps of many runs, and the state in which they have to end.

    Args:
        runs: How many, of two workflows.
        steps: The states that each goes through before its end.
        seed: Of the order, the repeats and the ends.
    """

    def __init__(self, runs: int, *, steps: Sequence[RunStatus] = (RunStatus.RUNNING,), seed: int) -> None:
        self.chance = random.Random(seed)
        ends = [RunStatus.SUCCESS, RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.PAUSED]
        self.lives = [
            [
                an_event(workflow_id=f"w{number % 2}", id=f"r{number:05}", status=status)
                for status in (*steps, self.chance.choice(ends))
            ]
            for number in range(runs)
        ]

    @property
    def events(self) -> list[RunEvent]:
        """All events, of each run in order."""
        return [event for life in self.lives for event in life]

    def publish(self, raw: RawPubSub, events: Sequence[RunEvent], *, repeats: float = 0.1) -> set[str]:
        """Publish *events* in no order, a share of them twice; return the message ids."""
        doubled = [*events, *(event for event in events if self.chance.random() < repeats)]
        self.chance.shuffle(doubled)
        messages = [encode_event(event) for event in doubled]
        return {
            message_id
            for start in range(0, len(messages), _AT_A_TIME)
            for message_id in raw.publish(messages[start : start + _AT_A_TIME])
        }

    def shares(self, count: int, lives: Sequence[Sequence[RunEvent]] | None = None) -> list[list[RunEvent]]:
        """Return all events, or those of *lives*, in no order, in that many parts."""
        events = [event for life in lives or self.lives for event in life]
        self.chance.shuffle(events)
        return [events[number::count] for number in range(count)]

    async def is_done(self, store: FirestoreRunLogService) -> bool:
        """Return whether the stats are as they have to end."""
        return await totals(store) == self.totals()

    async def verify(self, store: FirestoreRunLogService) -> None:
        """Hold the projection against a fold of the events: every run, every history, every count."""
        newest: dict[RunKey, RunEvent] = {event.key: event for event in self.events}
        for workflow_id in ("w0", "w1"):
            runs, cursor = await store.list_runs(workflow_id, limit=1_000)
            assert cursor is None
            expected = {key[1]: event.run for key, event in newest.items() if key[0] == workflow_id}
            assert expected == {run.id: run for run in runs}
            counts = Counter(run.status for run in runs)
            stats = await store.get_stats(workflow_id)
            assert {"total": len(runs), "successful": counts[RunStatus.SUCCESS]} == stats
        for life in self.chance.sample(self.lives, 10):
            history = await store.get_history(*life[0].key)
            assert [event.version for event in life] == [line.version for line in history]

    def totals(self) -> tuple[int, int]:
        """Return how many runs there are, and how many of them end in success."""
        return len(self.lives), sum(life[-1].run.status is RunStatus.SUCCESS for life in self.lives)


async def totals(store: FirestoreRunLogService) -> tuple[int, int]:
    """Return how many runs the stats count, and how many of them as successful."""
    both = await asyncio.gather(store.get_stats("w0"), store.get_stats("w1"))
    return sum(stats["total"] for stats in both), sum(stats["successful"] for stats in both)


async def until(
    condition: Callable[[], Awaitable[bool]], *, within: float = PATIENCE, look_seconds: float = 0.05
) -> None:
    """Return soon after *condition* holds, which asks the store: that takes time of both processors."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(look_seconds)


async def until_true(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Return as soon as *condition* holds, which asks nobody."""

    async def holds() -> bool:
        return condition()

    await until(holds, within=within, look_seconds=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a projector left behind."""

    code: int | None
    err: str
    counts: dict[str, int]
    """Its summary; nothing where it had no time for one."""


def projecting() -> AbstractAsyncContextManager[Process]:
    """Run a projector as a process of its own, which does not outlive the block."""
    return started("projector", "pull")


async def ended(process: Process, *, within: float = PATIENCE) -> Ended:
    """Wait for *process* to end by itself and return what it left behind."""
    async with asyncio.timeout(within):
        out, err = await process.communicate()
    summary = _SUMMARY.match(out.decode())
    return Ended(
        code=process.returncode,
        err=err.decode(),
        counts={name: int(count) for name, count in summary.groupdict().items()} if summary else {},
    )


class HastyWatch(Watch):
    """Sees every call to Firestore, lets none take long, and counts the commits that fail.

    Args:
        seconds: How long a call may take.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.failures: Counter[str] = Counter()
        """Commits that failed, by the vendor's error."""

    async def call(self, name: str, method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make a call."""
        call = super().call(name, method, arguments, {**named, "timeout": self.seconds})
        if name != "commit":
            return await call
        try:
            return await call
        except google_errors.GoogleAPIError as error:
            self.failures[type(error).__name__] += 1
            raise


class CountedSource:
    """A subscription of which is known which messages were acknowledged, and what is under way.

    Args:
        source: Does the work.
    """

    def __init__(self, source: MessageSource) -> None:
        self._source = source
        self._ids: dict[str, str] = {}
        self.acknowledged: set[str] = set()
        """Ids of messages whose acknowledgement the broker has confirmed."""
        self.acknowledging = 0
        self.failed = 0

    @property
    def is_settled(self) -> bool:
        """Whether each message that was pulled is acknowledged, however often it came."""
        return set(self._ids.values()) <= self.acknowledged

    async def pull(self, max_messages: int, *, wait: float) -> Sequence[ReceivedMessage]:
        """See `MessageSource.pull`."""
        messages = await self._source.pull(max_messages, wait=wait) or []
        self._ids.update({message.ack_id: message.message_id for message in messages})
        return messages

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.acknowledge`."""
        self.acknowledging += 1
        try:
            await self._source.acknowledge(ack_ids)
        except Exception:
            self.failed += 1
            raise
        finally:
            self.acknowledging -= 1
        self.acknowledged.update(self._ids[ack_id] for ack_id in ack_ids)

    async def release(self, ack_ids: Sequence[str]) -> None:
        """See `MessageSource.release`."""
        await self._source.release(ack_ids)

    async def extend(self, ack_ids: Sequence[str], seconds: float) -> None:
        """See `MessageSource.extend`."""
        await self._source.extend(ack_ids, seconds)

    async def close(self) -> None:
        """See `MessageSource.close`."""
        await self._source.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A worker of this process, with what sees its calls."""

    worker: PullWorker
    source: CountedSource
    watch: HastyWatch

    async def has_acknowledged(self, published: set[str]) -> None:
        """Wait until all these messages are acknowledged."""
        await until_true(lambda: published <= self.source.acknowledged)


@contextlib.asynccontextmanager
async def wired(
    *,
    store_patience: float = 15.0,
    call_seconds: float = 10.0,
    batch: int = 50,
) -> AsyncGenerator[Wired]:
    """Make a worker to where the environment leads now; it is closed when the block ends.

    Args:
        store_patience: Seconds for which an operation on the store is tried.
        call_seconds: Seconds that one call to it may take.
        batch: Most events projected together.
    """
    settings = Settings.from_env()
    connection = PubSubConnection.from_settings(settings)
    watch = HastyWatch(call_seconds)
    store = WatchedService(watch, Patience(store_patience), known_runs=20_000)
    source = CountedSource(PubSubSource(connection, settings.subscription))
    letters = PubSubDeadLetters(connection, settings.dead_letter_topic)
    worker = PullWorker(
        source,
        Projector(store),
        letters,
        limits=PullLimits(group=GroupLimits(batch=batch)),
    )
    try:
        yield Wired(worker=worker, source=source, watch=watch)
    finally:
        await asyncio.gather(source.close(), letters.close(), store.close())
